"""The data that a configuration of `infer` or `evaluate` names, as windows, a part at a time.

The data is preprocessed, or a raw table in the documented input format, which is encoded with the model's own
maps. A value that these lack becomes `other`, and an empty category `unknown`. A sequence gives its newest
window, or windows that end at its last item and at every `stride`-th before it, as far as the items that they
predict have a history; where there are too few items for a window, it is padded on the left.

The rows of a raw table that is not small are read twice: once to check every one, once to be encoded. So a
mistake in the last row is seen before anything is computed, and memory stays bounded by the longest
sequence.
"""

import bisect
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias, cast, get_args

import numpy as np
from jaxtyping import Int64

from seqjax.artifacts.card import ModelCard
from seqjax.artifacts.layout import keys_beside
from seqjax.config.base import suggestion
from seqjax.config.evaluate import EvaluateConfig
from seqjax.config.infer import InferConfig
from seqjax.config.keys import KeyColumns, key_columns
from seqjax.config.load import resolve_path, resolve_split
from seqjax.config.metadata import Metadata
from seqjax.config.resolve import load_metadata
from seqjax.config.schema import ColumnKind, ColumnRole, DecimalMark, MissingReal, TableFormat
from seqjax.data.columns import OTHER, Encoding, encode
from seqjax.data.formats import FORMATS, format_of, window_blocks
from seqjax.data.keys import NUMBERS, Keys, KeyTable
from seqjax.data.long_format import Padding
from seqjax.data.sorting import OrderedRows
from seqjax.data.splits import sequences
from seqjax.data.table_files import TableFiles
from seqjax.data.tables import Selection, Table, TableReader, open_files
from seqjax.errors import ConfigError, DataError, Problem
from seqjax.windows.index import Slices
from seqjax.windows.windows import Windows, cut, targets_once

logger = logging.getLogger(__name__)

LONG_FORMAT = "inputCol"
"""A column that every table has which preprocess wrote."""
NUMBERS_AT_ONCE = 1 << 25
"""Numbers that a model may return before they are written."""

DataConfig: TypeAlias = InferConfig | EvaluateConfig


@dataclass(frozen=True)
class Source:
    """Windows, in parts of whole sequences, so that memory stays bounded."""

    parts: Callable[[], Iterator[Windows]]
    """Reads them from the beginning."""
    total: int | None = None
    """Number of windows, where it is known."""
    by_file: bool = False
    """True where each part is a file whose results have a file of their own."""
    keys: Keys = NUMBERS
    """The ids and times that the numbers of sequences and items stand for."""


def metadata_of(config: DataConfig) -> Metadata | None:
    """The metadata that a configuration names, if it names any."""
    if config.metadata_config_path is None:
        return None
    return load_metadata(resolve_path(config.project_root, config.metadata_config_path, or_here=True))


def metadata_of_model(config: DataConfig, card: ModelCard) -> Metadata | None:
    """The metadata that a model was trained with, if it is still where it was."""
    named = card.train_config.get("metadata_config_path")
    place = resolve_path(config.project_root, named, or_here=True) if named else None
    return load_metadata(place) if place is not None and place.is_file() else None


def data_of(config: DataConfig, metadata: Metadata | None, card: ModelCard) -> tuple[Path, Metadata | None]:
    """The data, and its metadata.

    The data is what `data_path` says, or the last of the first three splits of the metadata that is named, or
    else of what the model was trained with.

    Args:
      config: The configuration.
      metadata: What it names.
      card: The model.

    Raises:
      ConfigError: There is no data.
    """
    if config.data_path is not None:
        return resolve_path(config.project_root, config.data_path, or_here=True), metadata
    metadata = metadata or metadata_of_model(config, card)
    if metadata is None:
        message = (
            "is required where metadata_config_path is null and the metadata that the model was trained with "
            "is not found, since no split is known then."
        )
        raise ConfigError("The configuration", [Problem("data_path", message)])
    splits = metadata.split_paths
    return resolve_split(config.project_root, splits[min(2, len(splits) - 1)]), metadata


