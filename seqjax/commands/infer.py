"""`seqjax infer`: predictions, probabilities or embeddings from a model file and preprocessed data.

The model's card says which columns the model reads, how they were encoded and how long a window is. What the
configuration repeats of that is an assertion; every contradiction is reported, with both sides.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import cast, get_args

from seqjax.artifacts.card import ModelCard
from seqjax.artifacts.layout import Layout
from seqjax.artifacts.model_files import resolve_model_path
from seqjax.config.infer import InferConfig
from seqjax.config.load import resolve_path
from seqjax.config.metadata import Metadata
from seqjax.config.resolve import load_metadata
from seqjax.data.dataset import Windows
from seqjax.data.formats import format_of
from seqjax.data.table_files import TableFormat
from seqjax.data.tables import open_files
from seqjax.errors import ConfigError, Problem
from seqjax.inference.assertions import contradictions
from seqjax.inference.engine import Engine
from seqjax.inference.engines import open_engine
from seqjax.inference.forecast import embed, forecast
from seqjax.inference.raw_tables import is_raw, raw_source
from seqjax.inference.results import Tables, write_files, write_whole
from seqjax.inference.sample import Reader
from seqjax.inference.sequifier import card_from_training
from seqjax.inference.sources import Source, preprocessed_source
from seqjax.inference.tables import embedding_table, prediction_table, probability_table


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


def _infer_one(config: InferConfig, path: Path, metadata: Metadata | None, data_path: Path) -> list[Path]:
    engine = open_engine(path, partial(card_from_training, config, path), device=config.device)
    problems = list(contradictions(config, metadata, engine.card))
    if problems:
        raise ConfigError(f"The configuration of inference, compared with the model {path.name},", problems)
    with _source(config, metadata, data_path, engine.card) as source:
        make_tables = _embedding_tables if config.model_type == "embedding" else _forecast_tables
        results = make_tables(config, engine, path.stem, source.parts())
        if source.by_file:
            return write_files(results, config.write_format, path.stem)
        return write_whole(results, config.write_format)


@contextmanager
def _source(config: InferConfig, metadata: Metadata | None, path: Path, card: ModelCard) -> Iterator[Source]:
    """The data: a raw table where its columns say so, preprocessed otherwise."""
    read_format = _read_format(config, metadata, path)
    if read_format in get_args(TableFormat) and path.exists():
        files = open_files(path, cast(TableFormat, read_format))
        if is_raw(files.headers[0]):
            with raw_source(files, card, stride=config.stride, missing_real=config.missing_real) as source:
                yield source
            return
    if config.stride is not None:
        message = f"is of raw tables, but {path} is preprocessed: its windows are cut already. Leave it out."
        raise ConfigError("The configuration of inference", [Problem("stride", message)])
    padding = metadata.padding if metadata is not None else "null"
    yield preprocessed_source(path, read_format, card, padding=padding)


def _embedding_tables(
    config: InferConfig, engine: Engine, model_id: str, parts: Iterable[Windows]
) -> Iterator[Tables]:
    place = Layout(Path(config.project_root), "").embeddings(model_id, config.write_format)
    for windows in parts:
        latest = config.forecast_from == "latest"
        yield {
            place: embedding_table(
                embed(engine, windows, batch_size=config.inference_batch_size, latest=latest)
            )
        }


def _forecast_tables(
    config: InferConfig, engine: Engine, model_id: str, parts: Iterable[Windows]
) -> Iterator[Tables]:
    """The predictions, and the probabilities of each target that are asked for."""
    card, layout = engine.card, Layout(Path(config.project_root), "")
    kinds = card.column_schema.targets
    targets = config.target_columns or list(kinds)
    shown = [name for name in targets if config.output_probabilities and kinds[name] == "categorical"]
    # All targets are read, whichever are asked for: they may have to be fed back, and draws stay the same.
    read = Reader(
        kinds, sampled=config.sample_from_distribution_columns or (), seed=config.seed, keep_log_probs=shown
    )
    steps = (config.autoregression_extra_steps or 0) if config.autoregression else 0
    for windows in parts:
        result = forecast(
            engine,
            windows,
            read,
            batch_size=config.inference_batch_size,
            extra_steps=steps,
            latest=config.forecast_from == "latest",
        )
        predictions = prediction_table(result, card, targets, map_to_id=config.map_to_id)
        yield {
            layout.predictions(model_id, config.write_format): predictions,
            **{
                layout.probabilities(model_id, name, config.write_format): probability_table(
                    result, card, name
                )
                for name in shown
            },
        }


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
    stated = metadata.write_format if metadata is not None else None
    within = (format_of(file) for file in sorted(path.iterdir())) if path.is_dir() else iter(())
    return format_of(path) or next(filter(None, within), None) or stated or "parquet"
