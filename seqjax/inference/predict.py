"""A model over all windows of a data set, batch by batch."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Bool, Int64

from seqjax.config.schema import Schema
from seqjax.console import Advance
from seqjax.inference.engine import Columns, Engine, Outputs
from seqjax.inference.sample import Readout, joined
from seqjax.windows.windows import Windows, filled

Feed = tuple[Columns, Bool[np.ndarray, "B L"]]


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
      bar: Told of windows that are done.
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
    shown = slice(1, None) if latest else slice(0, -1)
    slots = np.arange(windows.seq_length + 1)[shown]
    inputs = {name: values[:, shown] for name, values in batch.columns.items()}
    inputs |= {name: filled(inputs[name]) for name in schema.real_inputs if name not in schema.masked_inputs}
    return inputs, slots >= batch.padding[:, None]


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
