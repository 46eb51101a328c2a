"""A trained model that is ready to use: what `seqjax.load_model` returns, and what `seqjax infer` runs.

    model = seqjax.load_model("models/sequifier-shop-best-20.onnx")
    next_items = model.predict("data/shop.parquet", forecast_from="latest")

A table is a path or a frame (see `seqjax.inference.frames`): raw, in the documented input format, or
preprocessed. Options are the keys of infer.yaml that say what to predict, with their names and defaults;
those that say what the model runs on, and whether it drops, may be given when it is loaded as well. One that
cannot act is refused.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, Unpack, get_args

import polars as pl

from seqjax.artifacts.card import ModelCard
from seqjax.artifacts.layout import Which
from seqjax.artifacts.model_files import resolve_model_path
from seqjax.config.base import suggestion, validate
from seqjax.config.infer import InferConfig
from seqjax.config.keys import key_columns
from seqjax.config.metadata import Metadata
from seqjax.config.schema import DecimalMark, MissingReal, WindowFormat
from seqjax.data.table_files import FrameFile
from seqjax.errors import ConfigError, Problem
from seqjax.inference.assertions import contradictions, without_effect
from seqjax.inference.engine import AveragingEngine, Engine, ScanningEngine
from seqjax.inference.frames import FRAMES, frame_of, in_kind
from seqjax.inference.generate import last_windows
from seqjax.inference.inputs import Source, metadata_of, raw_source, source_of
from seqjax.inference.opening import card_from_training, open_engine
from seqjax.inference.tables import Output, Outputs, outputs
from seqjax.windows.windows import taken

Table: TypeAlias = Any
"""A frame, or the path of a file or folder; raw or preprocessed."""
Frame: TypeAlias = Any
"""A frame of the kind of the table; of polars, where that is a path."""


class EngineOptions(TypedDict, total=False):
    """Keys of `InferConfig` that say what a model runs on, and whether it drops."""

    device: str
    distributed: bool
    infer_with_dropout: bool
    dropout_samples: int | None
    seed: int


class DataOptions(EngineOptions, total=False):
    """Keys of `InferConfig` that say how data is read and what of it the model is shown, too."""

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


class ProbabilityOptions(DataOptions, total=False):
    """Keys of `InferConfig` that say whose distributions are asked for, too."""

    target_columns: list[str] | None
    predict_unknown: bool


class PredictOptions(ProbabilityOptions, total=False):
    """Keys of `InferConfig` that say what is predicted, too."""

    map_to_id: bool
    sample_from_distribution_columns: list[str] | None
    temperature: float
    top_k: int | None
    top_p: float | None


class GenerateOptions(PredictOptions, total=False):
    """Keys of `InferConfig` that say how predictions are fed back, too."""

    generation_cache: Literal["exact", "rolling"]
    autoregression_samples: int | None


class Model:
    """A generative or an embedding model."""

    def __init__(self, engine: Engine, name: str, origin: tuple[Path, InferConfig] | None = None) -> None:
        """Takes what runs the model.

        Args:
          engine: What runs it.
          name: What it is called in messages.
          origin: The file, and the configuration that it was opened with, for calls with other settings.
        """
        self._engine = engine
        self._origin = origin
        self._engines: dict[str, Engine] = {}
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
        return cls(_engine(path, config), path.name, (path, config))

    @property
    def card(self) -> ModelCard:
        """The description of the model: columns, architecture, maps, statistics, training."""
        return self._engine.card

    def predict(self, table: Table, **options: Unpack[PredictOptions]) -> Frame:
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
        return self._tables(table, options, PredictOptions)[Output("predictions")]

    def probabilities(self, table: Table, **options: Unpack[ProbabilityOptions]) -> dict[str, Frame]:
        """The distribution of each categorical target, by target.

        Args:
          table: The data.
          options: Keys of infer.yaml.

        Returns:
          Frames with id and time, then a column a class, called by its label; the rows are those of
          `predict`.
        """
        further = {"output_probabilities": True, "result_ids": True}
        tables = self._tables(table, options, ProbabilityOptions, further=further)
        return {output.target: frame for output, frame in tables.items() if output.kind == "probabilities"}

    def embed(self, table: Table, **options: Unpack[DataOptions]) -> Frame:
        """The hidden states at each window's last P positions; of an embedding model.

        Args:
          table: The data.
          options: Keys of infer.yaml.

        Returns:
          One row a hidden state: id, subsequenceId, time, then its components "0", "1", ...
        """
        further = {"model_type": "embedding"}
        return self._tables(table, options, DataOptions, further=further)[Output("embeddings")]

    def generate(self, table: Table, *, steps: int, **options: Unpack[GenerateOptions]) -> Frame:
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
        return self._tables(table, options, GenerateOptions, further=further)[Output("predictions")]

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

    def idle(self, config: InferConfig) -> Iterator[Problem]:
        """The options of a configuration that change nothing with the model."""
        yield from without_effect(config, self.card)
        if config.distributed and not self.name.endswith(".pt"):
            yield Problem(
                "distributed", "is of .pt models; onnxruntime has all cores of the processor anyway."
            )

    def _tables(
        self,
        table: Table,
        options: Mapping[str, object],
        known: type,
        *,
        further: Mapping[str, object] | None = None,
    ) -> dict[Output, Frame]:
        """The results, in the table's kind.

        Args:
          table: The data.
          options: Keys of infer.yaml, as the caller gave them.
          known: The `TypedDict` of those that act.
          further: Keys that the caller does not choose; continuing is of each sequence's newest window.
        """
        frame = frame_of(table)
        newest = "autoregression" in (further or {})
        _check_options(options, known, in_memory=frame is not None)
        config = validate(
            InferConfig,
            {
                "project_root": ".",
                "model_path": self.name,
                **self._opened_with(),
                "model_type": "generative",
                **options,
                **(further or {}),
            },
            "The call",
        )
        self.check(config, metadata_of(config))
        if problems := list(self.idle(config)):
            raise ConfigError("The call", problems)
        engine = self._engine_of(config, options)
        with self._source(table, frame, config) as source:
            parts = list(outputs(config, engine, _newest(source) if newest else source))
        return {output: in_kind(pl.concat([part[output] for part in parts]), table) for output in parts[0]}

    def _engine_of(self, config: InferConfig, options: Mapping[str, object]) -> Engine:
        """The engine of one call.

        Passes with dropout go on where the last call ended, and begin anew where the call has a seed.
        """
        given = EngineOptions.__annotations__.keys() & options.keys()
        only_draws = given == {"seed"} and not config.infer_with_dropout
        if self._origin is None or not given or only_draws:
            return self._engine
        settings = config.model_dump(include=given | {"device", "distributed", "dropout_samples"})
        key = repr((sorted(settings.items()), config.infer_with_dropout))
        if "seed" in given or key not in self._engines:
            self._engines[key] = _engine(self._origin[0], config)
        return self._engines[key]

    def _opened_with(self) -> dict[str, Any]:
        """The settings that the model was opened with, which calls have unless they say otherwise."""
        kept = {*EngineOptions.__annotations__, "project_root", "training_config_path"}
        return {} if self._origin is None else self._origin[1].model_dump(include=kept, exclude_unset=True)

    def _source(
        self, table: Table, frame: pl.DataFrame | None, config: InferConfig
    ) -> AbstractContextManager[Source]:
        if frame is not None:
            return raw_source(
                FrameFile(frame),
                self.card,
                stride=config.stride,
                missing_real=config.missing_real,
                missing_values=config.missing_values,
                decimal=config.decimal,
                keys=key_columns(config, self.card.keys),
            )
        if isinstance(table, str | PathLike):
            return source_of(config, metadata_of(config), Path(table), self.card)
        message = f"must be {FRAMES}, or a path (found a {type(table).__name__}: convert or collect it)."
        raise ConfigError("The call", [Problem("table", message)])


def _check_options(options: Mapping[str, object], known: type, *, in_memory: bool) -> None:
    """Raises a `ConfigError` for options that do not act."""
    keys, problems = list(known.__annotations__), []
    for name in options:
        if name not in keys and name in InferConfig.model_fields:
            problems.append(Problem(name, f"does not act here. {suggestion(name, keys, list_all=True)}"))
        elif name == "read_format" and in_memory:
            problems.append(Problem(name, "is of files; this table is in memory. Leave it out."))
    if problems:
        raise ConfigError("The call", problems)


def _engine(path: Path, config: InferConfig) -> Engine:
    """The engine of a model file, with the dropout that a configuration asks for."""
    engine = open_engine(
        path,
        partial(card_from_training, config, path),
        device=config.device,
        dropout_seed=config.seed if config.infer_with_dropout else None,
        distributed=config.distributed,
    )
    passes = config.dropout_samples
    return engine if passes is None else AveragingEngine(engine, passes)


def load(path: str | PathLike[str], **settings: object) -> Model:
    """The model in a file; see `seqjax.load_model`.

    Args:
      path: The file, or its name in models/ of the project, or best or last.
      settings: Keys of infer.yaml that say where the project is, which model is meant, what to run on and
        whether to drop; those that are None are left out.

    Raises:
      ArtifactError: There is no such file, or it is no model.
      ConfigError: There is no such device, an option cannot act, or there is no training configuration where
        one is needed.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    config = validate(
        InferConfig, {"model_path": str(path), "model_type": "generative", **given}, "load_model"
    )
    model = Model.opened(model_paths(config)[0], config)
    problems = list(model.idle(config))
    if config.model_name is not None and str(path) not in get_args(Which):
        problems.append(Problem("model_name", "is of best and last; this is a file."))
    if "model_type" in given and config.model_type != model.card.kind:
        message = f"the call says {config.model_type}, the model says {model.card.kind}."
        problems.append(Problem("model_type", message))
    if problems:
        raise ConfigError("load_model", problems)
    return model


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
