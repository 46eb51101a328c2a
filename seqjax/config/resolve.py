"""The columns of a model, from a training configuration and the metadata of its data.

A configuration's `column_types`, `n_classes` and `id_maps` take the place of the metadata's where they are
given.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from seqjax.config.base import suggestion, validate
from seqjax.config.metadata import Metadata
from seqjax.config.schema import ColumnKind, Schema, kind_of, usual_head
from seqjax.config.train import ModelKeys, TrainConfig
from seqjax.errors import ConfigError, DataError, Problem


def load_metadata(path: Path) -> Metadata:
    """Reads the JSON file that preprocess wrote.

    Raises:
      DataError: It is missing, is no JSON, or does not hold what it should.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist. Run 'seqjax preprocess' first, and set metadata_config_path to the file "
            "that it wrote into configs/metadata_configs."
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON file ({error}). Run 'seqjax preprocess' again.") from None
    if not isinstance(values, dict):
        raise DataError(f"{path} holds no metadata: it must be a JSON object. Run 'seqjax preprocess' again.")
    try:
        return validate(Metadata, values, str(path))
    except ConfigError as error:
        raise DataError(f"{error}\nRun 'seqjax preprocess' again, or correct the file.") from None


def resolve_schema(config: ModelKeys, metadata: Metadata) -> Schema:
    """The columns of a run.

    Columns are in the order of the metadata, categorical inputs first; targets in that of `target_columns`.

    Raises:
      ConfigError: with everything about the columns that cannot be.
    """
    columns = _Columns(config, metadata)
    problems = [*columns.name_problems(), *columns.class_problems(), *columns.width_problems()]
    if isinstance(config, TrainConfig):
        problems += _weight_problems(config, metadata)
    if metadata.seq_length is not None and config.seq_length > metadata.seq_length:
        longest = f"must be at most that of the preprocessed data, {metadata.seq_length}"
        problems.append(Problem("seq_length", f"{longest} (found {config.seq_length})."))
    if problems:
        name = f" of {config.model_name!r}" if isinstance(config, TrainConfig) else ""
        raise ConfigError(f"The training configuration{name}", problems)
    return columns.schema()


class _Columns:
    """The columns of a configuration, checked piece by piece; unknown ones are left out of later checks."""

    def __init__(self, config: ModelKeys, metadata: Metadata) -> None:
        self._config = config
        types = config.column_types or metadata.column_types
        self._stored = list(metadata.column_types)
        self._kinds: dict[str, ColumnKind] = {name: kind_of(type_) for name, type_ in types.items()}
        self._n_classes = config.n_classes or metadata.n_classes
        wanted = self._kinds if config.input_columns is None else config.input_columns
        self._inputs = {
            kind: tuple(name for name, other in self._kinds.items() if name in wanted and other == kind)
            for kind in ("categorical", "real")
        }
        masked = metadata.missing if metadata.missing_real == "mask" else {}
        self._masked = tuple(name for name in self._inputs["real"] if name in masked)
        targets = [name for name in config.target_columns if self._kinds.get(name) == "categorical"]
        self._categorical = list(dict.fromkeys((*self._inputs["categorical"], *targets)))

    def schema(self) -> Schema:
        """The resolved columns, once there are no problems."""
        targets: dict[str, ColumnKind] = {name: self._kinds[name] for name in self._config.target_columns}
        heads = self._config.target_heads
        return Schema(
            n_classes={name: self._n_classes[name] for name in self._categorical},
            categorical_inputs=self._inputs["categorical"],
            real_inputs=self._inputs["real"],
            targets=targets,
            seq_length=self._config.seq_length,
            heads={name: heads[name] for name in targets if heads[name] != usual_head(targets[name])},
            masked_inputs=self._masked,
        )

    def name_problems(self) -> Iterator[Problem]:
        """Columns that the data does not have, that are named twice, or that are of another kind."""
        inputs = self._config.input_columns
        if inputs == []:
            yield Problem("input_columns", "must name a column; leave it out to use all of them.")
        for key, names in (("input_columns", inputs or []), ("target_columns", self._config.target_columns)):
            for index, name in enumerate(names):
                if name not in self._kinds:
                    yield Problem(f"{key}.{index}", self._why_unknown(name))
                elif name in names[:index]:
                    yield Problem(f"{key}.{index}", f"names {name!r} a second time.")
        for name, kind in self._config.target_column_types.items():
            stored = self._kinds.get(name, kind)
            if kind != stored:
                message = f"must be {stored}, as the data is (found {kind})."
                yield Problem(f"target_column_types.{name}", message)

    def _why_unknown(self, name: str) -> str:
        if name in self._stored:
            return f"column_types does not name {name!r}: give its type there too, or leave column_types out."
        return f"the data has no column {name!r}. {suggestion(name, self._stored)}"

    def class_problems(self) -> Iterator[Problem]:
        """Numbers of classes that are missing."""
        for name in self._categorical:
            if name not in self._n_classes:
                message = f"neither the configuration nor the metadata has that of {name!r}."
                yield Problem("n_classes", message)

    def width_problems(self) -> Iterator[Problem]:
        """Embedding widths that do not fit the input columns."""
        spec, key = self._config.model_spec, "model_spec.feature_embedding_dims"
        total, dims = spec.initial_embedding_dim, spec.feature_embedding_dims
        inputs = [*self._inputs["categorical"], *self._inputs["real"]]
        if dims is not None:
            # Otherwise the configuration has compared the two by itself.
            if self._config.input_columns is None and set(dims) != set(inputs):
                yield Problem(key, f"must name the columns of the data, {inputs} (found {list(dims)}).")
        elif len(inputs) > total:
            yield Problem(
                "model_spec.initial_embedding_dim",
                f"must be at least the number of input columns, {len(inputs)} (found {total}).",
            )


def _weight_problems(config: TrainConfig, metadata: Metadata) -> Iterator[Problem]:
    """Class weights that are not one a class."""
    n_classes = config.n_classes or metadata.n_classes
    for name, weights in (config.training_spec.class_weights or {}).items():
        count = n_classes.get(name, len(weights))
        if len(weights) != count:
            more = (
                " This data was made with fit_on: train, by which only values of the training split are "
                "classes; weights of all values of the table, as sequifier has them, need fit_on: all in "
                "preprocess."
                if len(weights) > count and metadata.fit_on == "train"
                else ""
            )
            yield Problem(
                f"training_spec.class_weights.{name}",
                f"must hold a weight for each of the {count} classes, ids 0 (unknown) and 1 (other) "
                f"included (found {len(weights)}).{more}",
            )
