"""Raw tables, in the documented input format, as a model reads them: encoded with its own maps.

A value that the model's maps lack becomes `other`, and an empty category `unknown`. A sequence gives its
newest window, or windows that end at its last item and at every `stride`-th before it, as far as the items
that they predict have a history; where there are too few items for a window, it is padded on the left.

The rows of a table that is not small are read twice: once to check every one, once to be encoded. So a
mistake in the last row is found before anything is computed, and memory stays bounded by the longest
sequence.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from jaxtyping import Int64

from seqjax.artifacts.card import ModelCard
from seqjax.config.schema import MissingReal
from seqjax.data.cells import numbers_of
from seqjax.data.columns import OTHER, Encoding, encode
from seqjax.data.sorting import OrderedRows
from seqjax.data.splits import sequences
from seqjax.data.table_files import TableFiles
from seqjax.data.tables import KEYS, Table, TableReader, Wanted
from seqjax.errors import DataError
from seqjax.inference.sources import Source, in_parts, windows_at_once
from seqjax.windows.index import Slices
from seqjax.windows.windows import Windows, cut

logger = logging.getLogger(__name__)


def is_raw(header: Sequence[str]) -> bool:
    """Tells a table that is raw from one that is preprocessed, by its columns."""
    return set(KEYS) <= set(header)


@contextmanager
def raw_source(
    files: TableFiles,
    card: ModelCard,
    *,
    columns: Sequence[str] | None = None,
    stride: int | None = None,
    missing_real: MissingReal | None = None,
) -> Iterator[Source]:
    """The windows of a raw table, which is checked as a whole.

    Args:
      files: The table.
      card: The model: its columns, maps, statistics and seq_length.
      columns: The columns to read; None reads the model's inputs.
      stride: The step between the ends of the windows of a sequence; None gives its newest window alone.
      missing_real: Meaning of an empty cell of a real column; None is that of the model's own data.

    Yields:
      The windows, in the order of sequenceId and itemPosition; readable until the block ends.

    Raises:
      DataError: The table cannot be used; the message names file, column, row and value, and what to do.
    """
    names = list(columns or card.column_schema.inputs)
    with TemporaryDirectory(prefix="seqjax-") as folder:
        encoding = _encoding(card, names)
        kinds = card.column_schema.columns
        wanted = Wanted(
            names,
            columns_from="the model's columns",
            roles={name: kinds[name] for name in names},
            roles_from="the model",
            missing_real=missing_real or card.missing_real,
        )
        reader = TableReader(files, wanted).typed(Path(folder) / "table", encoding.id_maps)
        table = _RawTable(OrderedRows(reader, Path(folder) / "sorted"), card, encoding, stride)
        yield Source(table.parts, total=table.survey())


@dataclass
class _RawTable:
    rows: OrderedRows
    card: ModelCard
    encoding: Encoding
    stride: int | None
    _held: list[Table] | None = None
    """All rows, where they are few."""

    def survey(self) -> int:
        """Checks every row, and returns the number of windows."""
        self._held, count = [], 0
        for table in self.rows.chunks():
            count += self._count(self._slices(table).length)
            # Rows that make one chunk are few enough to keep.
            self._held = [table] if self._held == [] else None
        return count

    def parts(self) -> Iterator[Windows]:
        """The windows of some whole sequences at a time."""
        unseen = dict.fromkeys(self.encoding.id_maps, 0)
        for table in self._held or self.rows.chunks():
            encoded = encode(_matched(table.features, self.encoding), self.encoding)
            for name in unseen:
                unseen[name] += int(np.count_nonzero(encoded[name] == OTHER))
            windows = cut(
                self._slices(table), encoded, table.item_position, seq_length=self._seq_length, stride=1
            )
            windows = replace(windows, min_history=self.card.min_history)
            if self.stride is not None:
                windows = windows.ending_at_targets(self.stride)
            if len(windows):
                yield from in_parts(windows, windows_at_once(self.card))
        for name, count in unseen.items():
            if count:
                logger.info("Column %r: rows with a value that the model does not know: %d.", name, count)

    def _count(self, length: Int64[np.ndarray, "S"]) -> int:
        """The number of windows of sequences, or newest parts of them, of so many rows."""
        if self.stride is None:
            return len(length)
        return int((-(-np.maximum(length - self.card.min_history, 0) // self.stride)).sum())

    @property
    def _seq_length(self) -> int:
        return self.card.column_schema.seq_length

    def _slices(self, table: Table) -> Slices:
        slices = sequences(table.sequence_id)
        if self.stride is not None:
            return slices
        length = np.minimum(slices.length, self._seq_length + 1)
        return Slices(slices.sequence_id, slices.start + slices.length - length, length)


def _encoding(card: ModelCard, names: Sequence[str]) -> Encoding:
    kinds = card.column_schema.columns
    for name in names:
        if name not in (card.id_maps if kinds[name] == "categorical" else card.statistics):
            what = "id map" if kinds[name] == "categorical" else "mean and standard deviation"
            raise DataError(
                f"The model holds no {what} of column {name!r}, so it cannot read raw tables. Run preprocess "
                "with the metadata that it was trained with, and infer from the result."
            )
    return Encoding(
        {name: card.id_maps[name] for name in names if kinds[name] == "categorical"},
        {name: card.statistics[name] for name in names if kinds[name] == "real"},
    )


def _matched(features: pl.DataFrame, encoding: Encoding) -> pl.DataFrame:
    """Features whose categorical numbers are written as the maps have them; real columns stay as they are.

    Integers become floats where a program writes a column with an empty cell, and the other way round.
    """
    columns = []
    for column in features:
        ids = encoding.id_maps.get(column.name)
        kind = None if ids is None else numbers_of(ids)
        if kind == "whole" and column.dtype.is_float():
            column = _as_whole(column)
        elif kind == "decimal" and column.dtype.is_integer():
            column = column.cast(pl.Float64)
        columns.append(column)
    return pl.DataFrame(columns)


def _as_whole(column: pl.Series) -> pl.Series:
    """The text of floats, of whole ones as integers have it."""
    value = pl.col(column.name)
    # Null where no integer of 64 bits is near.
    integer = value.cast(pl.Int64, strict=False)
    text = pl.when(integer == value).then(integer.cast(pl.String)).otherwise(value.cast(pl.String))
    return column.to_frame().select(text).to_series()
