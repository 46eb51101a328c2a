"""The two passes over a table: one to learn from it, one to encode it and cut it into windows.

Both take chunks of whole sequences in order. What is done with a chunk depends on no other chunk, so chunks
are worked on by several threads (numpy, polars and pyarrow leave Python's lock) and their results are taken
in order: the number of threads changes nothing but time.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import polars as pl

from seqjax.config.base import ConfigModel
from seqjax.config.metadata import Statistics
from seqjax.data.columns import OTHER, Encoding, encode
from seqjax.data.fitting import Findings, Learner
from seqjax.data.splits import Splitting, sequences
from seqjax.data.tables import Table
from seqjax.windows.index import Slices, check_exact, kept_positions, n_windows
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
    """A chunk, encoded and cut."""

    rows: int
    windows: list[Windows | None]
    """Of each split that the chunk has rows of."""
    unseen: dict[str, int]
    """Rows of each categorical column whose value has no id."""


def survey(
    chunks: Iterable[Table],
    plan: Plan,
    learner: Callable[[Table], Learner],
    advance: Callable[[int], None],
) -> Survey:
    """The first pass: counts rows and windows, and learns id maps and statistics.

    Args:
      chunks: Whole sequences, in order; at least one.
      plan: How they will be divided and cut.
      learner: Makes the learner when the first chunk shows what the columns are.
      advance: Told of rows that are done.

    Raises:
      DataError: The plan does not suit the table.
    """
    learning: Learner | None = None
    types: dict[str, str] = {}
    splits = [SplitSize() for _ in plan.strides]
    n_rows = n_sequences = 0

    def look(item: tuple[int, Slices, Table]) -> tuple[int, int, list[SplitSize], Findings]:
        first, slices, table = item
        assert learning is not None, "made before the first chunk is looked at"
        parts = plan.splitting.parts(slices, first, table.part)
        rows = table.features[parts[0].rows()] if plan.fit_on == "train" else table.features
        return len(table), len(slices), _sizes(table, parts, plan), learning.look(rows)

    def prepared() -> Iterator[tuple[int, Slices, Table]]:
        nonlocal learning
        for item in _numbered(chunks):
            if learning is None:
                learning = learner(item[2])
                types.update(_column_types(item[2]))
            yield item

    for rows, count, sizes, findings in in_threads(look, prepared(), plan.threads):
        assert learning is not None, "made with the first chunk"
        learning.add(findings)
        splits = [one + other for one, other in zip(splits, sizes, strict=True)]
        n_rows, n_sequences = n_rows + rows, n_sequences + count
        advance(rows)
    assert learning is not None, "a table without rows is refused"
    encoding = learning.encoding()
    return Survey(
        rows=n_rows,
        sequences=n_sequences,
        splits=splits,
        column_types=types,
        id_maps=encoding.id_maps,
        statistics=encoding.statistics,
    )


def encoded(chunks: Iterable[Table], plan: Plan, encoding: Encoding, skip: int = 0) -> Iterator[Encoded]:
    """The second pass: encodes chunks and cuts them into windows.

    Args:
      chunks: Whole sequences, in order.
      plan: How to divide and cut them.
      encoding: How to encode them.
      skip: How many chunks to leave out.
    """

    def work(item: tuple[int, Slices, Table]) -> Encoded:
        first, slices, table = item
        columns = encode(table.features, encoding)
        parts = plan.splitting.parts(slices, first, table.part)
        windows = [
            cut(part, columns, table.item_position, seq_length=plan.seq_length, stride=stride)
            if len(part)
            else None
            for part, stride in zip(parts, plan.strides, strict=True)
        ]
        unseen = {name: int(np.count_nonzero(columns[name] == OTHER)) for name in encoding.id_maps}
        return Encoded(len(table), windows, unseen)

    rest = (item for number, item in enumerate(_numbered(chunks)) if number >= skip)
    yield from in_threads(work, rest, plan.threads)


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


def _numbered(chunks: Iterable[Table]) -> Iterator[tuple[int, Slices, Table]]:
    """Each chunk with its sequences and how many sequences come before it."""
    first = 0
    for table in chunks:
        slices = sequences(table.sequence_id)
        yield first, slices, table
        first += len(slices)


def _sizes(table: Table, parts: list[Slices], plan: Plan) -> list[SplitSize]:
    sizes = []
    for number, (part, stride) in enumerate(zip(parts, plan.strides, strict=True)):
        if plan.start_mode == "exact":
            check_exact(part, seq_length=plan.seq_length, stride=stride, split=number)
        count = int(n_windows(part.length, seq_length=plan.seq_length, stride=stride).sum())
        kept = kept_positions(part, table.item_position[part.rows()])
        sizes.append(
            SplitSize(
                rows=int(part.length.sum()), sequences=len(part), windows=count, positions=int(kept.sum())
            )
        )
    return sizes


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
