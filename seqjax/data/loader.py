"""Batches in a seeded order that can be left and taken up again at any point.

An order is a table: its line k holds the numbers of the windows of batch k. Everything is a pure function of
a batch's number: number -> line -> indices of windows -> arrays. So the whole state of an iterator is
{"next_index": number}. Grain runs over whole batches, since its cost is per element; where Grain is not
installed a plain iterator of the same behaviour serves.

    loader = Loader(windows, num_workers=2, max_ram_gb=16)
    order = epoch_order(len(windows), 128, seed=1010, epoch=1, shuffle=True)
    for batch in loader.batches(order, begin=17):
        ...
"""

import logging
import mmap
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from seqjax.data.dataset import Batch, Windows

logger = logging.getLogger(__name__)

BATCHES_AHEAD = 4
"""How many batches a thread is ahead at most."""
BYTES_PER_VALUE = 4
"""Batches hold int32 and float32."""
_STATUS = Path("/proc/self/statm")


@runtime_checkable
class BatchIterator(Protocol):
    """An iterator over batches whose position can be saved."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __next__(self) -> Batch: ...

    def get_state(self) -> dict[str, int]:
        """{"next_index": number of the next batch in the order}."""
        ...

    def set_state(self, state: dict[str, int]) -> None:
        """Goes on from a state that `get_state` gave, of this iterator or of another with the same order."""
        ...

    def close(self) -> None:
        """Ends the threads; nothing can be read afterwards."""
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


class Loader:
    """Gathers the batches of one data set."""

    def __init__(
        self,
        windows: Windows,
        columns: tuple[str, ...] | None = None,
        *,
        in_ram: bool = False,
        num_workers: int = 0,
        max_ram_gb: float | None = None,
    ) -> None:
        """Settles what to gather and how; nothing is read yet.

        Args:
          windows: The data, in RAM or memory-mapped.
          columns: Which columns a batch holds; null gives all.
          in_ram: Whether to copy rows that are memory-mapped into memory when the first batch is asked for.
          num_workers: Threads that gather ahead; 0 gathers when a batch is asked for.
          max_ram_gb: Most memory for batches gathered ahead (at least one is), and for what is kept of mapped
            files meanwhile; null knows no limit.
        """
        self._windows = windows
        self._columns = columns
        self._in_ram = in_ram
        self._num_workers = num_workers
        self._max_ram_gb = max_ram_gb
        self._ahead: int | None = None

    def batches(
        self, order: Int64[np.ndarray, "n_batches batch_size"], begin: int = 0, end: int | None = None
    ) -> BatchIterator:
        """Iterates over some batches of an order.

        Args:
          order: Indices of windows by batch; -1 gives a row that is all padding.
          begin: Number of the first batch.
          end: Number after that of the last batch; null is all.

        Returns:
          An iterator over `Batch`, whose state is the number of the next batch in `order`, whatever `begin`.
        """
        if self._in_ram:
            self._windows, self._in_ram = self._windows.in_ram(self._columns), False
        self._windows.expect(scattered=bool((np.diff(order[:1]) != 1).any()))
        limit = None if self._max_ram_gb is None else self._max_ram_gb * 1e9 / 4
        source = _Source(self._windows, order[:end], self._columns, limit)
        ahead = self._batches_ahead(order.shape[1])
        iterator = _iterator(source, min(self._num_workers, ahead), ahead)
        iterator.set_state({"next_index": begin})
        return iterator

    @property
    def _n_columns(self) -> int:
        return len(self._windows.columns if self._columns is None else self._columns)

    def _batches_ahead(self, batch_size: int) -> int:
        """How many batches are gathered ahead; said in the log once."""
        if self._num_workers == 0:
            return 0
        size = batch_size * BYTES_PER_VALUE * (1 + self._n_columns * (self._windows.seq_length + 1))
        ahead = batches_ahead(size, self._num_workers, self._max_ram_gb)
        if ahead != self._ahead:
            self._ahead = ahead
            logger.info(
                "Reading ahead up to %d batches of %.2f MB with %d threads (max_ram_gb: %s).",
                *(ahead, size / 1e6, min(self._num_workers, ahead), self._max_ram_gb),
            )
        return ahead


def batches_ahead(batch_bytes: int, num_workers: int, max_ram_gb: float | None) -> int:
    """How many batches to gather ahead: some a thread, as far as memory goes, and at least one."""
    most = BATCHES_AHEAD * num_workers
    return most if max_ram_gb is None else max(min(most, int(max_ram_gb * 1e9 / batch_bytes)), 1)


class _Source:
    """Batches by number.

    Args:
      windows: The data.
      order: Indices of windows by batch.
      columns: Which columns a batch holds; null gives all.
      limit: How many bytes of mapped files are kept before they are given back; null keeps all.
    """

    def __init__(
        self,
        windows: Windows,
        order: Int64[np.ndarray, "n_batches batch_size"],
        columns: tuple[str, ...] | None,
        limit: float | None,
    ) -> None:
        self._windows = windows
        self._order = order
        self._columns = columns
        self._limit = limit
        self._before = mapped_memory()

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, number: int) -> Batch:
        batch = self._windows.gather(self._order[number], self._columns)
        if self._limit is not None and mapped_memory() - self._before > self._limit:
            self._windows.release()
            self._before = mapped_memory()
        return batch


def mapped_memory() -> int:
    """Bytes of files that are mapped into this process and in memory; 0 where the system does not tell."""
    return int(_STATUS.read_bytes().split()[2]) * mmap.PAGESIZE if _STATUS.exists() else 0


def _iterator(source: _Source, threads: int, ahead: int) -> BatchIterator:
    try:
        import grain
    except ModuleNotFoundError:
        return PlainIterator(source.__getitem__, len(source), threads=threads, ahead=ahead)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    return iter(grain.MapDataset.range(len(source)).map(source.__getitem__).to_iter_dataset(options))


class PlainIterator:
    """Iterates over batches with nothing but the standard library; its state is the same as Grain's."""

    def __init__(self, gather: Callable[[int], Batch], end: int, *, threads: int, ahead: int) -> None:
        """Begins with batch 0.

        Args:
          gather: Gives a batch by its number.
          end: Number after that of the last batch.
          threads: Threads that gather; 0 gathers when a batch is asked for.
          ahead: How many batches are gathered ahead.
        """
        self._gather = gather
        self._end = end
        self._ahead = ahead
        self._pool = ThreadPoolExecutor(threads, "batches") if threads else None
        self._waiting: deque[Future[Batch]] = deque()
        self._next = 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._next >= self._end:
            raise StopIteration
        batch = self._gather(self._next) if self._pool is None else self._from(self._pool)
        self._next += 1
        return batch

    def _from(self, pool: ThreadPoolExecutor) -> Batch:
        for number in range(self._next + len(self._waiting), min(self._next + self._ahead, self._end)):
            self._waiting.append(pool.submit(self._gather, number))
        return self._waiting.popleft().result()

    def get_state(self) -> dict[str, int]:
        """{"next_index": number of the next batch}."""
        return {"next_index": self._next}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes on from a state that `get_state` gave."""
        if not 0 <= state["next_index"] <= self._end:
            raise IndexError(f"There is no batch {state['next_index']} of {self._end}.")
        self._next = state["next_index"]
        self._drop()

    def close(self) -> None:
        """Ends the threads; nothing can be read afterwards."""
        self._drop()
        self._end = 0
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    def _drop(self) -> None:
        for future in self._waiting:
            future.cancel()
        self._waiting.clear()
