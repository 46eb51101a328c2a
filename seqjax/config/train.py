"""The configuration of `seqjax train`."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
)

from seqjax.config.base import ConfigModel, ShareBelowOne, refuse, suggestion
from seqjax.config.changes import FREE, LOCAL, RESUMABLE, TRACED
from seqjax.config.model import DTypeName, LayerType, ModelSpec
from seqjax.config.names import MAX_NAME_BYTES, checked_name
from seqjax.config.optimization import (
    CRITERIA,
    NamedSpec,
    OptimizerSpec,
    SchedulerSpec,
    criteria_of,
    cycles_momentum,
    has_momentum,
    schedule_length,
)
from seqjax.config.schema import ColumnKind, ColumnType, HeadName, WindowFormat, usual_head
from seqjax.errors import Problem


def _known_device(device: str) -> str:
    if device.split(":")[0] not in {"auto", "cpu", "cuda", "mps"}:
        raise ValueError(f"must be auto, cpu, cuda or mps (found {device!r}).")
    return device


def run_name(name: str, longest: int = MAX_NAME_BYTES) -> str:
    """The name of a run, if files can be called after it; raises `ValueError` otherwise.

    Args:
      name: The name.
      longest: How many bytes it may have in UTF-8.
    """
    checked_name(name, longest)
    if "embedding" in name:
        raise ValueError(
            f"must not contain 'embedding', which marks exported embedding models (found {name!r})."
        )
    return name


TrainingDevice = Annotated[str, AfterValidator(_known_device)]


class VariedTraining(ConfigModel):
    """The training of one run: the keys of which a search tries several values."""

    epochs: Annotated[PositiveInt, RESUMABLE]
    """Maximum number of epochs."""
    batch_size: PositiveInt
    """Windows per batch."""
    learning_rate: Annotated[PositiveFloat, TRACED]
    """Initial learning rate."""
    optimizer: Annotated[OptimizerSpec, TRACED] = NamedSpec.of("Adam")
    """Optimizer by its torch name, with its keyword arguments: Adam, AdamW, SGD, AdEMAMix, and others."""
    scheduler: Annotated[SchedulerSpec, TRACED] = NamedSpec.of("StepLR", step_size=1, gamma=1.0)
    """Learning-rate schedule by its torch name, with its keyword arguments: StepLR (the default keeps the
    rate constant), CosineAnnealingLR, OneCycleLR, and others."""
    dropout: Annotated[ShareBelowOne, TRACED] = 0.0
    """Dropout probability."""
    accumulation_steps: PositiveInt | None = None
    """Batches that are averaged, as one large batch, into one update."""

    @field_validator("scheduler")
    @classmethod
    def _momentum_can_be_moved(cls, scheduler: NamedSpec, info: ValidationInfo) -> NamedSpec:
        optimizer = info.data.get("optimizer")
        if cycles_momentum(scheduler) and optimizer is not None and not has_momentum(optimizer):
            raise ValueError(
                f"{scheduler.name} moves momentum too, but {optimizer.name} has neither momentum nor betas: "
                "set cycle_momentum: false."
            )
        return scheduler


class FixedTraining(ConfigModel):
    """The training of runs: the keys that are the same in all runs of a search."""

    device: Annotated[TrainingDevice, LOCAL]
    """auto (an accelerator where there is one), cpu, cuda, or mps."""
    criterion: dict[str, str]
    """Loss of each target column, such as CrossEntropyLoss (categorical) or MSELoss (real)."""
    save_interval_epochs: Annotated[PositiveInt, FREE]
    """Save a checkpoint every so many epochs."""
    save_interval_minutes: Annotated[PositiveFloat | None, FREE] = None
    """Save one every so many minutes too, in the middle of an epoch; null does not."""
    save_interval_steps: Annotated[PositiveInt | None, FREE] = None
    """Save one every so many updates too; null does not."""
    keep_checkpoints: Annotated[PositiveInt | None, FREE] = 3
    """Number of a run's newest checkpoints that are kept (each holds the best parameters so far); null keeps
    all."""
    continue_training: Annotated[bool, FREE] = True
    """Continue a run from its newest checkpoint, if there is one; false starts it anew."""
    early_stopping_epochs: Annotated[PositiveInt | None, RESUMABLE] = None
    """Stop when the validation loss has not improved for so many epochs."""
    scheduler_step_on: Annotated[Literal["epoch", "batch"], TRACED] = "epoch"
    """Step the schedule after every epoch, or after every batch."""
    gradient_clip: Annotated[PositiveFloat | None, TRACED] = 0.5
    """Largest global gradient norm; null does not clip."""
    loss_weights: Annotated[dict[str, NonNegativeFloat] | None, TRACED] = None
    """Weight of each target's loss in the sum; null weighs all by 1."""
    class_weights: Annotated[dict[str, list[NonNegativeFloat]] | None, TRACED] = None
    """Weight of each class (ids 0 and 1 included) of categorical targets."""
    label_smoothing: Annotated[ShareBelowOne | dict[str, ShareBelowOne], TRACED] = 0.0
    """Share of the truth that training spreads over all classes: for all categorical targets, or for each."""
    huber_delta: Annotated[PositiveFloat | dict[str, PositiveFloat], TRACED] = 1.0
    """Error from which HuberLoss is linear: for all such targets, or for each."""
    smooth_l1_beta: Annotated[PositiveFloat | dict[str, PositiveFloat], TRACED] = 1.0
    """Error from which SmoothL1Loss is linear: for all such targets, or for each."""
    freeze: tuple[str, ...] = ()
    """Parameters that are not trained, by sequifier's names, such as encoder.price.weight; * is anything."""
    warm_start: Annotated[Annotated[str, Field(min_length=1)] | None, RESUMABLE] = None
    """A .pt file, or the folder of a checkpoint, whose parameters a new run starts from."""
    warm_start_strict: Annotated[bool, RESUMABLE] = True
    """True if the file must hold exactly the parameters of this model; false takes what fits by name."""
    select_on: Literal["predicted", "all"] = "predicted"
    """Positions of validation windows that the best epoch and early stopping go by: those that inference
    uses, the newest prediction_length of each window, or all."""
    log_interval: Annotated[PositiveInt, FREE] = 10
    """Log every so many batches."""
    log_to: Annotated[tuple[Literal["tensorboard"], ...], FREE] = ()
    """Logs besides text and JSON lines: tensorboard (event files in logs/tensorboard)."""
    class_share_log_columns: Annotated[tuple[str, ...], LOCAL] = ()
    """Categorical targets whose predicted class shares are logged after each validation."""
    enforce_determinism: Annotated[bool, LOCAL] = False
    """Insist on deterministic operations (slower on accelerators)."""
    load_full_data_to_ram: Annotated[bool, LOCAL] = True
    """Load the data into memory; false reads windows from disk as they are needed."""
    max_ram_gb: Annotated[PositiveFloat, LOCAL] = 16
    """Memory limit in GB for cached data when it is not loaded in full."""
    num_workers: Annotated[NonNegativeInt, LOCAL] = 0
    """Threads that prepare batches."""
    distributed: Annotated[bool, LOCAL] = False
    """Train on all devices, of all hosts where the run was started on several."""
    world_size: Annotated[PositiveInt | None, FREE] = None
    """Number of devices that a distributed run expects; null takes all there are."""
    layer_type_dtypes: dict[LayerType, DTypeName] | None = None
    """Number format in which each kind of layer keeps its parameters and computes; null is float32."""
    layer_autocast: bool | None = True
    """Compute in bfloat16 on accelerators that have it where layer_type_dtypes does not say otherwise; null
    is false."""
    backend: Annotated[str, FREE] = "nccl"
    """Has no effect: read so that sequifier's files are accepted."""
    device_max_concat_length: Annotated[int, FREE] = 12
    """Has no effect: read so that sequifier's files are accepted."""


