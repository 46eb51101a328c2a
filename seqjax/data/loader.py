"""Batches in a seeded order that can be left and taken up again at any point.

Everything is a pure function of a batch's number: number -> (epoch, place) -> indices of windows -> arrays.
So the whole state of an iterator is {"next_index": number}. Grain runs over whole batches, since its cost is
per element; where Grain is not installed a plain iterator with the same state serves.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from seqjax.data.dataset import Batch, Windows


@runtime_checkable
class BatchIterator(Protocol):
    """An iterator over batches whose position can be saved."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __next__(self) -> Batch: ...

    def get_state(self) -> dict[str, int]:
        """{"next_index": number of the next batch, counted from the first epoch}."""
        ...

    def set_state(self, state: dict[str, int]) -> None:
        """Goes on from a state that `get_state` gave."""
        ...


def epoch_order(
    n: int, batch_size: int, *, seed: int, epoch: int, shuffle: bool
) -> Int64[np.ndarray, "n_batches batch_size"]:
    """Which windows make up which batch of an epoch; every window is in exactly one.

    Args:
      n: Number of windows.
      batch_size: Windows a batch.
      seed: Seed of the order.
      epoch: Number of the epoch; each has its own order.
      shuffle: Whether to shuffle; otherwise windows come in their own order.

    Returns:
      Indices of windows; -1 fills up the last batch.
    """
    n_batches = -(-n // batch_size)
    order = np.full(n_batches * batch_size, -1, np.int64)
    order[:n] = np.random.default_rng((seed, epoch)).permutation(n) if shuffle else np.arange(n)
    return order.reshape(n_batches, batch_size)


@dataclass(frozen=True)
class BatchSource:
    """All batches of all epochs, by number."""

    windows: Windows
    batch_size: int
    seed: int
    shuffle: bool
    epochs: int
    columns: tuple[str, ...] | None = None

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches an epoch, the partial last one counted."""
        return -(-len(self.windows) // self.batch_size)

    def __len__(self) -> int:
        return self.batches_per_epoch * self.epochs

    def __getitem__(self, number: int) -> Batch:
        epoch, place = divmod(int(number), self.batches_per_epoch)
        order = _cached_order(
            len(self.windows), self.batch_size, seed=self.seed, epoch=epoch, shuffle=self.shuffle
        )
        return self.windows.gather(order[place], self.columns)


def batches(
    windows: Windows,
    *,
    batch_size: int,
    seed: int,
    shuffle: bool = True,
    epochs: int = 1,
    columns: Sequence[str] | None = None,
    num_workers: int = 0,
) -> BatchIterator:
    """Iterates over batches of `windows`.

    Args:
      windows: The data.
      batch_size: Windows a batch; the last batch of an epoch is filled up with rows that are all padding.
      seed: Seed of the order.
      shuffle: Whether each epoch has its own random order.
      epochs: Number of epochs.
      columns: Which columns; null gives all.
      num_workers: Threads that gather ahead (needs Grain); 0 gathers when asked.
    """
    source = BatchSource(
        windows, batch_size, seed, shuffle, epochs, tuple(columns) if columns is not None else None
    )
    try:
        import grain
    except ModuleNotFoundError:
        return PlainIterator(source)
    options = grain.ReadOptions(num_threads=num_workers, prefetch_buffer_size=4 * num_workers)
    dataset = grain.MapDataset.range(len(source)).map(source.__getitem__)
    return iter(dataset.to_iter_dataset(options))


class PlainIterator:
    """Iterates over a `BatchSource` with nothing but numpy; its state is the same as Grain's."""

    def __init__(self, source: BatchSource) -> None:
        self._source = source
        self._next = 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._next >= len(self._source):
            raise StopIteration
        batch = self._source[self._next]
        self._next += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """{"next_index": number of the next batch}."""
        return {"next_index": self._next}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes on from a state that `get_state` gave."""
        self._next = state["next_index"]


@lru_cache(maxsize=4)
def _cached_order(
    n: int, batch_size: int, *, seed: int, epoch: int, shuffle: bool
) -> Int64[np.ndarray, "n_batches batch_size"]:
    return epoch_order(n, batch_size, seed=seed, epoch=epoch, shuffle=shuffle)
