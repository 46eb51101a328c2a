"""The two passes over a table: one to learn from it, one to encode it and cut it into windows.

Both take rows in order, some at a time. What is done with these depends on no others, so they are worked on
by several threads (numpy, polars and pyarrow leave Python's lock) and their results are taken in order: the
number of threads changes nothing but time.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import TypeAlias, TypeVar

import numpy as np
from jaxtyping import Int64

from seqjax.config.base import ConfigModel
from seqjax.config.preprocess import PreprocessConfig
from seqjax.data.columns import OTHER, Encoding, encode
from seqjax.data.fitting import ChunkSummary, Learner
from seqjax.data.sorting import OrderedRows
from seqjax.data.splits import ByValue, History, Pieces, Splitting, parts
from seqjax.data.tables import Table
from seqjax.windows.index import Slices, check_exact, n_windows
from seqjax.windows.windows import Windows, cut

_Nulls: TypeAlias = dict[str, int]  # Rows without a value, by column.
_Looked: TypeAlias = tuple[Pieces, Int64[np.ndarray, "S borders"], ChunkSummary, _Nulls]
Item = TypeVar("Item")
Result = TypeVar("Result")


class SplitSize(ConfigModel):
    """The size of a split."""

    rows: int = 0
    """Rows of its own."""
    context: int = 0
    """Rows before these that are shown as well."""
    sequences: int = 0
    windows: int = 0
    positions: int = 0
    """Rows of either kind of sequences whose positions are not consecutive."""


class Survey(ConfigModel):
    """The result of the first pass."""

    rows: int
    sequences: int
    splits: list[SplitSize]
    column_types: dict[str, str]
    """Type of each column as the metadata JSON says it, in the order of the columns."""
    value_types: dict[str, str]
    """Type of each categorical column in the table."""
    encoding: Encoding
    missing: dict[str, int]
    """Number of rows without a value, of each column that has any."""


@dataclass(frozen=True)
class Encoded:
    """Some rows, encoded and cut."""

    rows: int
    windows: list[Windows | None]
    """Of each split that has some of the rows; the first and the last run may have others elsewhere."""
    unseen: dict[str, int]
    """Rows of each categorical column whose value has no id."""


class _Sizes:
    """The sizes of splits, from their sequences as they come; the last one may go on."""

    def __init__(self, config: PreprocessConfig, name: Callable[[int], str]) -> None:
        self._config = config
        self._name = name
        self._history = history_of(config)
        self._counts = [Counter[str]() for _ in range(config.n_splits)]
        self._open: tuple[Slices, Int64[np.ndarray, "1 splits"]] | None = None

    def add(self, pieces: Pieces, own: Int64[np.ndarray, "S splits"]) -> Int64[np.ndarray, "C splits"]:
        """Adds some rows, of which the sequences have so many in each split.

        Returns:
          The same of the sequences that are now complete.
        """
        slices = pieces.slices
        before = [] if self._open is None else [self._open[1]]
        if pieces.before:
            own[:1] += before.pop()
        elif self._open is not None:
            self._close(*self._open)
        self._close(slices[:-1], own[:-1])
        self._open = slices[-1:], own[-1:]
        return np.concatenate([*before, own[:-1]])

    def finish(self) -> tuple[list[SplitSize], Int64[np.ndarray, "C splits"]]:
        """The sizes of whole splits, after the last row, and the rows of the last sequence in each."""
        assert self._open is not None
        self._close(*self._open)
        return [SplitSize(**counts) for counts in self._counts], self._open[1]

    def _close(self, slices: Slices, own: Int64[np.ndarray, "S splits"]) -> None:
        """Counts sequences that are complete."""
        assert slices.scattered is not None
        shape = {"seq_length": self._config.seq_length}
        for split, (rows, earlier) in enumerate(zip(own.T, (np.cumsum(own, axis=1) - own).T, strict=True)):
            shape["stride"] = self._config.strides[split]
            some = rows > 0
            context = np.zeros_like(rows)
            if self._history is not None:
                context = np.where(some, self._history.rows(rows, earlier, split), 0)
            length = rows + context
            if self._config.subsequence_start_mode == "exact":
                check_exact(
                    Slices(slices.sequence_id[some], earlier[some], length[some]),
                    split=split,
                    name=self._name,
                    **shape,
                )
            self._counts[split].update(
                rows=int(rows.sum()),
                context=int(context.sum()),
                sequences=int(some.sum()),
                windows=int(n_windows(length[some], **shape).sum()),
                positions=int(length[slices.scattered].sum()),
            )


def survey(
    rows: OrderedRows,
    config: PreprocessConfig,
    splitting: Splitting,
    learner: Callable[[Table], Learner],
    advance: Callable[[int], None],
    *,
    threads: int,
) -> tuple[Survey, Int64[np.ndarray, "S borders"] | None]:
    """The first pass: counts rows and windows, and learns id maps and statistics.

    Args:
      rows: The table.
      config: The lengths of windows and strides, and the rows to learn from.
      splitting: The division of sequences into splits.
      learner: Makes the learner when the first rows show what the columns are.
      advance: Called with the number of rows of each chunk that is done.
      threads: Number of threads that look at chunks.

    Returns:
      What it finds, and the borders at which each sequence is cut where a column decides them.

    Raises:
      DataError: The config does not suit the table.
    """
    pieces_and_tables = rows.pieces()
    first = next(pieces_and_tables)
    learning, n_rows, own = learner(first[1]), 0, []
    sizes = _Sizes(config, rows.keys.name)
    missing: Counter[str] = Counter()

    look = partial(_look, config=config, splitting=splitting, learning=learning)
    for pieces, cuts, chunk, nulls in in_threads(look, chain([first], pieces_and_tables), threads):
        learning.add(chunk)
        missing.update(nulls)
        complete = sizes.add(pieces, np.diff(cuts))
        if isinstance(splitting, ByValue):
            own.append(complete)
        n_rows += (count := int(pieces.slices.length.sum()))
        advance(count)
    splits, last = sizes.finish()
    column_types, value_types = _types_of(first[1])
    summary = Survey(
        rows=n_rows,
        sequences=rows.n_sequences,
        splits=splits,
        column_types=column_types,
        value_types=value_types,
        encoding=learning.encoding(),
        missing={name: count for name, count in missing.items() if count},
    )
    if not isinstance(splitting, ByValue):
        return summary, None
    ends = np.cumsum(np.concatenate([*own, last]), axis=1)
    return summary, np.pad(ends, ((0, 0), (1, 0)))


def _types_of(table: Table) -> tuple[dict[str, str], dict[str, str]]:
    """The type of each column as it is stored, and of each categorical one in the table."""
    stored, values = {}, {}
    for name, kind in table.kinds.items():
        stored[name] = type_ = str(table.features.schema[name])
        if kind == "categorical":
            stored[name], values[name] = "Int64", type_
    return stored, values


def _look(
    item: tuple[Pieces, Table], *, config: PreprocessConfig, splitting: Splitting, learning: Learner
) -> tuple[Pieces, Int64[np.ndarray, "S borders"], ChunkSummary, _Nulls]:
    """Cuts some rows into splits, and summarises those that are learnt from."""
    pieces, table = item
    cuts = np.clip(splitting.cuts(pieces), 0, pieces.slices.length[:, None])
    rows = parts(pieces, cuts)[0].rows() if config.fit_on == "train" else slice(None)
    chunk = learning.look(table.features[rows], table.sequence_id[rows])
    return pieces, cuts, chunk, table.features.null_count().row(0, named=True)


def history_of(config: PreprocessConfig) -> History | None:
    """The rows before a split that its windows see; None where whole sequences are in one split."""
    if not config.history or config.split_method == "between_sequences":
        return None
    is_exact = config.subsequence_start_mode == "exact"
    return History(config.seq_length, config.strides, is_exact=is_exact)


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
      splitting: The division of sequences into splits; where windows see the rows before a split's own, it
        knows whole sequences.
      encoding: The id maps and statistics.
      skip: Number of chunks to leave out, the first ones.
      threads: Number of threads that encode.
    """
    history = history_of(config)

    def work(item: tuple[Pieces, Table]) -> Encoded:
        pieces, table = item
        columns = encode(table.features, encoding)
        windows = [
            cut(part, columns, table.item_position, seq_length=config.seq_length, stride=stride)
            if len(part)
            else None
            for part, stride in zip(
                parts(pieces, splitting.cuts(pieces), history), config.strides, strict=True
            )
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
