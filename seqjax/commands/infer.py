"""`seqjax infer`: predictions, probabilities or embeddings from a model file and preprocessed data.

The model's card says which columns the model reads, how they were encoded and how long a window is. What the
configuration repeats of that is an assertion; every contradiction is reported, with both sides.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from seqjax.artifacts.layout import Layout
from seqjax.artifacts.model_files import resolve_model_path
from seqjax.config.infer import InferConfig
from seqjax.config.metadata import Metadata
from seqjax.data.dataset import Windows
from seqjax.errors import ConfigError, Problem
from seqjax.inference.assertions import contradictions
from seqjax.inference.engine import Engine
from seqjax.inference.engines import open_engine
from seqjax.inference.forecast import embed, forecast
from seqjax.inference.inputs import data_path_of, metadata_of, source_of
from seqjax.inference.results import Tables, write_files, write_whole
from seqjax.inference.sample import Reader
from seqjax.inference.sequifier import card_from_training
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
    metadata = metadata_of(config)
    data_path = data_path_of(config, metadata)
    return [written for path in paths for written in _infer_one(config, path, metadata, data_path)]


def _infer_one(config: InferConfig, path: Path, metadata: Metadata | None, data_path: Path) -> list[Path]:
    engine = open_engine(path, partial(card_from_training, config, path), device=config.device)
    problems = list(contradictions(config, metadata, engine.card))
    if problems:
        raise ConfigError(f"The configuration of inference, compared with the model {path.name},", problems)
    with source_of(config, metadata, data_path, engine.card) as source:
        make_tables = _embedding_tables if config.model_type == "embedding" else _forecast_tables
        results = make_tables(config, engine, path.stem, source.parts())
        if source.by_file:
            return write_files(results, config.write_format, path.stem)
        return write_whole(results, config.write_format)


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