# The fields of the last base come first, so that the scheduler is known when scheduler_step_on is checked.
class TrainingSpec(FixedTraining, VariedTraining):
    """The training of the model."""

    @field_validator("scheduler_step_on")
    @classmethod
    def _schedule_is_long_enough(cls, step_on: str, info: ValidationInfo) -> str:
        scheduler, epochs = info.data.get("scheduler"), info.data.get("epochs")
        if step_on == "batch" and scheduler is not None and scheduler.name == "ReduceLROnPlateau":
            raise ValueError("must be epoch with ReduceLROnPlateau, which looks at the validation loss.")
        length = schedule_length(scheduler) if scheduler is not None else None
        if step_on == "epoch" and length is not None and epochs is not None and length < epochs:
            raise ValueError(
                f"epoch needs a schedule of at least epochs ({epochs}) steps, but the scheduler's total is "
                f"{length}: set total_steps: {epochs}, or scheduler_step_on: batch."
            )
        return step_on


class FixedTargets(ConfigModel):
    """Data and targets: the keys that describe a model, and are the same in all runs of a search."""

    project_root: Annotated[str, LOCAL]
    """Root folder of the project; relative paths start here. Usually '.'."""
    metadata_config_path: str
    """The JSON file that preprocess wrote: configs/metadata_configs/[NAME].json."""
    training_data_path: str | None = None
    """Training data; null is split 0 of the metadata."""
    validation_data_path: str | None = None
    """Validation data; null is split 1 of the metadata (or the only one)."""
    read_format: WindowFormat | None = None
    """Format of the preprocessed data; null takes the metadata's, parquet where it says none."""
    target_columns: Annotated[list[str], Field(min_length=1)]
    """Columns that the model learns to predict."""
    target_column_types: dict[str, ColumnKind]
    """Kind of each target column: categorical or real."""
    n_classes: dict[str, int] | None = None
    """Number of classes of each categorical column; null takes the metadata's."""
    id_maps: dict[str, dict[str, int]] | None = None
    """Value to id of each categorical column; null takes the metadata's."""

    @field_validator("target_column_types")
    @classmethod
    def _types_match_targets(
        cls, types: dict[str, ColumnKind], info: ValidationInfo
    ) -> dict[str, ColumnKind]:
        targets = info.data.get("target_columns")
        if targets is not None and set(types) != set(targets):
            raise ValueError(f"must name the target_columns {targets} (found {list(types)}).")
        return types


