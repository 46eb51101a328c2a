"""`seqjax preprocess`: a table of event sequences becomes splits of windows and a metadata JSON.

Read and sort the rows; cut each sequence into splits; learn id maps and statistics; encode; cut windows;
write. Each step is a function of arrays in `seqjax.data`. All splits are written before the first one takes
its name, and the metadata JSON comes last, so that a run that fails leaves the result of an earlier one as
it was.
"""

import json
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import polars as pl

import seqjax
from seqjax.artifacts.atomic import replacing, write_text
from seqjax.artifacts.data_layout import data_name, metadata_path, split_path
from seqjax.config.load import resolve_path
from seqjax.config.metadata import Metadata
from seqjax.config.preprocess import PreprocessConfig
from seqjax.data.columns import OTHER, Encoding, encode, fit
from seqjax.data.formats import FORMATS, Files
from seqjax.data.id_maps import precomputed_maps
from seqjax.data.splits import Slices, sequences, split
from seqjax.data.tables import Table, read_table
from seqjax.data.windows import check_exact, cut
from seqjax.errors import DataError
from seqjax.progress import progress

logger = logging.getLogger(__name__)


def preprocess(config: PreprocessConfig) -> Metadata:
    """Runs the step.

    Args:
      config: What to read, how to cut it, what to write.

    Returns:
      The metadata, as it was written to configs/metadata_configs/[NAME].json.

    Raises:
      DataError: The table cannot be used, a split would be empty, or the result cannot be written.
    """
    source = resolve_path(config.project_root, config.data_path, or_here=True)
    table = read_table(
        source, config.read_format, selected_columns=config.selected_columns, max_rows=config.max_rows
    )
    whole = sequences(table.sequence_id)
    logger.info("Read %s: %d rows of %d sequences.", source, len(table.sequence_id), len(whole))
    logger.info("Columns: %s.", ", ".join(f"{name} ({kind})" for name, kind in table.kinds.items()))
    parts = split(whole, config.split_ratios)
    _check_parts(parts, config)
    given = precomputed_maps(
        resolve_path(config.project_root, "configs/id_maps"), table.kinds, config.use_precomputed_maps
    )
    encoding = fit(table.features[parts[0].rows()] if config.fit_on == "train" else table.features, given)
    columns = encode(table.features, encoding)
    _log_unseen(columns, encoding)
    name = data_name(config.data_path)
    metadata = _metadata(config, name, table, encoding)
    try:
        _write_splits(config, metadata, parts, columns, table.item_position)
        place = metadata_path(config.project_root, name)
        write_text(place, json.dumps(metadata.model_dump(exclude_none=True)))
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"The result cannot be written to {error.filename or name}: {reason}.") from error
    logger.info("Wrote %s.", place)
    return metadata


def _check_parts(parts: list[Slices], config: PreprocessConfig) -> None:
    for number, (part, stride) in enumerate(zip(parts, config.strides, strict=True)):
        if not len(part):
            raise DataError(
                f"Split {number} gets no rows: its share is {config.split_ratios[number]:g}, and no sequence "
                "is long enough to give it one. Use a larger share or fewer splits (split_ratios), or longer "
                "sequences."
            )
        if config.subsequence_start_mode == "exact":
            check_exact(part, seq_length=config.seq_length, stride=stride, split=number)


def _log_unseen(columns: Mapping[str, np.ndarray], encoding: Encoding) -> None:
    for name in encoding.id_maps:
        unseen = np.count_nonzero(columns[name] == OTHER)
        if unseen:
            logger.info("Column %r: %d rows hold a value that its id map lacks (id %d).", name, unseen, OTHER)


def _metadata(config: PreprocessConfig, name: str, table: Table, encoding: Encoding) -> Metadata:
    suffix = FORMATS[config.write_format].suffix
    types = {
        column.name: "Int64" if column.name in encoding.id_maps else _real_type(column)
        for column in table.features
    }
    return Metadata(
        n_classes=encoding.n_classes,
        id_maps=encoding.id_maps,
        split_paths=[
            split_path(config.project_root, name, number, suffix)
            for number in range(len(config.split_ratios))
        ],
        column_types=types,
        selected_columns_statistics=encoding.statistics,
        seq_length=config.seq_length,
        split_ratios=config.split_ratios,
        stride_by_split=config.strides,
        subsequence_start_mode=config.subsequence_start_mode,
        fit_on=config.fit_on,
        write_format=config.write_format,
        padding="null",
        seqjax_version=seqjax.__version__,
    )


def _real_type(column: pl.Series) -> str:
    return "Float32" if isinstance(column.dtype, pl.Float32) else "Float64"


def _write_splits(
    config: PreprocessConfig,
    metadata: Metadata,
    parts: list[Slices],
    columns: Mapping[str, np.ndarray],
    item_position: np.ndarray,
) -> None:
    """Writes all splits under temporary names; they are renamed together at the end."""
    total = sum(int(part.length.sum()) for part in parts)
    with ExitStack() as renamed_together, progress("Writing splits", total, "rows") as bar:
        for number, (part, stride) in enumerate(zip(parts, config.strides, strict=True)):
            windows = cut(part, columns, item_position, seq_length=config.seq_length, stride=stride)
            place = Path(metadata.split_paths[number])
            temporary = renamed_together.enter_context(replacing(place))
            files = Files(stem=place.name, sequences=config.batches_per_file)
            FORMATS[config.write_format].write(temporary, windows, files)
            bar.advance(int(part.length.sum()))
            logger.info(
                "Split %d: %d rows of %d sequences, %d windows: %s.",
                number,
                part.length.sum(),
                len(part),
                len(windows),
                place,
            )
