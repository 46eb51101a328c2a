"""A model's card: the description that its file holds of it.

The card travels inside the file (the ONNX metadata entry `seqjax`), as JSON. It holds the columns, the
architecture, the maps between values and ids, the statistics of real columns, the run's configuration and how
training ended, so that inference needs only the file and data. It knows no jax and no onnx.
"""

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Self, TypeVar

from pydantic import ConfigDict, Field, ValidationError

from seqjax.artifacts.layout import ModelKind
from seqjax.config.base import ConfigModel
from seqjax.config.keys import KeyColumns, key_columns
from seqjax.config.metadata import Metadata, Statistics
from seqjax.config.model import ModelSpec
from seqjax.config.names import Names
from seqjax.config.schema import ColumnRole, DecimalMark, MissingReal, Schema
from seqjax.config.train import SequifierConfig, TrainConfig
from seqjax.errors import ArtifactError
from seqjax.model.distributions import distribution_of
from seqjax.version import __version__

Output = TypeVar("Output")
Content = TypeVar("Content")

CARD_KEY = "seqjax"
EMBEDDING = "embedding"
_PACKAGES = ("jax", "flax", "jax2onnx", "onnx")
_PARAMETERS = "_params"


def installed_versions() -> dict[str, str]:
    """The versions of seqjax and of the packages that shape a model file, as far as they are installed."""
    versions = {"seqjax": __version__}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


class ModelCard(ConfigModel):
    """The description of a model file: its content, its inputs and its outputs."""

    # The JSON key is `schema`, which pydantic's base class already uses as the name of a method.
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    kind: ModelKind = "generative"
    """A generative model predicts the next item, an embedding model returns its hidden state."""
    column_schema: Schema = Field(alias="schema")
    """Input and target columns, their order, kinds and numbers of classes."""
    model_spec: ModelSpec
    id_maps: dict[str, dict[str, int]]
    """Value to id of each categorical column, from 2 up; 0 is unknown, 1 is other."""
    statistics: dict[str, Statistics]
    column_types: dict[str, str]
    """Type of each column as preprocessed."""
    value_types: dict[str, str] = Field(default_factory=dict)
    """Type of each categorical column's values in the table; text where it is not named."""
    missing_real: MissingReal = "error"
    """Meaning of a missing value in a real column, as `preprocess` was told."""
    column_roles: dict[str, ColumnRole] = Field(default_factory=dict)
    missing_values: list[str] = Field(default_factory=list)
    """Values that mean a missing one, besides the usual ones."""
    decimal: DecimalMark = "."
    """Of csv: what stands before the decimals of a number."""
    keys: KeyColumns = Field(default_factory=KeyColumns)
    """The table's own columns of ids and times, as `preprocess` was told."""
    train_config: dict[str, Any] = Field(default_factory=dict)
    """The resolved configuration of the run."""
    versions: dict[str, str] = Field(default_factory=installed_versions)
    best_epoch: int | None = None
    """The epoch of the lowest validation loss."""
    last_epoch: int | None = None
    validation_loss: float | None = None
    """The validation loss of these parameters."""
    dropout: float = 0.0
    """The probability with which training dropped."""
    embedding_layers: tuple[int, ...] | None = None
    """Of an embedding model: the layers whose outputs lie side by side in its own; None is the last alone."""
    inputs: tuple[str, ...] = ()
    """Names of the graph's column inputs, each (batch, seq_length): int64 ids, then float32 values."""
    valid_mask: str | None = None
    """Name of the graph's bool (batch, seq_length) input, false on padding; None where that is attended."""
    dropout_input: str | None = None
    """Name of the graph's optional float32 scalar input, the probability with which it drops; None where it
    drops nothing. Without a value for it, it drops as training did."""
    outputs: dict[str, str] = Field(default_factory=dict)
    """Name of the graph's output of each target (or of `embedding`)."""
    parameters: dict[str, str] = Field(default_factory=dict)
    """Name of a second output of each target of which a density is predicted: its parameters, (batch,
    prediction_length, W)."""

    @property
    def is_sequifiers(self) -> bool:
        """True if sequifier trained the model, and its file does not describe itself."""
        return not self.versions

    @property
    def min_history(self) -> int:
        """Number of items that come before each item that is scored; see `TrainConfig.min_history`."""
        return self.train_config.get("min_history", 1)

    def of_kind(self, kind: ModelKind, *, live_dropout: bool = False) -> Self:
        """The card of the same parameters exported as `kind`, with the names of its inputs and outputs.

        Args:
          kind: What is exported.
          live_dropout: Whether it is a graph that drops.
        """
        inputs = self.column_schema.inputs
        names = Names(inputs)
        ends: dict[str, Any] = {
            "inputs": inputs,
            "valid_mask": names.free("valid_mask") if self.model_spec.mask_padding else None,
            "dropout_input": names.free("dropout_rate") if live_dropout else None,
        }
        if kind == "embedding":
            ends |= {"outputs": {EMBEDDING: names.free(EMBEDDING)}, "parameters": {}}
        else:
            rows = {name: distribution_of(self.column_schema, name) for name in self.column_schema.targets}
            densities = [name for name, row in rows.items() if row.is_density]
            ends["outputs"] = {name: names.free(name + row.suffix) for name, row in rows.items()}
            ends["parameters"] = {name: names.free(name + _PARAMETERS) for name in densities}
        return self.model_copy(update={"kind": kind, **ends})

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of all of the graph's outputs, in order."""
        return (*self.outputs.values(), *self.parameters.values())

    def by_target(self, values: Iterable[Output]) -> dict[str, Output]:
        """The parameters of each target's distribution, from all of the graph's outputs in order."""
        return dict(zip((*self.outputs, *self.parameters), values, strict=True))

    def to_json(self) -> str:
        """The card as JSON."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str, source: str) -> Self:
        """Reads a card, or raises an `ArtifactError` that names `source`."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[:3]
            details = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in first)
            raise ArtifactError(
                f"{source}: its description of itself cannot be read by seqjax {__version__} "
                f"({details}). Export the model again, or use the version of seqjax that wrote it."
            ) from None


