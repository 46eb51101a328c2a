"""Autoregression: the last window of each sequence is continued by feeding predictions back.

Targets that are inputs are fed back, other targets are only returned; every input has to be a target. Rows
are continued in batches of equal size. A model in JAX does all steps of a batch in compiled functions;
any other is called once a step, on fixed arrays: the row of a sequence begins with its window's L inputs,
behind them go the prediction that the window itself gave and then one value a step. Step k reads the L values
that begin at slot k, so the window slides and nothing is copied.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped

from seqjax.console import Advance, progress
from seqjax.inference.engine import Engine, Feed, ScanningEngine
from seqjax.inference.sample import Reader, Reading, Readout, joined
from seqjax.windows.windows import Windows

if TYPE_CHECKING:
    from seqjax.inference.jax_engine import Scan

LARGEST_KEPT = 2**24
"""Numbers of kept distributions that one dispatch may return."""
MOST_STEPS = 64
"""Steps of one dispatch, so that progress is seen."""


GenerationCache = Literal["exact", "rolling"]


def last_windows(windows: Windows) -> Int64[np.ndarray, "S"]:
    """The number of each sequence's last window, in ascending order."""
    runs = windows.runs
    order = np.lexsort((runs.first_subsequence, runs.sequence_id))
    last = order[np.append(np.diff(runs.sequence_id[order]) != 0, True)]
    return np.sort(np.append(runs.first_window[1:], len(windows))[last] - 1)


def generate(
    engine: Engine,
    start: Feed,
    first: Mapping[str, Shaped[np.ndarray, "S"]] | None,
    read: Reader,
    *,
    steps: int,
    batch_size: int,
    cache: GenerationCache = "exact",
) -> Readout:
    """Continues S windows by `steps` predictions.

    Args:
      engine: A model that predicts each of its input columns, at the last position alone.
      start: The inputs of the windows (S, L), and which of their positions hold a real item.
      first: What the windows themselves predict, by target: ids or standardised values. None asks the model,
        and what it says is the first step.
      read: What to keep of the outputs; its values are fed back.
      steps: How many predictions to make, at least 1.
      batch_size: The most windows a batch (devices that share it get equally many).
      cache: Compute each window again, or go on from kept keys and values (a `ScanningEngine` alone does).

    Returns:
      The readouts of each step, the steps along the second axis: (S, steps).
    """
    rows = len(start[1])
    uniforms = read.further(rows, steps)
    scan = None
    if isinstance(engine, ScanningEngine) and not engine.drops:
        scan = engine.scan(read.reading, rolling=cache == "rolling")
    parts = []
    with progress("Autoregression", rows * steps, "items") as bar:
        run = _Run(engine, read, scan, bar)
        for chunk in _even_chunks(rows, batch_size, devices=scan.devices if scan else 1):
            inputs = {name: values[chunk] for name, values in start[0].items()}
            own_first = None if first is None else {name: first[name][chunk] for name in inputs}
            numbers = {name: values[chunk] for name, values in uniforms.items()}
            parts.append(_continued(run, _Batch(inputs, start[1][chunk], own_first, numbers, steps)))
    return joined(parts).map(lambda values: values[:rows])


def steps_at_once(reading: Reading, classes: Mapping[str, int], *, rows: int, steps: int) -> int:
    """The number of steps to dispatch together: about as many each time, and not too many distributions.

    Args:
      reading: What is kept of each step.
      classes: Number of classes of each categorical target.
      rows: Rows that are continued together.
      steps: Steps altogether.
    """
    kept = rows * sum(classes[name] for name in reading.kept)
    most = max(1, min(MOST_STEPS, LARGEST_KEPT // kept if kept else MOST_STEPS))
    return -(-steps // -(-steps // most))


class _Run(NamedTuple):
    """The means to continue windows."""

    engine: Engine
    read: Reader
    scan: "Scan | None"
    bar: Advance


class _Batch(NamedTuple):
    """Windows that are continued together."""

    inputs: dict[str, Shaped[np.ndarray, "B L"]]
    valid_mask: Bool[np.ndarray, "B L"]
    first: dict[str, Shaped[np.ndarray, "B"]] | None
    uniforms: dict[str, Float32[np.ndarray, "B steps"]]
    steps: int


def _continued(run: _Run, batch: _Batch) -> Readout:
    if batch.first is not None:
        return (_by_step if run.scan is None else _by_scan)(run, batch, batch.first)
    numbers = {name: values[:, :1] for name, values in batch.uniforms.items()}
    head = run.read.read(run.engine.predict(batch.inputs, batch.valid_mask), numbers)
    run.bar.advance(len(batch.valid_mask))
    if batch.steps == 1:
        return head
    rest = batch._replace(
        first={name: head.values[name][:, 0] for name in batch.inputs},
        uniforms={name: values[:, 1:] for name, values in batch.uniforms.items()},
        steps=batch.steps - 1,
    )
    return joined([head, _continued(run, rest)], axis=1)


def _by_scan(run: _Run, batch: _Batch, first: Mapping[str, Shaped[np.ndarray, "B"]]) -> Readout:
    """Continues a batch in compiled functions of equally many steps, the last of which may go too far."""
    assert run.scan is not None
    rows, steps = len(batch.valid_mask), batch.steps
    classes = run.engine.card.column_schema.n_classes
    most = steps_at_once(run.read.reading, classes, rows=rows, steps=steps)
    beyond = -steps % most
    uniforms = {name: np.pad(values, ((0, 0), (0, beyond))) for name, values in batch.uniforms.items()}
    state = run.scan.begin(batch.inputs, batch.valid_mask, first)
    readouts = []
    for done in range(0, steps, most):
        numbers = {name: values[:, done : done + most] for name, values in uniforms.items()}
        state, readout = run.scan.advance(state, numbers, steps=most)
        readouts.append(readout)
        run.bar.advance(rows * min(most, steps - done))
    return joined(readouts, axis=1).map(lambda values: values[:, :steps])


def _by_step(run: _Run, batch: _Batch, first: Mapping[str, Shaped[np.ndarray, "B"]]) -> Readout:
    """Continues a batch by one call of the engine a step."""
    (rows, length), steps = batch.valid_mask.shape, batch.steps
    valid = np.concatenate([batch.valid_mask, np.ones((rows, steps), np.bool_)], axis=1)
    columns = {name: np.pad(values, ((0, 0), (0, steps))) for name, values in batch.inputs.items()}
    for name, column in columns.items():
        column[:, length] = first[name]
    readouts = []
    for step in range(1, steps + 1):
        window = slice(step, step + length)
        inputs = {name: column[:, window] for name, column in columns.items()}
        numbers = {name: values[:, step - 1 : step] for name, values in batch.uniforms.items()}
        readouts.append(run.read.read(run.engine.predict(inputs, valid[:, window]), numbers))
        if step < steps:
            for name, column in columns.items():
                column[:, step + length] = readouts[-1].values[name][:, 0]
        run.bar.advance(rows)
    return joined(readouts, axis=1)


def _even_chunks(rows: int, most: int, *, devices: int) -> Iterator[Int64[np.ndarray, "B"]]:
    """The numbers below `rows` in batches of one size, about `most` or less; the last one may be repeated."""
    size = -(-rows // -(-rows // most))
    size += -size % devices
    for first in range(0, rows, size):
        yield np.minimum(np.arange(first, first + size), rows - 1)