@contextmanager
def source_of(
    config: DataConfig,
    metadata: Metadata | None,
    path: Path,
    card: ModelCard,
    *,
    columns: Sequence[str] | None = None,
    default_stride: int | None = None,
    each_target: bool = False,
) -> Iterator[Source]:
    """The windows of data: of a raw table where its columns say so, of preprocessed data otherwise.

    Args:
      config: The format, and how raw tables are cut.
      metadata: What preprocess wrote about preprocessed data.
      path: The data.
      card: The model that reads it.
      columns: The columns to read; None reads the model's inputs.
      default_stride: The `stride` of a raw table where the configuration has none; see `raw_source`.
      each_target: Whether preprocessed windows are cut anew; see `preprocessed_source`. Those of sequifier,
        which do not say where they lie in their sequences, are not.

    Yields:
      The windows; readable until the block ends.

    Raises:
      ConfigError: There is a `stride` or a column of ids or times, but no raw table.
      DataError: The data cannot be used.
    """
    read_format = config.read_format or read_format_of(path, metadata)
    files = raw_files(config, path, read_format, card)
    if files is not None:
        with raw_source(
            files,
            card,
            columns=columns,
            stride=config.stride or default_stride,
            missing_real=config.missing_real,
            missing_values=config.missing_values,
            decimal=config.decimal,
            keys=key_columns(config, card.keys),
        ) as source:
            yield source
        return
    _refuse_keys_of_tables(config, path)
    padding = metadata.padding if metadata is not None else "null"
    each_target = each_target and (metadata is None or metadata.seqjax_version is not None)
    yield preprocessed_source(
        path, read_format, card, columns=columns, padding=padding, each_target=each_target
    )


def raw_files(config: DataConfig, path: Path, read_format: str, card: ModelCard) -> TableFiles | None:
    """The files of a raw table; None where data is preprocessed, or is not there.

    Args:
      config: The columns of ids and times, where they are not the model's.
      path: The data.
      read_format: Its format.
      card: The model that reads it.

    Raises:
      DataError: It is neither.
    """
    if read_format not in get_args(TableFormat) or not path.exists():
        return None
    files = open_files(path, cast(TableFormat, read_format))
    keys = key_columns(config, card.keys)
    if is_raw(files.headers[0], keys):
        return files
    _check_preprocessed(path, files.headers[0], keys)
    return None


def _check_preprocessed(path: Path, header: Sequence[str], keys: KeyColumns) -> None:
    """Raises a `DataError` for a table that was meant to be raw."""
    if LONG_FORMAT in header:
        return
    missing = [f"{key!r} ({suggestion(key, header)})" for key in keys.names if key not in header]
    raise DataError(
        f"{path} is neither a raw table, which has the columns {' and '.join(keys.names)}, nor one that "
        f"preprocess wrote, which has {LONG_FORMAT}. It lacks {' and '.join(missing)}; id_column and "
        "time_column say other columns."
    )


def _refuse_keys_of_tables(config: DataConfig, path: Path) -> None:
    """Raises a `ConfigError` for keys that say how a raw table is read, which preprocessed data is not."""
    given = {name: getattr(config, name) for name in ("stride", *KeyColumns.model_fields)}
    own = KeyTable(keys_beside(path)).columns if keys_beside(path).is_dir() else KeyColumns()
    problems = [
        Problem(
            name,
            f"is of raw tables, but {path} is preprocessed, where this is settled already. Leave it out.",
        )
        for name, value in given.items()
        if value is not None and value != getattr(own, name, None)
    ]
    if problems:
        raise ConfigError("The configuration", problems)


def read_format_of(path: Path, metadata: Metadata | None) -> str:
    """The format of data as far as its name, its folder or the metadata say it; else parquet."""
    stated = metadata.write_format if metadata is not None else None
    within = (format_of(file) for file in sorted(path.iterdir())) if path.is_dir() else iter(())
    return format_of(path) or next(filter(None, within), None) or stated or "parquet"


# Preprocessed data
# ------------------------------------------------------------------------------------


def preprocessed_source(
    path: Path,
    read_format: str,
    card: ModelCard,
    *,
    columns: Sequence[str] | None = None,
    padding: Padding = "null",
    each_target: bool = False,
) -> Source:
    """The windows of preprocessed data, as a model reads them.

    Args:
      path: The data.
      read_format: A format of preprocessed data.
      card: The model.
      columns: The columns to read; None reads the model's inputs.
      padding: The mark of padded slots in the long format.
      each_target: Whether to cut windows anew, so that each target is predicted once, rather than to take
        them as they are.
    """
    schema, keys = card.column_schema, keys_beside(path)
    if card.keys.are_own and not keys.is_dir():
        logger.warning(
            "%s, where preprocess keeps %s and %s, is not there: results say numbers instead of these.",
            *(keys, *card.keys.names),
        )
    kinds: dict[str, ColumnKind] = {name: schema.columns[name] for name in columns or schema.inputs}
    by_file = read_format in FORMATS and FORMATS[read_format].by_file

    def parts() -> Iterator[Windows]:
        blocks = window_blocks(
            path, read_format, column_kinds=kinds, padding=padding, n_classes=schema.n_classes
        )
        is_empty = True
        for block in filter(len, blocks):
            windows = replace(block.crop(schema.seq_length), min_history=card.min_history)
            if each_target:
                count = card.model_spec.prediction_length
                listed = windows if FORMATS[read_format].native else targets_once(windows, count)
                windows = listed.ending_at_targets(count)
            if not len(windows):
                continue
            is_empty = False
            yield from [windows] if by_file else in_parts(windows, windows_at_once(card))
        if is_empty:
            raise DataError(f"{path} holds no windows, so there is nothing to predict.")

    return Source(parts, by_file=by_file, keys=KeyTable(keys) if keys.is_dir() else NUMBERS)


