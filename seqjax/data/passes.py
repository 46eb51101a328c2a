"""The two passes over a table: one to learn from it, one to encode it and cut it into windows.

Both take rows in order, some at a time. What is done with these depends on no others, so they are worked on
by several threads (numpy, polars and pyarrow leave Python's lock) and their results are taken in order: the
number of threads changes nothing but time.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import TypeVar

import numpy as np

from seqjax.config.base import ConfigModel
from seqjax.config.preprocess import PreprocessConfig
from seqjax.data.columns import OTHER, Encoding, encode
from seqjax.data.fitting import ChunkSummary, Learner
from seqjax.data.sorting import OrderedRows
from seqjax.data.splits import Pieces, Splitting
from seqjax.data.tables import Table
from seqjax.windows.index import Slices, check_exact, n_windows
from seqjax.windows.windows import Windows, cut

Item = TypeVar("Item")
Result = TypeVar("Result")


class SplitSize(ConfigModel):
    """The size of a split."""

    rows: int = 0
    sequences: int = 0
    windows: int = 0
    positions: int = 0
    """Rows of sequences whose positions are not consecutive."""


class Survey(ConfigModel):
    """The result of the first pass."""

    rows: int
    sequences: int
    splits: list[SplitSize]
    column_types: dict[str, str]
    """Type of each column as the metadata JSON says it, in the order of the columns."""
    encoding: Encoding


@dataclass(frozen=True)
class Encoded:
    """Some rows, encoded and cut."""

    rows: int
    windows: list[Windows | None]
    """Of each split that has some of the rows; the first and the last run may have others elsewhere."""
    unseen: dict[str, int]
    """Rows of each categorical column whose value has no id."""


class _Split:
    """The size of a split, from its slices as they come; the last one may go on."""

    def __init__(self, config: PreprocessConfig, number: int) -> None:
        self._config = config
        self._number = number
        self._counts: Counter[str] = Counter()
        self._open = Slices(*(np.zeros(0, np.int64) for _ in range(3)))

    def add(self, part: Slices) -> None:
        """Adds the slices of some rows."""
        if not len(part):
            return
        positions = int(part.length[part.scattered].sum())
        self._counts.update(rows=int(part.length.sum()), positions=positions)
        length = part.length.copy()
        if len(self._open) and self._open.sequence_id[0] == part.sequence_id[0]:
            length[0] += self._open.length[0]
        else:
            self._close(self._open)
        self._close(Slices(part.sequence_id[:-1], part.start[:-1], length[:-1]))
        self._open = Slices(part.sequence_id[-1:], part.start[-1:], length[-1:])

    def size(self) -> SplitSize:
        """The size of the whole split, after the last slice."""
        self._close(self._open)
        return SplitSize(**self._counts)

    def _close(self, slices: Slices) -> None:
        """Counts slices that are complete."""
        seq_length, stride = self._config.seq_length, self._config.strides[self._number]
        if self._config.subsequence_start_mode == "exact":
            check_exact(slices, seq_length=seq_length, stride=stride, split=self._number)
        windows = int(n_windows(slices.length, seq_length=seq_length, stride=stride).sum())
        self._counts.update(sequences=len(slices), windows=windows)


def survey(
    rows: OrderedRows,
    config: PreprocessConfig,
    splitting: Splitting,
    learner: Callable[[Table], Learner],
    advance: Callable[[int], None],
    *,
    threads: int,
) -> Survey:
    """The first pass: counts rows and windows, and learns id maps and statistics.

    Args:
      rows: The table.
      config: The lengths of windows and strides, and the rows to learn from.
      splitting: The division of sequences into splits.
      learner: Makes the learner when the first rows show what the columns are.
      advance: Called with the number of rows of each chunk that is done.
      threads: Number of threads that look at chunks.

    Raises:
      DataError: The config does not suit the table.
    """
    pieces_and_tables = rows.pieces()
    first = next(pieces_and_tables)
    learning, types = learner(first[1]), first[1].features.schema
    splits = [_Split(config, number) for number in range(config.n_splits)]
    n_rows = 0

    def look(item: tuple[Pieces, Table]) -> tuple[int, list[Slices], ChunkSummary]:
        pieces, table = item
        parts = splitting.parts(pieces)
        chosen = table.features[parts[0].rows()] if config.fit_on == "train" else table.features
        return len(table), parts, learning.look(chosen)

    for count, parts, summary in in_threads(look, chain([first], pieces_and_tables), threads):
        learning.add(summary)
        for split, part in zip(splits, parts, strict=True):
            split.add(part)
        n_rows += count
        advance(count)
    return Survey(
        rows=n_rows,
        sequences=rows.n_sequences,
        splits=[split.size() for split in splits],
        column_types={
            name: "Int64" if kind == "categorical" else str(types[name])
            for name, kind in first[1].kinds.items()
        },
        encoding=learning.encoding(),
    )


def encoded(
    rows: OrderedRows,
    config: PreprocessConfig,
    splitting: Splitting,
    encoding: Encoding,
    *,
    skip: int,
    threads: int,
) -> Iterator[Encoded]:
    """The second pass: encodes rows, some at a time, and cuts them into runs.

    Args:
      rows: The table.
      config: The lengths of windows and strides.
      splitting: The division of sequences into splits.
      encoding: The id maps and statistics.
      skip: Number of chunks to leave out, the first ones.
      threads: Number of threads that encode.
    """

    def work(item: tuple[Pieces, Table]) -> Encoded:
        pieces, table = item
        columns = encode(table.features, encoding)
        windows = [
            cut(part, columns, table.item_position, seq_length=config.seq_length, stride=stride)
            if len(part)
            else None
            for part, stride in zip(splitting.parts(pieces), config.strides, strict=True)
        ]
        unseen = {name: int(np.count_nonzero(columns[name] == OTHER)) for name in encoding.id_maps}
        return Encoded(len(table), windows, unseen)

    yield from in_threads(work, islice(rows.pieces(), skip, None), threads)


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """The results of `function`, in the order of the items; at most `threads` + 1 items are in work."""
    if threads <= 1:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
