"""Rows of predictions: which sequence, which position, which value; continued by autoregression where asked.

A window gives one row for each of its last P positions, oldest first. The rows of a continued sequence follow
those of its last window, or stand in their place, sample after sample, where it is continued several times.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float, Float32, Int64, Shaped

from seqjax.console import Advance
from seqjax.inference.engine import Engine
from seqjax.inference.generate import GenerationCache, generate, last_windows
from seqjax.inference.predict import positions_predicted, positions_seen, predict, window_feed
from seqjax.inference.sample import SPREAD, Reader, Readout
from seqjax.windows.windows import Windows


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
      bar: Told of windows that are done.
    """
    readout = predict(engine, windows, read, batch_size=batch_size, latest=latest, bar=bar)
    count = engine.card.model_spec.prediction_length
    positions = positions_predicted(windows, np.arange(len(windows)), count, latest=latest)
    result = _flat(np.repeat(windows.sequence_id(), count), positions, readout)
    if not extra_steps and samples is None:
        return result
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
    continued = _flat(np.repeat(windows.sequence_id(rows), steps), further_positions, further)
    owners = np.concatenate([np.arange(len(windows)), np.repeat(rows, steps)])
    if samples is None:
        return _joined(result, continued, np.argsort(owners, kind="stable"))
    number = np.repeat(np.tile(np.arange(samples), len(last)), steps)
    result = replace(result, sample=np.full(len(windows), -1))
    order = np.argsort(owners, kind="stable")
    replaced = np.isin(order, last)
    return _joined(result, replace(continued, sample=number), order[~replaced])


def embed(
    engine: Engine, windows: Windows, *, batch_size: int, latest: bool = False, bar: Advance | None = None
) -> Embeddings:
    """The hidden states at every window's last P positions.

    Args:
      engine: An embedding model.
      windows: At least one window; their `seq_length` is the model's.
      batch_size: Windows a batch.
      latest: Whether each window's newest item is shown to the model too.
      bar: Told of windows that are done.
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


def _flat(
    sequence_id: Int64[np.ndarray, "R"], positions: Int64[np.ndarray, "N P"], readout: Readout
) -> Forecast:
    return Forecast(
        sequence_id,
        positions.reshape(-1),
        {name: values.reshape(-1) for name, values in readout.values.items()},
        {name: values.reshape(-1, values.shape[-1]) for name, values in readout.log_probs.items()},
        spread={name: values.reshape(-1, 2) for name, values in readout.spread.items()},
    )


def _joined(first: Forecast, second: Forecast, order: Int64[np.ndarray, "R"]) -> Forecast:
    """Some rows of both: the numbers of `order` count those of `second` behind those of `first`."""

    def both(one: Shaped[np.ndarray, "..."], other: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
        return np.concatenate([one, other])[order]

    return Forecast(
        both(first.sequence_id, second.sequence_id),
        both(first.item_position, second.item_position),
        {name: both(values, second.values[name]) for name, values in first.values.items()},
        {name: both(values, second.log_probs[name]) for name, values in first.log_probs.items()},
        None if first.sample is None or second.sample is None else both(first.sample, second.sample),
        {name: both(values, second.spread[name]) for name, values in first.spread.items()},
    )