def describe_run(
    config: TrainConfig | SequifierConfig,
    schema: Schema,
    metadata: Metadata,
    *,
    best_epoch: int | None = None,
    last_epoch: int | None = None,
    validation_loss: float | None = None,
) -> ModelCard:
    """The card of a training run's parameters.

    Args:
      config: The run's configuration.
      schema: Its resolved columns.
      metadata: What preprocess wrote about the data.
      best_epoch: The epoch of the lowest validation loss.
      last_epoch: The last epoch that was trained.
      validation_loss: The validation loss of the parameters that the card describes.
    """
    columns, layers, states = schema.columns, config.embedding_layers, config.model_spec.num_layers + 1

    def own(by_column: Mapping[str, Content]) -> dict[str, Content]:
        return {name: content for name, content in by_column.items() if name in columns}

    return ModelCard(
        schema=schema,
        model_spec=config.model_spec,
        id_maps=own(config.id_maps or metadata.id_maps),
        statistics=own(metadata.selected_columns_statistics),
        column_types=own(config.column_types or metadata.column_types),
        value_types=own(metadata.value_types),
        missing_real=metadata.missing_real,
        column_roles={n: role for n, role in (metadata.column_roles or {}).items() if n in columns},
        missing_values=metadata.missing_values or [],
        decimal=metadata.decimal or ".",
        keys=key_columns(metadata),
        train_config=config.model_dump(mode="json"),
        dropout=config.training_spec.dropout,
        embedding_layers=None if layers is None else tuple(layer % states for layer in layers),
        best_epoch=best_epoch,
        last_epoch=last_epoch,
        validation_loss=validation_loss,
    )