def in_parts(windows: Windows, most: int) -> Iterator[Windows]:
    """Windows cut into parts of whole sequences, of at most `most` windows unless a sequence has more.

    Args:
      windows: Windows; where those of a sequence do not lie together, they are one part.
      most: How many a part.
    """
    runs = windows.runs
    begins = np.flatnonzero(np.append(True, runs.sequence_id[1:] != runs.sequence_id[:-1]))
    if len(windows) <= most or len(np.unique(runs.sequence_id[begins])) < len(begins):
        yield windows
        return
    run_ends = [*begins[1:].tolist(), len(runs)]
    ends = [*runs.first_window[begins[1:]].tolist(), len(windows)]
    first = run = 0
    while first < len(windows):
        # The last sequence that ends in time, or else the next one.
        place = max(bisect.bisect_right(ends, first + most) - 1, bisect.bisect_right(ends, first))
        yield replace(windows, runs=runs.taken(slice(run, run_ends[place])))
        first, run = ends[place], run_ends[place]


def windows_at_once(card: ModelCard) -> int:
    """The number of windows to infer before results are written, so that outputs are of a bounded size."""
    schema, spec = card.column_schema, card.model_spec
    if card.kind == "embedding":
        width = spec.dim_model * len(card.embedding_layers or (0,))
    else:
        width = sum(schema.head_width(name) for name in schema.targets)
    return max(NUMBERS_AT_ONCE // (width * spec.prediction_length), 1)


# Raw tables
# ------------------------------------------------------------------------------------


def is_raw(header: Sequence[str], keys: KeyColumns | None = None) -> bool:
    """Tells a table that is raw from one that is preprocessed, by its columns of ids and times."""
    return set((keys or KeyColumns()).names) <= set(header)


@contextmanager
def raw_source(
    files: TableFiles,
    card: ModelCard,
    *,
    columns: Sequence[str] | None = None,
    stride: int | None = None,
    missing_real: MissingReal | None = None,
    missing_values: Sequence[str] | None = None,
    decimal: DecimalMark | None = None,
    keys: KeyColumns | None = None,
) -> Iterator[Source]:
    """The windows of a raw table, which is checked as a whole.

    Args:
      files: The table.
      card: The model: its columns, maps, statistics and seq_length.
      columns: The columns to read; None reads the model's inputs.
      stride: The step between the ends of the windows of a sequence; None gives its newest window alone.
      missing_real: Meaning of an empty cell of a real column; None is that of the model's own data.
      missing_values: Values that mean a missing one, besides the usual ones; None are those of that data.
      decimal: Of csv: what stands before the decimals of a number; None is that of the model's own data.
      keys: The columns of ids and times; None reads the documented ones.

    Yields:
      The windows, in the order of sequences and items; readable until the block ends.

    Raises:
      DataError: The table cannot be used; the message names file, column, row and value, and what to do.
    """
    names = list(columns or card.column_schema.inputs)
    encoding = _encoding(card, names)
    roles: dict[str, ColumnRole] = {name: card.column_schema.columns[name] for name in names}
    roles |= {name: "text" for name, role in card.column_roles.items() if role == "text" and name in roles}
    chosen = Selection(
        names,
        columns_from="the model's columns",
        roles=roles,
        roles_from="the model",
        id_maps=encoding.id_maps,
        missing_real=missing_real or card.missing_real,
        missing_values=card.missing_values if missing_values is None else missing_values,
        decimal=decimal or card.decimal,
        keys=keys or KeyColumns(),
    )
    with TemporaryDirectory(prefix="seqjax-") as folder:
        reader = TableReader(files, chosen).typed(Path(folder) / "table")
        rows = OrderedRows(reader, Path(folder) / "sorted")
        table = _RawTable(rows, card, encoding, stride)
        yield Source(table.parts, total=table.survey(), keys=rows.keys)


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
            encoded = encode(table.features, self.encoding)
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
        """The number of windows of sequences, or of their newest rows, of so many rows."""
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
