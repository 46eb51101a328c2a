"""Autoregression: the last window of each sequence is continued by feeding predictions back.

Targets that are inputs are fed back, other targets are only returned; every input has to be a target. Rows
are continued in batches of equal size. An engine that scans does all steps of a batch in compiled functions;
any other is called once a step, on fixed arrays: the row of a sequence begins with its window's L inputs,
behind them go the prediction that the window itself gave and then one value a step. Step k reads the L values
that begin at slot k, so the window slides and nothing is copied.

In compiled functions, a scan over steps carries a state. The exact form keeps the newest L items and computes
their window again at every step. The rolling form keeps what the layers remember (`model/mixer.py`), and
computes one position a step. Either way an item is predicted, read, and becomes the newest one, without
leaving the device. Rows may be shared among devices, each of which continues its own.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped

from seqjax.console import Advance, progress
from seqjax.inference.engine import Columns, Engine
from seqjax.inference.predict import Feed
from seqjax.inference.sample import Reader, Reading, Readout, joined, widened
from seqjax.windows.windows import Windows

if TYPE_CHECKING:
    import jax
    from jax.sharding import NamedSharding

    from seqjax.model.functional import GraphDef
    from seqjax.model.transformer import Transformer

LARGEST_KEPT = 2**24
"""Numbers of kept distributions that one dispatch may return."""
MOST_STEPS = 64
"""Steps of one dispatch, so that progress is seen."""


class State(NamedTuple):
    """The state of B rows between two steps, on the device."""

    newest: dict[str, Any]
    """Each input column: the newest L items (B, L), or the newest one (B, 1) beside a cache."""
    memory: Any
    """Which of the L hold a real item, bool (B, L); or a `Cache`."""


class Scan:
    """A model that continues windows, compiled for each number of rows and steps that it meets."""

    def __init__(
        self,
        graphdef: "GraphDef",
        params: Mapping[str, Any],
        reading: Reading,
        *,
        rolling: bool,
        by_row: "NamedSharding",
    ) -> None:
        """Prepares the compiled functions.

        Args:
          graphdef: What `params` belong to.
          params: Parameters, on each device.
          reading: What is read at each step; its values are fed back.
          rolling: Whether keys and values are kept, rather than each window computed again.
          by_row: How rows are shared among the devices.
        """
        import jax

        self._params = params
        self._reading = reading
        self._by_row = by_row
        self._begin = jax.jit(partial(_begin, graphdef, rolling=rolling))
        step = partial(_step, graphdef, reading, rolling=rolling)
        self._advance = jax.jit(partial(_advance, step), static_argnames="steps", donate_argnames="state")

    @property
    def devices(self) -> int:
        """The divisor of the number of rows that are continued together."""
        return self._by_row.mesh.size

    def begin(
        self,
        inputs: Columns,
        valid_mask: Bool[np.ndarray, "B L"],
        first: Mapping[str, Shaped[np.ndarray, "B"]],
    ) -> State:
        """The state before the first step.

        Args:
          inputs: Each input column of the windows, ids or standardised values (B, L).
          valid_mask: Which positions hold a real item.
          first: What the windows predict, by input column: the items that the first step sees.
        """
        import jax

        columns = {name: _narrow(values) for name, values in inputs.items()}
        items = {name: _narrow(first[name])[:, None] for name in columns}
        arrays = jax.device_put((columns, valid_mask, items), self._by_row)
        with jax.default_matmul_precision("highest"):
            return self._begin(self._params, *arrays)

    def advance(
        self, state: State, uniforms: Mapping[str, Float32[np.ndarray, "B steps"]], *, steps: int
    ) -> tuple[State, Readout]:
        """The state `steps` further, and what was read on the way, (B, steps) each.

        Args:
          state: Where to go on from; it cannot be used again.
          uniforms: The random numbers of the steps, by sampled target.
          steps: How many.
        """
        import jax

        numbers = jax.device_put(dict(uniforms), self._by_row)
        with jax.default_matmul_precision("highest"):
            state, taken = self._advance(self._params, state, numbers, steps=steps)
        values, log_probs = jax.device_get(taken)
        return state, Readout({name: widened(column) for name, column in values.items()}, log_probs)


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


def _begin(
    graphdef: "GraphDef",
    params: dict[str, Any],
    columns: "dict[str, jax.Array]",
    valid: "jax.Array",
    items: "dict[str, jax.Array]",
    *,
    rolling: bool,
) -> State:
    if rolling:
        return State(items, _merged(graphdef, params).remember(columns, valid)[1])
    import jax.numpy as jnp

    newest = {name: _slid(values, items[name]) for name, values in columns.items()}
    return State(newest, _slid(valid, jnp.ones_like(valid[:, :1])))


def _advance(
    step: Any,  # noqa: ANN401
    params: dict[str, Any],
    state: State,
    uniforms: "dict[str, jax.Array]",
    *,
    steps: int,
) -> tuple[State, Any]:
    import jax
    import jax.numpy as jnp

    by_step = {name: jnp.swapaxes(values, 0, 1) for name, values in uniforms.items()}
    state, taken = jax.lax.scan(partial(step, params), state, by_step, length=steps)
    return state, jax.tree.map(lambda values: jnp.swapaxes(values, 0, 1), taken)


def _step(
    graphdef: "GraphDef",
    reading: Reading,
    params: dict[str, Any],
    state: State,
    uniforms: "dict[str, jax.Array]",
    *,
    rolling: bool,
) -> tuple[State, Any]:
    """One prediction of every row; its readout is (B,) values and (B, C) log-probabilities."""
    import jax.numpy as jnp

    from seqjax.model.heads import stated

    model = _merged(graphdef, params)
    if rolling:
        raw, memory = model.proceed(state.newest, state.memory)
        outputs = stated(raw, dict(reading.targets))
    else:
        outputs = model.predict(state.newest, state.memory)
        memory = _slid(state.memory, jnp.ones_like(state.memory[:, :1]))
    values = reading.values(outputs, {name: numbers[:, None] for name, numbers in uniforms.items()})
    newest = {}
    for name, held in state.newest.items():
        item = values[name].astype(held.dtype)
        newest[name] = item if rolling else _slid(held, item)
    taken = {name: column[:, 0] for name, column in values.items()}
    return State(newest, memory), (taken, {name: outputs[name][:, 0] for name in reading.kept})


def _merged(graphdef: "GraphDef", params: dict[str, Any]) -> "Transformer":
    from seqjax.model.functional import merge

    return merge(graphdef, params)


def _slid(window: "jax.Array", item: "jax.Array") -> "jax.Array":
    """The window (B, L) without its oldest slot and with one more."""
    import jax.numpy as jnp

    return jnp.concatenate([window[:, 1:], item], axis=1)


def _narrow(values: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    return values.astype(np.int32 if np.issubdtype(values.dtype, np.integer) else np.float32)


GenerationCache = Literal["exact", "rolling"]


@runtime_checkable
class Scanner(Protocol):
    """An engine that continues windows inside compiled functions."""

    def scan(self, reading: Reading, *, rolling: bool) -> Scan:
        """The functions that continue windows.

        Args:
          reading: What is read at each step; its values are fed back.
          rolling: Whether keys and values are kept, rather than each window computed again.
        """
        ...


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
      cache: Compute each window again, or go on from kept keys and values (a `Scanner` alone does).

    Returns:
      The readouts of each step, the steps along the second axis: (S, steps).
    """
    rows = len(start[1])
    uniforms = read.further(rows, steps)
    scan = engine.scan(read.reading, rolling=cache == "rolling") if isinstance(engine, Scanner) else None
    parts = []
    with progress("Autoregression", rows * steps, "items") as bar:
        run = _Run(engine, read, scan, bar)
        for chunk in _even_chunks(rows, batch_size, devices=scan.devices if scan else 1):
            inputs = {name: values[chunk] for name, values in start[0].items()}
            own_first = None if first is None else {name: first[name][chunk] for name in inputs}
            numbers = {name: values[chunk] for name, values in uniforms.items()}
            parts.append(_continued(run, _Batch(inputs, start[1][chunk], own_first, numbers, steps)))
    whole = joined(parts)
    return Readout(*({name: values[:rows] for name, values in field.items()} for field in whole))


