"""Rows of predictions: which sequence, which position, which value; continued by autoregression where asked.

A model is asked for all windows of a data set, batch by batch. A window gives one row for each of its last P
positions, oldest first. The rows of a continued sequence follow those of its last window, or take their
place, sample after sample, where it is continued several times.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float32, Int64, Shaped

from seqjax.config.schema import Schema
from seqjax.console import Advance
from seqjax.inference.engine import Engine, Feed, Outputs
from seqjax.inference.generate import GenerationCache, generate, last_windows
from seqjax.inference.sample import SPREAD, Reader, Readout, joined
from seqjax.windows.windows import Windows, inputs_of, moved_on, valid_mask


@dataclass(frozen=True)
class Forecast:
    """R predicted items."""

    sequence_id: Int64[np.ndarray, "R"]
    item_position: Int64[np.ndarray, "R"]
    values: dict[str, Shaped[np.ndarray, "R"]]
    """By target: int64 ids, or float32 standardised values."""
    log_probs: dict[str, Float32[np.ndarray, "R _"]]
    """By categorical target, where they were kept: (R, C)."""
    sample: Int64[np.ndarray, "R"] | None = None
    """Number of the continuation that each item belongs to, from 0 (-1: none); None without samples."""
    spread: Mapping[str, Float[np.ndarray, "R moments"]] = field(default_factory=dict)
    """By target, of passes with dropout: mean and standard deviation, (R, 2); see `Readout`."""


@dataclass(frozen=True)
class Embeddings:
    """R hidden states, by the window in the sequence (`subsequence_id`) and the item that was seen last."""

    sequence_id: Int64[np.ndarray, "R"]
    subsequence_id: Int64[np.ndarray, "R"]
    item_position: Int64[np.ndarray, "R"]
    vectors: Float32[np.ndarray, "R D"]
    spread: Float32[np.ndarray, "R D"] | None = None
    """Of passes with dropout: the standard deviation of each component."""


def forecast(
    engine: Engine,
    windows: Windows,
    read: Reader,
    *,
    batch_size: int,
    extra_steps: int = 0,
    samples: int | None = None,
    cache: GenerationCache = "exact",
    latest: bool = False,
    bar: Advance | None = None,
) -> Forecast:
    """Predicts the next item of every window's last P positions.

    Args:
      engine: A generative model.
      windows: At least one window; their `seq_length` is the model's.
      read: What to keep of a batch of outputs.
      batch_size: Windows a batch.
      extra_steps: How far to continue each sequence's last window; needs P = 1 and predicted inputs.
      samples: How many times to continue it, from its own prediction on; None keeps that prediction and
        continues it once.
      cache: See `generate`.
      latest: Whether each window's newest item is shown to the model, which then predicts beyond the data,
        rather than predicted.
      bar: Advances by the windows that are done.
    """
    readout = predict(engine, windows, read, batch_size=batch_size, latest=latest, bar=bar)
    count = engine.card.model_spec.prediction_length
    positions = positions_predicted(windows, np.arange(len(windows)), count, latest=latest)
    predicted = readout.map(_by_row)
    if not extra_steps and samples is None:
        return _forecast(np.repeat(windows.sequence_id(), count), positions.reshape(-1), predicted)
    last = last_windows(windows)
    rows = last if samples is None else np.repeat(last, samples)
    steps = extra_steps + (samples is not None)
    further = generate(
        engine,
        window_feed(windows, rows, engine.card.column_schema, latest=latest),
        {name: values[last, 0] for name, values in readout.values.items()} if samples is None else None,
        read,
        steps=steps,
        batch_size=batch_size,
        cache=cache,
    )
    further_positions = positions[rows] + np.arange(extra_steps + 1 - steps, extra_steps + 1)
    owners = np.concatenate([np.arange(len(windows)), np.repeat(rows, steps)])
    order = np.argsort(owners, kind="stable")
    sample = None
    if samples is not None:
        order = order[~np.isin(order, last)]
        number = np.repeat(np.tile(np.arange(samples), len(last)), steps)
        sample = np.concatenate([np.full(len(windows), -1), number])[order]
    item_position = np.concatenate([positions.reshape(-1), further_positions.reshape(-1)])[order]
    both = joined([predicted, further.map(_by_row)]).map(lambda values: values[order])
    return _forecast(windows.sequence_id(owners[order]), item_position, both, sample)


def embed(
    engine: Engine, windows: Windows, *, batch_size: int, latest: bool = False, bar: Advance | None = None
) -> Embeddings:
    """The hidden states at every window's last P positions.

    Args:
      engine: An embedding model.
      windows: At least one window; their `seq_length` is the model's.
      batch_size: Windows a batch.
      latest: Whether each window's newest item is shown to the model too.
      bar: Advances by the windows that are done.
    """
    readout = predict(
        engine, windows, lambda outputs: Readout(outputs, {}), batch_size=batch_size, latest=latest, bar=bar
    )
    vectors, spread = readout.values["embedding"], readout.values.get(SPREAD + "embedding")
    count = vectors.shape[1]
    positions = positions_seen(windows, np.arange(len(windows)), count, latest=latest)
    return Embeddings(
        np.repeat(windows.sequence_id(), count),
        np.repeat(windows.subsequence_id(), count),
        positions.reshape(-1),
        vectors.reshape(-1, vectors.shape[-1]),
        None if spread is None else spread.reshape(-1, vectors.shape[-1]),
    )


def _by_row(values: Shaped[np.ndarray, "N P ..."]) -> Shaped[np.ndarray, "R ..."]:
    """One row for each of the P positions of each window."""
    return values.reshape(-1, *values.shape[2:])


def _forecast(
    sequence_id: Int64[np.ndarray, "R"],
    item_position: Int64[np.ndarray, "R"],
    rows: Readout,
    sample: Int64[np.ndarray, "R"] | None = None,
) -> Forecast:
    return Forecast(sequence_id, item_position, rows.values, rows.log_probs, sample, rows.spread)


def predict(
    engine: Engine,
    windows: Windows,
    read: Callable[[Outputs], Readout],
    *,
    batch_size: int,
    latest: bool = False,
    bar: Advance | None = None,
) -> Readout:
    """The results of `read` for the model's outputs for every window, in order.

    Args:
      engine: The model.
      windows: At least one window; their `seq_length` is the model's.
      read: What to keep of a batch of outputs.
      batch_size: Windows a batch.
      latest: Whether the model is shown each window's newest item, rather than asked for it.
      bar: Advances by the windows that are done.
    """
    parts = []
    for chunk in chunks(len(windows), batch_size):
        inputs, valid_mask = window_feed(windows, chunk, engine.card.column_schema, latest=latest)
        parts.append(read(engine.predict(inputs, valid_mask)))
        if bar is not None:
            bar.advance(len(chunk))
    return joined(parts)


def window_feed(
    windows: Windows, indices: Int64[np.ndarray, "B"], schema: Schema, *, latest: bool = False
) -> Feed:
    """The inputs of some windows, and which positions hold a real item.

    Args:
      windows: The windows, of L + 1 slots.
      indices: Which of them.
      schema: The model's columns.
      latest: Whether to show the newest L slots, rather than all but the newest one.
    """
    batch = windows.gather(indices, schema.inputs)
    shown = moved_on(batch) if latest else batch
    return inputs_of(shown, schema.inputs, schema.masked_inputs), valid_mask(shown)


def positions_seen(
    windows: Windows, indices: Int64[np.ndarray, "B"], count: int, *, latest: bool = False
) -> Int64[np.ndarray, "B P"]:
    """The positions of the last `count` items that the model is shown; see `window_feed`."""
    end = windows.seq_length + latest
    return windows.positions(indices, np.arange(end - count, end))


def positions_predicted(
    windows: Windows, indices: Int64[np.ndarray, "B"], count: int, *, latest: bool = False
) -> Int64[np.ndarray, "B P"]:
    """The positions of the items that the last `count` outputs predict; see `window_feed`.

    An item beyond the data has the position of the newest one, plus 1.
    """
    if not latest:
        return windows.positions(indices, np.arange(windows.seq_length + 1)[-count:])
    seen = positions_seen(windows, indices, count, latest=True)
    return np.concatenate([seen[:, 1:], seen[:, -1:] + 1], axis=1)


def chunks(count: int, size: int) -> Iterator[Int64[np.ndarray, "B"]]:
    """The numbers from 0 below `count`, `size` at a time."""
    for first in range(0, count, size):
        yield np.arange(first, min(first + size, count))
