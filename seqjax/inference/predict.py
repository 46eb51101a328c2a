"""A model over all windows of a data set, batch by batch."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int64

from seqjax.data.dataset import Windows
from seqjax.inference.engine import Columns, Engine, Outputs
from seqjax.inference.sample import Readout, joined
from seqjax.progress import progress

Feed = tuple[Columns, Bool[np.ndarray, "B L"]]
Read = Callable[[Outputs], Readout]


def predict(engine: Engine, windows: Windows, read: Read, *, batch_size: int) -> Readout:
    """What `read` makes of the model's outputs for every window, in order.

    Args:
      engine: The model.
      windows: At least one window; their `seq_length` is the model's. The item to predict is not shown to it.
      read: What to keep of a batch of outputs.
      batch_size: Windows a batch.
    """
    names = engine.card.column_schema.inputs
    feeds = (window_feed(windows, chunk, names) for chunk in chunks(len(windows), batch_size))
    return run(engine, feeds, read, total=len(windows))


def run(engine: Engine, feeds: Iterable[Feed], read: Read, *, total: int) -> Readout:
    """Runs the model on consecutive batches of inputs.

    Args:
      engine: The model.
      feeds: The inputs, and which of their positions hold a real item, of each batch.
      read: What to keep of a batch of outputs.
      total: Windows in all batches together.
    """
    parts = []
    with progress("Inference", total, "windows") as bar:
        for inputs, valid_mask in feeds:
            parts.append(read(engine.predict(inputs, valid_mask)))
            bar.advance(len(valid_mask))
    return joined(parts)


def window_feed(windows: Windows, indices: Int64[np.ndarray, "B"], names: Sequence[str]) -> Feed:
    """The inputs of some windows, without the item to predict, and which positions hold a real item."""
    batch = windows.gather(indices, names)
    slots = np.arange(windows.seq_length)
    return {name: batch.columns[name][:, :-1] for name in names}, slots >= batch.padding[:, None]


def chunks(count: int, size: int) -> Iterator[Int64[np.ndarray, "B"]]:
    """The numbers from 0 below `count`, `size` at a time."""
    for first in range(0, count, size):
        yield np.arange(first, min(first + size, count))
