"""A trained model that is ready to use: what `seqjax.load_model` returns, and what `seqjax infer` runs.

    model = seqjax.load_model("models/sequifier-shop-best-20.onnx")
    next_items = model.predict("data/shop.parquet", forecast_from="latest")

A table is a polars frame or a path: raw, in the documented input format, or preprocessed. Options are the
keys of infer.yaml that say what to predict, with their names and defaults.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Literal, TypedDict, Unpack

import polars as pl

from seqjax.artifacts.card import ModelCard
from seqjax.artifacts.model_files import resolve_model_path
from seqjax.config.base import validate
from seqjax.config.infer import InferConfig
from seqjax.config.keys import key_columns
from seqjax.config.metadata import Metadata
from seqjax.config.schema import DecimalMark, MissingReal, WindowFormat
from seqjax.data.table_files import FrameFile
from seqjax.errors import ConfigError, Problem
from seqjax.inference.assertions import contradictions
from seqjax.inference.engine import AveragingEngine, Engine, ScanningEngine
from seqjax.inference.generate import last_windows
from seqjax.inference.inputs import Source, metadata_of, raw_source, source_of
from seqjax.inference.opening import card_from_training, open_engine
from seqjax.inference.tables import Output, Outputs, outputs
from seqjax.windows.windows import taken

Table = pl.DataFrame | str | PathLike[str]
"""A frame, or the path of a file or folder; raw or preprocessed."""


class DataOptions(TypedDict, total=False):
    """Keys of `InferConfig` that say how data is read and what of it the model is shown."""

    id_column: str | None
    time_column: str | None
    time_format: str | None
    ties: Literal["error", "order"] | None
    read_format: WindowFormat | None
    metadata_config_path: str | None
    forecast_from: Literal["held_out", "latest"]
    stride: int | None
    missing_real: MissingReal | None
    missing_values: list[str] | None
    decimal: DecimalMark | None
    inference_batch_size: int


class PredictOptions(DataOptions, total=False):
    """Keys of `InferConfig` that say what is predicted, too."""

    target_columns: list[str] | None
    predict_unknown: bool
    map_to_id: bool
    sample_from_distribution_columns: list[str] | None
    temperature: float
    top_k: int | None
    top_p: float | None
    seed: int
    generation_cache: Literal["exact", "rolling"]
    autoregression_samples: int | None


class Model:
    """A generative or an embedding model."""

    def __init__(self, engine: Engine, name: str) -> None:
        """Takes what runs the model, and what it is called in messages."""
        self._engine = engine
        self.name = name

    def __repr__(self) -> str:
        schema = self.card.column_schema
        reads = ", ".join((*schema.categorical_inputs, *schema.real_inputs))
        gives = ", ".join(schema.targets) if self.card.kind == "generative" else "embeddings"
        return f"<Model {self.name}: {schema.seq_length} items of {reads} -> {gives}>"

    @classmethod
    def opened(cls, path: Path, config: InferConfig) -> "Model":
        """The model in a file.

        Args:
          path: The file.
          config: What to run it on, whether it drops, and where the training configuration of a model of
            sequifier is.

        Raises:
          ArtifactError: The file is missing, damaged or no model.
          ConfigError: There is no such device, or no training configuration where one is needed.
        """
        describe = partial(card_from_training, config, path)
        engine = open_engine(
            path,
            describe,
            device=config.device,
            dropout_seed=config.seed if config.infer_with_dropout else None,
            distributed=config.distributed,
        )
        passes = config.dropout_samples
        return cls(engine if passes is None else AveragingEngine(engine, passes), path.name)

    @property
    def card(self) -> ModelCard:
        """The description of the model: columns, architecture, maps, statistics, training."""
        return self._engine.card

    def predict(self, table: Table, **options: Unpack[PredictOptions]) -> pl.DataFrame:
        """The next item of each window's last P positions (P is the model's `prediction_length`, usually 1).

        Args:
          table: The data. A raw table gives each sequence's newest window, or windows `stride` apart.
          options: Keys of infer.yaml.

        Returns:
          One row a predicted item: its id and time, then the targets.

        Raises:
          ConfigError: An option is wrong, or does not suit the model.
          DataError: The table cannot be used.
        """
        return self._tables(table, options)[Output("predictions")]

    def probabilities(self, table: Table, **options: Unpack[PredictOptions]) -> dict[str, pl.DataFrame]:
        """The distribution of each categorical target, by target.

        Args:
          table: The data.
          options: Keys of infer.yaml.

        Returns:
          Frames with id and time, then a column a class, called by its label; the rows are those of
          `predict`.
        """
        tables = self._tables(table, {**options, "output_probabilities": True, "result_ids": True})
        return {output.target: frame for output, frame in tables.items() if output.kind == "probabilities"}

    def embed(self, table: Table, **options: Unpack[DataOptions]) -> pl.DataFrame:
        """The hidden states at each window's last P positions; of an embedding model.

        Args:
          table: The data.
          options: Keys of infer.yaml.

        Returns:
          One row a hidden state: id, subsequenceId, time, then its components "0", "1", ...
        """
        return self._tables(table, options, "embedding")[Output("embeddings")]

    def generate(self, table: Table, *, steps: int, **options: Unpack[PredictOptions]) -> pl.DataFrame:
        """Continues each sequence by feeding predictions back.

        Args:
          table: The data; each sequence's newest window is continued.
          steps: How many items to predict of each sequence.
          options: Keys of infer.yaml; with `forecast_from: latest` the first item is the one after the data.

        Returns:
          `steps` rows a sequence, or a `sample` of it: id and time, then the targets.
        """
        if not isinstance(steps, int) or steps < 1:
            problem = Problem("steps", f"must be a whole number of at least 1 (found {steps!r}).")
            raise ConfigError("The call", [problem])
        further = {"autoregression": True, "autoregression_extra_steps": steps - 1}
        return self._tables(table, {**options, **further}, newest=True)[Output("predictions")]

    def outputs(self, config: InferConfig, source: Source) -> Iterator[Outputs]:
        """The results for each part of the data.

        Args:
          config: What to predict; see `check`.
          source: The data.
        """
        return outputs(config, self._engine, source)

    def check(self, config: InferConfig, metadata: Metadata | None = None) -> None:
        """Raises a `ConfigError` with everything in which a configuration contradicts the model."""
        problems = list(contradictions(config, metadata, self.card))
        scans = isinstance(self._engine, ScanningEngine) and not self._engine.drops
        if config.generation_cache == "rolling" and not scans:
            message = (
                "rolling runs in JAX alone: name the .pt file of the model (export_pt: true), or use exact."
            )
            problems.append(Problem("generation_cache", message))
        if problems:
            raise ConfigError(
                f"The configuration of inference, compared with the model {self.name},", problems
            )

    def _tables(
        self,
        table: Table,
        options: Mapping[str, object],
        kind: Literal["generative", "embedding"] = "generative",
        *,
        newest: bool = False,
    ) -> dict[Output, pl.DataFrame]:
        given = {"project_root": ".", "model_path": self.name, "model_type": kind, **options}
        config = validate(InferConfig, given, "The call")
        self.check(config, metadata_of(config))
        with self._source(table, config) as source:
            parts = list(self.outputs(config, _newest(source) if newest else source))
        return {output: pl.concat([part[output] for part in parts]) for output in parts[0]}

    def _source(self, table: Table, config: InferConfig) -> AbstractContextManager[Source]:
        if isinstance(table, pl.DataFrame):
            return raw_source(
                FrameFile(table),
                self.card,
                stride=config.stride,
                missing_real=config.missing_real,
                missing_values=config.missing_values,
                decimal=config.decimal,
                keys=key_columns(config, self.card.keys),
            )
        if isinstance(table, str | PathLike):
            return source_of(config, metadata_of(config), Path(table), self.card)
        message = (
            f"must be a polars DataFrame or a path (found a {type(table).__name__}: convert or collect it)."
        )
        raise ConfigError("The call", [Problem("table", message)])


def load(path: str | PathLike[str], **settings: str | None) -> Model:
    """The model in a file; see `seqjax.load_model`.

    Args:
      path: The file, or its name in models/ of the project, or best or last.
      settings: Keys of infer.yaml that say where the project is, which model is meant and what to run on.

    Raises:
      ArtifactError: There is no such file, or it is no model.
      ConfigError: There is no such device, or no training configuration where one is needed.
    """
    config = validate(InferConfig, {"model_path": str(path), **settings}, "load_model")
    return Model.opened(model_paths(config)[0], config)


def model_paths(config: InferConfig) -> list[Path]:
    """The model files that a configuration names.

    Raises:
      ArtifactError: There is no such file.
    """
    names = [config.model_path] if isinstance(config.model_path, str) else config.model_path
    return [
        resolve_model_path(
            config.project_root,
            name,
            kind=config.model_type,
            model_name=config.model_name,
            metadata=config.metadata_config_path,
        )
        for name in names
    ]


def _newest(source: Source) -> Source:
    """The last window of each sequence."""
    return replace(
        source, parts=lambda: (taken(part, last_windows(part)) for part in source.parts()), total=None
    )