class _Run(NamedTuple):
    """The model, and what is read and shown of its steps."""

    engine: Engine
    read: Reader
    scan: Scan | None
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
    return _side_by_side([head, _continued(run, rest)])


def _by_scan(run: _Run, batch: _Batch, first: Mapping[str, Shaped[np.ndarray, "B"]]) -> Readout:
    """Continues a batch in compiled functions of equally many steps, the last of which may go too far."""
    assert run.scan is not None
    rows, steps = len(batch.valid_mask), batch.steps
    classes = run.engine.card.column_schema.n_classes
    most = steps_at_once(run.read.reading, classes, rows=rows, steps=steps)
    beyond = -steps % most
    uniforms = {name: np.pad(values, ((0, 0), (0, beyond))) for name, values in batch.uniforms.items()}
    state = run.scan.begin(batch.inputs, batch.valid_mask, first)
    taken = []
    for done in range(0, steps, most):
        numbers = {name: values[:, done : done + most] for name, values in uniforms.items()}
        state, readout = run.scan.advance(state, numbers, steps=most)
        taken.append(readout)
        run.bar.advance(rows * min(most, steps - done))
    whole = _side_by_side(taken)
    return Readout(*({name: values[:, :steps] for name, values in field.items()} for field in whole))


def _by_step(run: _Run, batch: _Batch, first: Mapping[str, Shaped[np.ndarray, "B"]]) -> Readout:
    """Continues a batch by one call of the engine a step."""
    (rows, length), steps = batch.valid_mask.shape, batch.steps
    valid = np.concatenate([batch.valid_mask, np.ones((rows, steps), np.bool_)], axis=1)
    columns = {name: _extended(values, first[name], steps) for name, values in batch.inputs.items()}
    taken = []
    for step in range(1, steps + 1):
        window = slice(step, step + length)
        inputs = {name: column[:, window] for name, column in columns.items()}
        numbers = {name: values[:, step - 1 : step] for name, values in batch.uniforms.items()}
        taken.append(run.read.read(run.engine.predict(inputs, valid[:, window]), numbers))
        if step < steps:
            for name, column in columns.items():
                column[:, step + length] = taken[-1].values[name][:, 0]
        run.bar.advance(rows)
    return _side_by_side(taken)


def _even_chunks(rows: int, most: int, *, devices: int) -> Iterator[Int64[np.ndarray, "B"]]:
    """The numbers below `rows` in batches of one size, about `most` or less; the last one may be repeated."""
    size = -(-rows // -(-rows // most))
    size += -size % devices
    for first in range(0, rows, size):
        yield np.minimum(np.arange(first, first + size), rows - 1)


def _extended(
    values: Shaped[np.ndarray, "B L"], first: Shaped[np.ndarray, "B"], steps: int
) -> Shaped[np.ndarray, "B _"]:
    column = np.zeros((len(values), values.shape[1] + steps), values.dtype)
    column[:, : values.shape[1]] = values
    column[:, values.shape[1]] = first
    return column


def _side_by_side(taken: list[Readout]) -> Readout:
    return Readout(
        *(
            {name: np.concatenate([part[field][name] for part in taken], axis=1) for name in taken[0][field]}
            for field in range(3)
        )
    )