class FixedRun(FixedTargets):
    """The keys of scores and exports, which are the same in all runs of a search, too."""

    min_history: NonNegativeInt = 1
    """Items that must come before an item in its window for it to be trained on and scored; 0 predicts the
    first item of a sequence from padding alone."""
    baseline_period: Annotated[PositiveInt | dict[str, PositiveInt] | None, FREE] = None
    """Items after which real targets repeat themselves, for the seasonal baseline: of all, or of each; null
    looks for it in the training data."""
    export_generative_model: Annotated[bool, FREE]
    """Export the model that predicts the next item."""
    export_embedding_model: Annotated[bool, FREE]
    """Export the model that returns the last hidden state."""
    export_onnx: Annotated[bool, FREE] = True
    """Export as .onnx."""
    export_pt: Annotated[bool, FREE] = False
    """Export as a torch .pt file, which sequifier reads too, unless a density is predicted."""
    export_with_dropout: Annotated[bool, FREE] = False
    """Export ONNX models that can drop, for Monte Carlo estimates (infer_with_dropout)."""
    inference_batch_size: Annotated[PositiveInt, FREE]
    """Batch size with which exported models are checked; they take any."""


class ModelKeys(FixedTargets):
    """The keys of a training configuration that say which model comes out of it."""

    input_columns: list[str] | None = None
    """Columns that the model sees; null takes all of the metadata."""
    column_types: dict[str, ColumnType] | None = None
    """Type of each column; null takes the metadata's."""
    seq_length: PositiveInt
    """Length of the context window; at most that of the preprocessed data."""
    embedding_layers: Annotated[Annotated[list[int], Field(min_length=1)] | None, FREE] = None
    """Layers whose outputs the embedding model returns side by side, 0 (what the first layer reads) to
    num_layers, or -1 (the last) down; null returns what the heads read, as the last layer does."""
    model_spec: ModelSpec
    """Architecture."""

    @field_validator("model_spec")
    @classmethod
    def _spec_fits_columns(cls, spec: ModelSpec, info: ValidationInfo) -> ModelSpec:
        refuse(_column_problems(spec, info.data))
        return spec

    @property
    def target_heads(self) -> dict[str, HeadName]:
        """The head of each target."""
        return {name: usual_head(kind) for name, kind in self.target_column_types.items()}


