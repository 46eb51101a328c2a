"""`seqjax infer`: predictions, probabilities or embeddings from a model file and preprocessed data.

The model's card says which columns the model reads, how they were encoded and how long a window is. What the
configuration repeats of that is an assertion; every contradiction is reported, with both sides.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from seqjax.artifacts.atomic import replacing
from seqjax.artifacts.card import ModelCard
from seqjax.artifacts.layout import Layout
from seqjax.artifacts.model_files import resolve_model_path
from seqjax.config.infer import InferConfig
from seqjax.config.load import resolve_path
from seqjax.config.metadata import Metadata
from seqjax.config.resolve import load_metadata
from seqjax.data.dataset import Windows
from seqjax.data.formats import load_windows
from seqjax.errors import ConfigError, DataError, Problem
from seqjax.inference.assertions import contradictions
from seqjax.inference.engine import Engine, open_engine
from seqjax.inference.forecast import embed, forecast
from seqjax.inference.sample import Reader
from seqjax.inference.tables import embedding_table, prediction_table, probability_table

logger = logging.getLogger(__name__)


def infer(config: InferConfig) -> list[Path]:
    """Runs one or several models over preprocessed data.

    Args:
      config: Which models, which data, what to write.

    Returns:
      The files that were written.
    """
    unsupported = list(_unsupported(config))
    if unsupported:
        raise ConfigError("The configuration of inference", unsupported)
    names = [config.model_path] if isinstance(config.model_path, str) else config.model_path
    paths = [resolve_model_path(config.project_root, name) for name in names]
    metadata = _metadata(config)
    data_path = _data_path(config, metadata)
    return [written for path in paths for written in _infer_one(config, path, metadata, data_path)]


def _infer_one(config: InferConfig, path: Path, metadata: Metadata | None, data_path: Path) -> Iterator[Path]:
    engine = open_engine(path, device=config.device)
    problems = list(contradictions(config, metadata, engine.card))
    if problems:
        raise ConfigError(f"The configuration of inference, compared with the model {path.name},", problems)
    windows = _load(config, metadata, engine.card, data_path)
    layout, extension = Layout(Path(config.project_root), ""), config.write_format
    if config.model_type == "embedding":
        table = embedding_table(embed(engine, windows, batch_size=config.inference_batch_size))
        yield _write(layout.embeddings(path.stem, extension), table)
        return
    tables = _forecast_tables(config, engine, windows)
    yield _write(layout.predictions(path.stem, extension), tables.pop(None))
    for target, table in tables.items():
        yield _write(layout.probabilities(path.stem, str(target), extension), table)


def _forecast_tables(config: InferConfig, engine: Engine, windows: Windows) -> dict[str | None, pl.DataFrame]:
    """The table of predictions under None, and that of each target's probabilities under its name."""
    card = engine.card
    kinds = card.column_schema.targets
    targets = config.target_columns or list(kinds)
    shown = [name for name in targets if config.output_probabilities and kinds[name] == "categorical"]
    # All targets are read, whichever are asked for: they may have to be fed back, and draws stay the same.
    read = Reader(
        kinds, sampled=config.sample_from_distribution_columns or (), seed=config.seed, keep_log_probs=shown
    )
    steps = (config.autoregression_extra_steps or 0) if config.autoregression else 0
    result = forecast(engine, windows, read, batch_size=config.inference_batch_size, extra_steps=steps)
    tables: dict[str | None, pl.DataFrame] = {
        None: prediction_table(result, card, targets, map_to_id=config.map_to_id)
    }
    tables.update({name: probability_table(result, card, name) for name in shown})
    return tables


def _unsupported(config: InferConfig) -> Iterator[Problem]:
    if config.distributed:
        yield Problem(
            "distributed", "is not supported yet: this version infers on one device. Set it to false."
        )
    if config.infer_with_dropout:
        yield Problem("infer_with_dropout", "is not supported yet. Set it to false.")


def _metadata(config: InferConfig) -> Metadata | None:
    if config.metadata_config_path is None:
        return None
    return load_metadata(resolve_path(config.project_root, config.metadata_config_path, or_here=True))


def _data_path(config: InferConfig, metadata: Metadata | None) -> Path:
    if config.data_path is not None:
        return resolve_path(config.project_root, config.data_path, or_here=True)
    if metadata is None:
        message = "is required where metadata_config_path is null, since no split is known then."
        raise ConfigError("The configuration of inference", [Problem("data_path", message)])
    splits = metadata.split_paths
    return resolve_path(config.project_root, splits[min(2, len(splits) - 1)], or_here=True)


def _read_format(config: InferConfig, metadata: Metadata | None, path: Path) -> str:
    if config.read_format is not None:
        return config.read_format
    if path.suffix in {".csv", ".parquet"}:
        return path.suffix[1:]
    if metadata is not None and metadata.write_format is not None:
        return metadata.write_format
    return "arrow" if path.is_dir() else "parquet"


def _load(config: InferConfig, metadata: Metadata | None, card: ModelCard, path: Path) -> Windows:
    schema = card.column_schema
    windows = load_windows(
        path,
        _read_format(config, metadata, path),
        column_kinds={name: schema.columns[name] for name in schema.inputs},
        padding=metadata.padding if metadata is not None else "null",
        n_classes=schema.n_classes,
    )
    if not len(windows):
        raise DataError(f"{path} holds no windows, so there is nothing to infer.")
    return windows.crop(schema.seq_length)


def _write(path: Path, table: pl.DataFrame) -> Path:
    with replacing(path) as temporary:
        if path.suffix == ".csv":
            table.write_csv(temporary)
        else:
            table.write_parquet(temporary)
    logger.info("wrote %s (%d rows)", path, len(table))
    return path
