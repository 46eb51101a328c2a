"""Raw tables, in the documented input format, as a model reads them: encoded with its own maps.

A value that the model's maps lack becomes `other`, and an empty category `unknown`. A sequence gives its
newest window, or windows `stride` apart; where it is shorter than a window, it is padded on the left.

A table is read twice unless it is small: once to check every row (and to sort the rows on disk, if they are
not in order), once to be encoded. So a mistake in the last row is found before anything is computed, and
memory stays bounded by the longest sequence.
"""

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from seqjax.artifacts.card import ModelCard
from seqjax.config.schema import ColumnKind
from seqjax.data import chunks
from seqjax.data.columns import OTHER, Encoding, encode
from seqjax.data.splits import sequences
from seqjax.data.streams import in_parts
from seqjax.data.table_files import CsvFiles, TableFiles, TypesWidened
from seqjax.data.tables import KEYS, MissingReal, Table, TableReader, Wanted
from seqjax.errors import DataError
from seqjax.inference.sources import Source, windows_at_once
from seqjax.windows.index import Slices, n_windows
from seqjax.windows.windows import Windows, cut

logger = logging.getLogger(__name__)


def is_raw(header: Sequence[str]) -> bool:
    """Whether a table with these columns is raw, rather than preprocessed."""
    return set(KEYS) <= set(header)


@contextmanager
def raw_source(
    files: TableFiles,
    card: ModelCard,
    *,
    columns: Sequence[str] | None = None,
    stride: int | None = None,
    missing_real: MissingReal = "error",
) -> Iterator[Source]:
    """The windows of a raw table, which is checked as a whole.

    Args:
      files: The table.
      card: The model: its columns, maps, statistics and seq_length.
      columns: The columns to read; null reads the model's inputs.
      stride: The largest step between the windows of a sequence; null gives its newest window alone.
      missing_real: Whether an empty cell of a real column is refused, or read as the column's mean.

    Yields:
      The windows, in the order of sequenceId and itemPosition; readable until the block ends.

    Raises:
      DataError: The table cannot be used; the message names file, column, row and value, and what to do.
    """
    names = list(columns or card.column_schema.inputs)
    with TemporaryDirectory(prefix="seqjax-") as folder:
        table = _RawTable(files, card, names, stride, missing_real, Path(folder) / "sorted")
        yield Source(table.parts, total=table.survey())


@dataclass
class _RawTable:
    files: TableFiles
    card: ModelCard
    names: list[str]
    stride: int | None
    missing_real: MissingReal
    folder: Path
    """Where the rows are sorted, if they must be."""
    _held: list[Table] | None = field(default_factory=list)
    """All rows, where they are few."""

    def __post_init__(self) -> None:
        self._encoding = _encoding(self.card, self.names)
        kinds = self.card.column_schema.columns
        self._roles: Mapping[str, ColumnKind] = {name: kinds[name] for name in self.names}
        if isinstance(self.files, CsvFiles):
            # Where a type is guessed from cells, "01" would be read as 1.
            text = [name for name, ids in self._encoding.id_maps.items() if not _numbers(ids)]
            self.files.types |= dict.fromkeys(text, pl.String())
        wanted = Wanted(
            self.names,
            columns_from="the model's columns",
            roles=self._roles,
            roles_from="the model",
            missing_real=self.missing_real,
        )
        self._reader = TableReader(self.files, wanted)

    def survey(self) -> int:
        """Checks every row, sorts them if they are not in order, and returns the number of windows."""
        while True:
            try:
                return self._survey()
            except TypesWidened:
                logger.debug("A column has another type than its first rows show: reading again.")
            except chunks.Unsorted:
                self._sort()

    def parts(self) -> Iterator[Windows]:
        """The windows of some whole sequences at a time."""
        unseen = dict.fromkeys(self._encoding.id_maps, 0)
        try:
            for table in chunks.chunks(self._tables()):
                encoded = encode(_matched(table.features, self._encoding), self._encoding)
                for name in unseen:
                    unseen[name] += int(np.count_nonzero(encoded[name] == OTHER))
                windows = cut(
                    self._slices(table),
                    encoded,
                    table.item_position,
                    seq_length=self._seq_length,
                    stride=self.stride or 1,
                )
                yield from in_parts(windows, windows_at_once(self.card))
        except (TypesWidened, chunks.Unsorted):
            raise DataError(f"{self.files.files[0]} changed while it was read. Run infer again.") from None
        for name, count in unseen.items():
            if count:
                logger.info("Column %r: rows with a value that the model does not know: %d.", name, count)

    @property
    def _seq_length(self) -> int:
        return self.card.column_schema.seq_length

    def _survey(self) -> int:
        self._held, count = [], 0
        for table in chunks.chunks(self._tables()):
            slices = self._slices(table)
            count += int(n_windows(slices.length, seq_length=self._seq_length, stride=self.stride or 1).sum())
            # Rows that make one chunk are few enough to keep.
            self._held = [table] if self._held == [] else None
        return count

    def _tables(self) -> Iterator[Table]:
        if self._held:
            return iter(self._held)
        if self.folder.exists():
            return chunks.sorted_tables(self.folder, self._roles)
        return chunks.in_order(self._reader.pieces())

    def _sort(self) -> None:
        logger.info("Rows are not in the order of %s, %s: sorting them.", *KEYS)
        while True:
            try:
                keys = self._reader.pieces(keys_only=True)
                return chunks.sort_on_disk(self._reader.pieces, keys, self.folder)
            except TypesWidened:
                logger.debug("A column has another type than its first rows show: sorting again.")
                shutil.rmtree(self.folder, ignore_errors=True)

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
        kind = None if ids is None else _numbers(ids)
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


def _numbers(id_map: Mapping[str, int]) -> str | None:
    """How the keys of a map are written: `whole` or `decimal` numbers; null if some are text."""
    for kind, number in (("whole", int), ("decimal", float)):
        try:
            if all(str(number(key)) == key for key in id_map):
                return kind
        except ValueError:
            continue
    return None