class TrainConfig(ModelKeys, FixedRun):
    """Trains a causal transformer on preprocessed data and exports it."""

    model_name: Annotated[str, Field(min_length=1), AfterValidator(run_name), FREE]
    """Name of this run: the models, checkpoints and logs carry it."""
    categorical_columns: Annotated[list[str] | None, FREE] = None
    """Has no effect: read so that the files that sequifier's search writes are accepted."""
    real_columns: Annotated[list[str] | None, FREE] = None
    """Has no effect: read so that the files that sequifier's search writes are accepted."""
    seed: Annotated[NonNegativeInt, TRACED] = 1010
    """Random seed."""
    training_spec: TrainingSpec
    """Training."""

    @field_validator("training_spec")
    @classmethod
    def _spec_fits_targets(cls, spec: TrainingSpec, info: ValidationInfo) -> TrainingSpec:
        types = info.data.get("target_column_types")
        if types is not None:
            refuse([*_target_problems(spec, types), *_argument_problems(spec)])
        return spec

    @property
    def target_heads(self) -> dict[str, HeadName]:
        """The head of each target, which its loss trains."""
        return {name: CRITERIA[self.training_spec.criterion[name]] for name in self.target_column_types}


class DroppedInTraining(ConfigModel):
    """The key of `training_spec` that inference uses, beside any others."""

    model_config = ConfigDict(extra="ignore")

    dropout: ShareBelowOne = 0.0


class SequifierConfig(ModelKeys):
    """A configuration that sequifier trained with, as far as it describes the model.

    Whatever concerns training alone, such as an optimizer that is not here, is not looked at.
    """

    model_config = ConfigDict(extra="ignore")

    training_spec: DroppedInTraining = DroppedInTraining()


def _column_problems(spec: ModelSpec, config: Mapping[str, Any]) -> Iterator[Problem]:
    inputs, dims = config.get("input_columns"), spec.feature_embedding_dims
    if inputs is not None and dims is not None and set(dims) != set(inputs):
        yield Problem("feature_embedding_dims", f"must name the input_columns {inputs} (found {list(dims)}).")
    layers = range(-spec.num_layers - 1, spec.num_layers + 1)
    missing = [layer for layer in config.get("embedding_layers") or () if layer not in layers]
    if missing:
        yield Problem(
            "num_layers",
            f"is {spec.num_layers}, so embedding_layers must be from {layers[0]} to {layers[-1]} "
            f"(found {missing}).",
        )
    length = config.get("seq_length")
    if length is not None and spec.prediction_length > length:
        message = f"must be at most seq_length, {length} (found {spec.prediction_length})."
        yield Problem("prediction_length", message)


def _target_problems(spec: TrainingSpec, types: dict[str, ColumnKind]) -> Iterator[Problem]:
    for key, columns in (("criterion", spec.criterion), ("loss_weights", spec.loss_weights)):
        if columns is not None and set(columns) != set(types):
            yield Problem(key, f"must name the target_columns {list(types)} (found {list(columns)}).")
    for target, name in spec.criterion.items():
        kind = types.get(target)
        allowed = criteria_of(kind) if kind else (name,)
        if name not in allowed:
            message = f"{name!r} is no loss of a {kind} target. {suggestion(name, allowed)}"
            yield Problem(f"criterion.{target}", message)
    categorical = [name for name, kind in types.items() if kind == "categorical"]
    for key in ("class_weights", "class_share_log_columns"):
        wrong = [name for name in getattr(spec, key) or () if name not in categorical]
        if wrong:
            yield Problem(key, f"must name categorical targets {categorical} (found {wrong}).")


def _argument_problems(spec: TrainingSpec) -> Iterator[Problem]:
    for key, criteria in (
        ("label_smoothing", criteria_of("categorical")),
        ("huber_delta", ("HuberLoss",)),
        ("smooth_l1_beta", ("SmoothL1Loss",)),
    ):
        arguments = getattr(spec, key)
        targets = [target for target, name in spec.criterion.items() if name in criteria]
        wrong = [name for name in arguments if name not in targets] if isinstance(arguments, dict) else []
        if wrong:
            yield Problem(key, f"must name targets with {' or '.join(criteria)} {targets} (found {wrong}).")
