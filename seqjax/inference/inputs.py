"""The inputs that a configuration of `infer` or `evaluate` names: metadata, data, and its windows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias, cast, get_args

from seqjax.artifacts.card import ModelCard
from seqjax.config.base import suggestion
from seqjax.config.evaluate import EvaluateConfig
from seqjax.config.infer import InferConfig
from seqjax.config.load import resolve_path, resolve_split
from seqjax.config.metadata import Metadata
from seqjax.config.resolve import load_metadata
from seqjax.config.schema import TableFormat
from seqjax.data.formats import format_of
from seqjax.data.tables import KEYS, open_files
from seqjax.errors import ConfigError, DataError, Problem
from seqjax.inference.raw_tables import is_raw, raw_source
from seqjax.inference.sources import Source, preprocessed_source

LONG_FORMAT = "inputCol"
"""A column that every table has which preprocess wrote."""

DataConfig: TypeAlias = InferConfig | EvaluateConfig


def metadata_of(config: DataConfig) -> Metadata | None:
    """The metadata that a configuration names, if it names any."""
    if config.metadata_config_path is None:
        return None
    return load_metadata(resolve_path(config.project_root, config.metadata_config_path, or_here=True))


def data_path_of(config: DataConfig, metadata: Metadata | None) -> Path:
    """The data: what `data_path` says, or the last of the metadata's first three splits.

    Raises:
      ConfigError: There is neither.
    """
    if config.data_path is not None:
        return resolve_path(config.project_root, config.data_path, or_here=True)
    if metadata is None:
        message = "is required where metadata_config_path is null, since no split is known then."
        raise ConfigError("The configuration", [Problem("data_path", message)])
    splits = metadata.split_paths
    return resolve_split(config.project_root, splits[min(2, len(splits) - 1)])


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
      ConfigError: There is a `stride`, but no raw table.
      DataError: The data cannot be used.
    """
    read_format = config.read_format or read_format_of(path, metadata)
    if read_format in get_args(TableFormat) and path.exists():
        files = open_files(path, cast(TableFormat, read_format))
        if is_raw(files.headers[0]):
            stride = config.stride or default_stride
            missing = config.missing_real
            with raw_source(files, card, columns=columns, stride=stride, missing_real=missing) as source:
                yield source
            return
        _check_preprocessed(path, files.headers[0])
    if config.stride is not None:
        message = f"is of raw tables, but {path} is preprocessed: its windows are cut already. Leave it out."
        raise ConfigError("The configuration", [Problem("stride", message)])
    padding = metadata.padding if metadata is not None else "null"
    each_target = each_target and padding == "null"
    yield preprocessed_source(
        path, read_format, card, columns=columns, padding=padding, each_target=each_target
    )


def _check_preprocessed(path: Path, header: Sequence[str]) -> None:
    """Raises a `DataError` for a table that was meant to be raw."""
    if LONG_FORMAT in header:
        return
    missing = [f"{key!r} ({suggestion(key, header)})" for key in KEYS if key not in header]
    separated = len(header) == 1 and any(mark in header[0] for mark in ";\t|")
    raise DataError(
        f"{path} is neither a raw table, which has the columns {' and '.join(KEYS)}, nor one that preprocess "
        f"wrote, which has {LONG_FORMAT}. "
        + ("Separate its columns by commas." if separated else f"It lacks {' and '.join(missing)}")
    )


def read_format_of(path: Path, metadata: Metadata | None) -> str:
    """The format of data as far as its name, its folder or the metadata say it; else parquet."""
    stated = metadata.write_format if metadata is not None else None
    within = (format_of(file) for file in sorted(path.iterdir())) if path.is_dir() else iter(())
    return format_of(path) or next(filter(None, within), None) or stated or "parquet"
