"""`seqjax infer`: predictions, probabilities or embeddings from a model file and preprocessed data.

The model's card says which columns the model reads, how they were encoded and how long a window is. What the
configuration repeats of that is an assertion; every contradiction is reported, with both sides.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl

from seqjax.artifacts.atomic import replacing
from seqjax.artifacts.card import ModelCard
from seqjax.artifacts.layout import Layout, part_of
from seqjax.artifacts.model_files import resolve_model_path
from seqjax.config.infer import InferConfig
from seqjax.config.load import resolve_path
from seqjax.config.metadata import Metadata
from seqjax.config.resolve import load_metadata
from seqjax.config.schema import ColumnKind
from seqjax.data.dataset import Windows
from seqjax.data.formats import format_of, is_by_file, load_window_files, load_windows
from seqjax.errors import ConfigError, DataError, Problem
from seqjax.inference.assertions import contradictions
from seqjax.inference.engine import Engine
from seqjax.inference.engines import open_engine
from seqjax.inference.forecast import embed, forecast
from seqjax.inference.sample import Reader
from seqjax.inference.sequifier import card_from_training
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
    engine = open_engine(path, partial(card_from_training, config, path), device=config.device)
    problems = list(contradictions(config, metadata, engine.card))
    if problems:
        raise ConfigError(f"The configuration of inference, compared with the model {path.name},", problems)
    source = _Source(data_path, _read_format(config, metadata, data_path), metadata, engine.card)
    make_tables = _embedding_tables if config.model_type == "embedding" else _forecast_tables
    results = make_tables(config, engine, path.stem, source.parts())
    if is_by_file(source.read_format):
        yield from _write_files(results, path.stem)
        return
    for tables in results:
        for place, table in tables.items():
            with replacing(place) as temporary:
                _write(temporary, table, config.write_format)
            logger.info("wrote %s (%d rows)", place, len(table))
            yield place


@dataclass(frozen=True)
class _Source:
    """Preprocessed data, as a model reads it."""

    path: Path
    read_format: str
    metadata: Metadata | None
    card: ModelCard

    def parts(self) -> Iterator[Windows]:
        """The windows: of each file, where results are written file by file, or all at once."""
        empty = True
        for windows in self._loaded():
            if len(windows):
                empty = False
                yield windows.crop(self.card.column_schema.seq_length)
        if empty:
            raise DataError(f"{self.path} holds no windows, so there is nothing to infer.")

    def _loaded(self) -> Iterator[Windows]:
        schema = self.card.column_schema
        kinds: dict[str, ColumnKind] = {name: schema.columns[name] for name in schema.inputs}
        if is_by_file(self.read_format):
            yield from load_window_files(
                self.path, self.read_format, column_kinds=kinds, n_classes=schema.n_classes
            )
        else:
            yield load_windows(
                self.path,
                self.read_format,
                column_kinds=kinds,
                padding=self.metadata.padding if self.metadata is not None else "null",
                n_classes=schema.n_classes,
            )


Tables = dict[Path, pl.DataFrame]
"""Results by the files that they belong in."""


def _embedding_tables(
    config: InferConfig, engine: Engine, model_id: str, parts: Iterable[Windows]
) -> Iterator[Tables]:
    place = Layout(Path(config.project_root), "").embeddings(model_id, config.write_format)
    for windows in parts:
        yield {place: embedding_table(embed(engine, windows, batch_size=config.inference_batch_size))}


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
        result = forecast(engine, windows, read, batch_size=config.inference_batch_size, extra_steps=steps)
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


def _write_files(results: Iterable[Tables], model_id: str) -> list[Path]:
    """Writes the results of each input file to a file of its own, in a folder that is replaced as a whole."""
    written = []
    with ExitStack() as renamed_together:
        folders: dict[Path, Path] = {}
        for number, tables in enumerate(results):
            for whole, table in tables.items():
                place = part_of(whole, model_id, number)
                if whole not in folders:
                    folders[whole] = renamed_together.enter_context(replacing(place.parent))
                    folders[whole].mkdir()
                _write(folders[whole] / place.name, table, place.suffix[1:])
                written.append(place)
    for place in dict.fromkeys(path.parent for path in written):
        logger.info("wrote %s (%d files)", place, sum(path.parent == place for path in written))
    return written


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
    return format_of(path) or stated or "parquet"


def _write(path: Path, table: pl.DataFrame, extension: str) -> None:
    if extension == "csv":
        table.write_csv(path)
    else:
        table.write_parquet(path)
