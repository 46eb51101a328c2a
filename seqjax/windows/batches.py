"""Batches in an order that can be taken up at any point, gathered ahead.

A batch is a pure function of its number: number -> numbers of windows -> arrays. So going on takes the number
alone. Grain runs over whole batches, since its cost is per element.

    loader = Loader(windows, num_workers=2, max_ram_gb=16)
    order = Order(len(windows), 128, seed=1010, epoch=1)
    for batch in loader.batches(order, begin=17):
        ...
"""

import logging
import mmap
from collections.abc import Callable, Generator
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from seqjax.windows.order import Order, Updates
from seqjax.windows.windows import Batch, Windows

logger = logging.getLogger(__name__)

BATCHES_AHEAD = 4
"""Most batches that a thread is ahead."""
BATCHES_PER_CHUNK = 64
"""Number of batches of an order that are computed at a time."""
BYTES_PER_VALUE = 4
"""Batches hold int32 and float32."""
_STATUS = Path("/proc/self/statm")


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
          columns: Which columns a batch holds; None gives all.
          in_ram: Whether to copy rows that are memory-mapped into memory when the first batch is asked for.
          num_workers: Threads that gather ahead; 0 gathers when a batch is asked for.
          max_ram_gb: Most memory for batches gathered ahead (at least one is), and for what is kept of mapped
            files meanwhile; None knows no limit.
        """
        self._windows = windows
        self._columns = columns
        self._in_ram = in_ram
        self._num_workers = num_workers
        self._max_ram_gb = max_ram_gb
        self._ahead: int | None = None

    def batches(
        self, order: Order | Updates, begin: int = 0, end: int | None = None
    ) -> Generator[Batch, None, None]:
        """Iterates over some batches of an order; closing the generator ends the threads.

        Args:
          order: The windows of each batch; -1 gives a row that is all padding.
          begin: Number of the first batch.
          end: Number after that of the last batch; None is all.
        """
        import grain  # Here alone: it takes a second, and data on a device does without.

        if self._in_ram:
            self._windows, self._in_ram = self._windows.in_ram(self._columns), False
        self._windows.expect(scattered=order.shuffle)
        end = len(order) if end is None else min(end, len(order))
        ahead = self._batches_ahead(order.batch_size)
        options = grain.ReadOptions(num_threads=min(self._num_workers, ahead), prefetch_buffer_size=ahead)
        batches = grain.MapDataset.range(begin, end).map(self._gatherer(order, end))
        yield from batches.to_iter_dataset(options)

    def _gatherer(self, order: Order | Updates, end: int) -> Callable[[int], Batch]:
        """Gathers batches by number, which are below `end`; gives back mapped files where memory is short."""
        windows, columns = self._windows, self._columns
        limit = None if self._max_ram_gb is None else self._max_ram_gb * 1e9 / 4
        before = mapped_memory()

        # Threads are some batches apart at most, so that two chunks of the order are in use at once.
        @lru_cache(maxsize=2)
        def indices(chunk: int) -> Int64[np.ndarray, "k B"]:
            return order.batches(chunk * BATCHES_PER_CHUNK, min((chunk + 1) * BATCHES_PER_CHUNK, end))

        def gathered(number: int) -> Batch:
            nonlocal before
            chunk, place = divmod(number, BATCHES_PER_CHUNK)
            batch = windows.gather(indices(chunk)[place], columns)
            if limit is not None and mapped_memory() - before > limit:
                windows.release()
                before = mapped_memory()
            return batch

        return gathered

    def _batches_ahead(self, batch_size: int) -> int:
        """The number of batches to gather ahead, which is logged once."""
        if self._num_workers == 0:
            return 0
        n_columns = len(self._windows.columns if self._columns is None else self._columns)
        size = batch_size * BYTES_PER_VALUE * (1 + n_columns * (self._windows.seq_length + 1))
        ahead = batches_ahead(size, self._num_workers, self._max_ram_gb)
        if ahead != self._ahead:
            self._ahead = ahead
            logger.info(
                "Reading ahead up to %d batches of %.2f MB with %d threads (max_ram_gb: %s).",
                ahead,
                size / 1e6,
                min(self._num_workers, ahead),
                self._max_ram_gb,
            )
        return ahead


def batches_ahead(batch_bytes: int, num_workers: int, max_ram_gb: float | None) -> int:
    """The number of batches to gather ahead: some a thread, as far as memory goes, and at least one."""
    most = BATCHES_AHEAD * num_workers
    return most if max_ram_gb is None else max(min(most, int(max_ram_gb * 1e9 / batch_bytes)), 1)


def mapped_memory() -> int:
    """Bytes of files that are mapped into this process and in memory; 0 where the system does not tell."""
    return int(_STATUS.read_bytes().split()[2]) * mmap.PAGESIZE if _STATUS.exists() else 0
