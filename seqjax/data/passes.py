"""The two passes over a table: one to learn from it, one to encode it and cut it into windows.

Both take rows in order, some at a time. What is done with these depends on no others, so they are worked on
by several threads (numpy, polars and pyarrow leave Python's lock) and their results are taken in order: the
number of threads changes nothing but time.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeVar

import numpy as np
import polars as pl

from seqjax.config.base import ConfigModel
from seqjax.config.metadata import Statistics
from seqjax.data.columns import OTHER, Encoding, encode
from seqjax.data.fitting import Findings, Learner
from seqjax.data.sorting import OrderedRows
from seqjax.data.splits import Pieces, Splitting
from seqjax.data.tables import Table
from seqjax.windows.index import Slices, check_exact, n_windows
from seqjax.windows.windows import Windows, cut

StartMode = Literal["distribute", "exact"]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Plan:
    """How sequences are divided and cut."""

    splitting: Splitting
    seq_length: int
    strides: list[int]
    start_mode: StartMode
    fit_on: Literal["train", "all"]
    threads: int


class SplitSize(ConfigModel):
    """How much there is in a split."""

    rows: int = 0
    sequences: int = 0
    windows: int = 0
    positions: int = 0
    """Rows of sequences whose positions are not consecutive."""

    def __add__(self, other: "SplitSize") -> "SplitSize":
        return SplitSize(
            rows=self.rows + other.rows,
            sequences=self.sequences + other.sequences,
            windows=self.windows + other.windows,
            positions=self.positions + other.positions,
        )


class Survey(ConfigModel):
    """All that the first pass finds."""

    rows: int
    sequences: int
    splits: list[SplitSize]
    column_types: dict[str, str]
    """Type of each column as the metadata JSON says it, in the order of the columns."""
    id_maps: dict[str, dict[str, int]]
    statistics: dict[str, Statistics]

    @property
    def encoding(self) -> Encoding:
        """How to encode the table."""
        return Encoding(self.id_maps, self.statistics)


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

    def __init__(self, plan: Plan, number: int) -> None:
        self._plan = plan
        self._number = number
        self._size = SplitSize()
        self._open = Slices(*(np.zeros(0, np.int64) for _ in range(3)))

    def add(self, part: Slices) -> None:
        """Adds the slices of some rows."""
        if not len(part):
            return
        positions = int(part.length[part.scattered].sum())
        self._size += SplitSize(rows=int(part.length.sum()), positions=positions)
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
        return self._size

    def _close(self, slices: Slices) -> None:
        """Counts slices that are complete."""
        plan, stride = self._plan, self._plan.strides[self._number]
        if plan.start_mode == "exact":
            check_exact(slices, seq_length=plan.seq_length, stride=stride, split=self._number)
        count = int(n_windows(slices.length, seq_length=plan.seq_length, stride=stride).sum())
        self._size += SplitSize(sequences=len(slices), windows=count)


def survey(
    rows: OrderedRows,
    plan: Plan,
    learner: Callable[[Table], Learner],
    advance: Callable[[int], None],
) -> Survey:
    """The first pass: counts rows and windows, and learns id maps and statistics.

    Args:
      rows: The table.
      plan: How it will be divided and cut.
      learner: Makes the learner when the first rows show what the columns are.
      advance: Told of rows that are done.

    Raises:
      DataError: The plan does not suit the table.
    """
    learning: Learner | None = None
    types: dict[str, str] = {}
    splits = [_Split(plan, number) for number in range(len(plan.strides))]
    n_rows = 0

    def look(item: tuple[Pieces, Table]) -> tuple[int, list[Slices], Findings]:
        pieces, table = item
        assert learning is not None, "made before the first rows are looked at"
        parts = plan.splitting.parts(pieces)
        chosen = table.features[parts[0].rows()] if plan.fit_on == "train" else table.features
        return len(table), parts, learning.look(chosen)

    def prepared() -> Iterator[tuple[Pieces, Table]]:
        nonlocal learning
        for item in rows.pieces():
            if learning is None:
                learning = learner(item[1])
                types.update(_column_types(item[1]))
            yield item

    for count, parts, findings in in_threads(look, prepared(), plan.threads):
        assert learning is not None, "made with the first rows"
        learning.add(findings)
        for split, part in zip(splits, parts, strict=True):
            split.add(part)
        n_rows += count
        advance(count)
    assert learning is not None, "a table without rows is refused"
    encoding = learning.encoding()
    return Survey(
        rows=n_rows,
        sequences=rows.n_sequences,
        splits=[split.size() for split in splits],
        column_types=types,
        id_maps=encoding.id_maps,
        statistics=encoding.statistics,
    )


def encoded(rows: OrderedRows, plan: Plan, encoding: Encoding, skip: int = 0) -> Iterator[Encoded]:
    """The second pass: encodes rows, some at a time, and cuts them into runs.

    Args:
      rows: The table.
      plan: How to divide and cut it.
      encoding: How to encode it.
      skip: How often to leave some out.
    """

    def work(item: tuple[Pieces, Table]) -> Encoded:
        pieces, table = item
        columns = encode(table.features, encoding)
        windows = [
            cut(part, columns, table.item_position, seq_length=plan.seq_length, stride=stride)
            if len(part)
            else None
            for part, stride in zip(plan.splitting.parts(pieces), plan.strides, strict=True)
        ]
        unseen = {name: int(np.count_nonzero(columns[name] == OTHER)) for name in encoding.id_maps}
        return Encoded(len(table), windows, unseen)

    yield from in_threads(work, islice(rows.pieces(), skip, None), plan.threads)


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


def _column_types(table: Table) -> Mapping[str, str]:
    kinds = table.kinds
    return {
        column.name: "Int64"
        if kinds[column.name] == "categorical"
        else "Float32"
        if isinstance(column.dtype, pl.Float32)
        else "Float64"
        for column in table.features
    }
