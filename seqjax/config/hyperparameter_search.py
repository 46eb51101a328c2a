"""The configuration of `seqjax hyperparameter-search`.

Most keys hold a list of values to try, or a range of numbers. Lists of one group are linked: the first key of
the group is its anchor, the others have a value for each of the anchor's, and the values at one place are
tried together. What a value may be is said in the training configuration; here only the values' types are
checked, so that a value that suits some combinations and not others stays possible. The keys that are the
same in all runs are the training configuration's own: `FixedRun`, `FixedModel` and `FixedTraining`.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from seqjax.config.base import ConfigModel, ShareBelowOne, refuse
from seqjax.config.changes import FREE, LOCAL
from seqjax.config.model import Activation, AttentionType, FixedModel, Normalization, PositionalEncoding
from seqjax.config.names import MAX_NAME_BYTES
from seqjax.config.optimization import NamedSpec, OptimizerSpec, SchedulerSpec
from seqjax.config.sampling import Range, Values, WholeRange, check_key, check_range
from seqjax.config.schema import ColumnType
from seqjax.config.train import FixedRun, FixedTraining, TrainingDevice, run_name
from seqjax.errors import Problem

Some = Field(min_length=1)

# Keys of one axis are linked. In sequifier's order: of two axes, the later one changes faster.
MODEL_AXES = (
    ("dim_model", "n_head", "initial_embedding_dim", "joint_embedding_dim", "feature_embedding_dims"),
    ("dim_feedforward",),
    ("num_layers",),
    ("activation_fn",),
    ("normalization",),
    ("positional_encoding",),
    ("attention_type",),
    ("norm_first",),
    ("n_kv_heads",),
    ("rope_theta",),
)
TRAINING_AXES = (
    ("learning_rate", "epochs", "scheduler"),
    ("batch_size",),
    ("dropout",),
    ("optimizer",),
    ("accumulation_steps",),
)
OUTER_AXES = (("input_columns", "column_types"), ("seq_length",))
SAMPLED = {
    "training_spec": ("training_hyperparameter_sampling", TRAINING_AXES),
    "model_spec": ("model_hyperparameter_sampling", MODEL_AXES),
}
"""Of each section of the training configuration: the section of the search instead of it, and its axes."""


def _linked(anchor: str, values: Any, info: ValidationInfo) -> Any:  # noqa: ANN401
    """`values`, if there is one for each value of the anchor; null stands for all of them.

    To the values of a range belongs one value, or another range.
    """
    expected = info.data.get(anchor)
    count = 1 if isinstance(expected, Range) else len(expected or ())
    if isinstance(values, list | tuple) and expected is not None and len(values) != count:
        raise ValueError(
            f"must have a value for each of {anchor}, {count} in all (found {len(values)}): they are "
            "tried together, place by place."
        )
    return values


def _sets(columns: Any) -> Any:  # noqa: ANN401
    """Sets of columns, where one set, or null for all columns, may be written as it is."""
    if columns is None or (isinstance(columns, list | tuple) and columns and isinstance(columns[0], str)):
        return [columns]
    return columns


# Before the values themselves are looked at: one that is missing says more than one that is wrong.
WITH_WIDTHS = BeforeValidator(partial(_linked, "dim_model"))
WITH_RATES = BeforeValidator(partial(_linked, "learning_rate"))
WITH_INPUTS = BeforeValidator(partial(_linked, "input_columns"))
RUNS_NAME = AfterValidator(partial(run_name, longest=MAX_NAME_BYTES - len(f"-run-{10**9}")))


class ModelSampling(FixedModel):
    """The architectures to try, and what is the same in all runs."""

    dim_model: Annotated[list[PositiveInt], Some]
    """Widths of the transformer; the next four keys belong to it, place by place."""
    n_head: Annotated[list[PositiveInt], WITH_WIDTHS]
    """Number of query heads for each dim_model."""
    initial_embedding_dim: Annotated[list[PositiveInt], WITH_WIDTHS]
    """Width of all column embeddings together for each dim_model."""
    joint_embedding_dim: Annotated[list[PositiveInt | None], WITH_WIDTHS]
    """For each dim_model: the same, or null."""
    feature_embedding_dims: Annotated[list[dict[str, PositiveInt] | None] | None, WITH_WIDTHS] = None
    """For each dim_model: embedding width of each input column; null shares initial_embedding_dim."""
    num_layers: Annotated[list[PositiveInt], Some] | WholeRange
    """Numbers of transformer layers."""
    dim_feedforward: Annotated[list[PositiveInt], Some] | WholeRange
    """Hidden widths of the feed-forward layers."""
    activation_fn: Annotated[list[Activation], Some]
    """Feed-forward activations."""
    normalization: Annotated[list[Normalization], Some]
    """Normalization layers."""
    norm_first: Annotated[list[bool], Some]
    """Normalize before attention and feed-forward (pre-norm) rather than after."""
    positional_encoding: Annotated[list[PositionalEncoding], Some]
    """Learned absolute positions, or rotary positions inside attention."""
    rope_theta: Annotated[list[PositiveFloat], Some] | Range
    """Bases of the rotary frequencies."""
    attention_type: Annotated[list[AttentionType], Some]
    """Multi-head, multi-query or grouped-query attention."""
    n_kv_heads: Annotated[list[PositiveInt | None], Some]
    """Numbers of key/value heads; one that does not divide n_head counts as null, which is n_head."""


class TrainingAxes(ConfigModel):
    """The ways of training to try."""

    learning_rate: Annotated[list[PositiveFloat], Some] | Range
    """Initial learning rates; the next two keys belong to it, place by place."""
    epochs: Annotated[list[PositiveInt] | WholeRange, WITH_RATES]
    """Maximum number of epochs for each learning_rate."""
    scheduler: Annotated[list[SchedulerSpec] | None, WITH_RATES] = None
    """Learning-rate schedule for each learning_rate; null keeps the rate constant."""
    batch_size: Annotated[list[PositiveInt], Some] | WholeRange
    """Windows per batch."""
    accumulation_steps: Annotated[list[PositiveInt], Some] | WholeRange
    """Batches that are averaged, as one large batch, into one update."""
    dropout: Annotated[tuple[ShareBelowOne, ...], Some] | Range = (0.0,)
    """Dropout probabilities."""
    optimizer: Annotated[tuple[OptimizerSpec, ...], Some] = (NamedSpec.of("Adam"),)
    """Optimizers by their torch names, with their keyword arguments."""


# The fields of the last base come first, as in TrainingSpec.
class TrainingSampling(FixedTraining, TrainingAxes):
    """The ways of training to try, and what is the same in all runs."""

    device: Annotated[TrainingDevice, LOCAL] = "auto"
    """auto (an accelerator where there is one), cpu, cuda, or mps."""


class HyperparameterSearchConfig(FixedRun):
    """Trains many models, each from a combination of the values to try, and compares them."""

    hp_search_name: Annotated[str, Some, RUNS_NAME]
    """Name of the search; its runs are called [NAME]-run-0, [NAME]-run-1, and so on."""
    model_config_write_path: str
    """Folder that each run's configuration is written into."""
    search_strategy: Literal["sample", "grid", "halving", "tpe"] = "sample"
    """sample tries n_samples random combinations; grid tries all of them; halving trains n_samples (or all)
    for a few epochs and the better ones for longer; tpe lets Optuna choose by the results so far."""
    n_samples: PositiveInt | None = None
    """Number of runs, all different; required for search_strategy: sample and tpe."""
    halving_factor: Annotated[int, Field(ge=2)] = 3
    """Of so many runs the best one is trained on, for so many times the epochs (halving)."""
    halving_min_epochs: PositiveInt = 1
    """Epochs that every run is trained for before the first selection (halving)."""
    seed: NonNegativeInt = 1010
    """Random seed, of drawing combinations and of every run."""
    engine: Annotated[Literal["vmap", "sequential", "ray"], FREE] = "vmap"
    """Way of training runs: vmap trains those of one architecture together; sequential trains one after the
    other; ray does as vmap does on the machines of a Ray cluster."""
    population_size: Annotated[PositiveInt | None, FREE] = None
    """Largest number of runs that are trained together; null takes as many as fit into memory."""
    population_runner: Annotated[Literal["auto", "vmap", "loop"], FREE] = "auto"
    """Way a device works on runs that are trained together: vmap all at once, loop with a program for one;
    auto goes by the device and by where the data is."""
    ray_address: Annotated[str | None, FREE] = None
    """Address of the Ray cluster; null takes RAY_ADDRESS, or starts one on this machine."""
    ray_resources: Annotated[dict[str, NonNegativeFloat], FREE] = Field(default_factory=lambda: {"CPU": 1.0})
    """Resources that each group of runs needs on a Ray machine, such as {CPU: 4, GPU: 1}."""
    ray_retries: Annotated[NonNegativeInt, FREE] = 3
    """Number of times that a group is started again whose Ray machine was lost."""
    override_input: Annotated[bool, FREE] = False
    """Do not ask before starting."""
    input_columns: Annotated[tuple[Annotated[list[str], Some] | None, ...], Some, BeforeValidator(_sets)] = (
        None,
    )
    """Sets of columns that the model sees, null being all; column_types belongs to it, place by place."""
    column_types: Annotated[list[dict[str, ColumnType]] | None, WITH_INPUTS] = None
    """Type of each column, for each set of input columns; null takes the metadata's."""
    categorical_columns: Annotated[list[list[str]] | None, FREE] = None
    """Has no effect: read so that sequifier's files are accepted."""
    real_columns: Annotated[list[list[str]] | None, FREE] = None
    """Has no effect: read so that sequifier's files are accepted."""
    seq_length: Annotated[list[PositiveInt], Some] | WholeRange
    """Lengths of the context window; at most that of the preprocessed data."""
    model_hyperparameter_sampling: ModelSampling
    """Architectures."""
    training_hyperparameter_sampling: TrainingSampling
    """Ways of training."""
    other_sampling: dict[str, Values] = Field(default_factory=dict)
    """Values to try of any other key of the training configuration, such as
    training_spec.optimizer.weight_decay."""

    @model_validator(mode="before")
    @classmethod
    def _types_name_the_columns(cls, values: Any) -> Any:  # noqa: ANN401
        types = values.get("column_types") if isinstance(values, Mapping) else None
        if isinstance(types, list) and values.get("input_columns") is None:
            sets = [list(some) if isinstance(some, Mapping) else None for some in types]
            return {**values, "input_columns": sets}
        return values

    @field_validator("n_samples")
    @classmethod
    def _samples_are_counted(cls, count: int | None, info: ValidationInfo) -> int | None:
        strategy = info.data.get("search_strategy")
        if count is None and strategy in {"sample", "tpe"}:
            raise ValueError(f"is required for search_strategy: {strategy} (or set search_strategy: grid).")
        return count

    @field_validator("other_sampling")
    @classmethod
    def _others_are_keys(cls, others: dict[str, Any]) -> dict[str, Any]:
        refuse(_key_problems(others))
        return others

    @field_validator(
        "seq_length", "model_hyperparameter_sampling", "training_hyperparameter_sampling", "other_sampling"
    )
    @classmethod
    def _all_can_be_counted(cls, values: Any, info: ValidationInfo) -> Any:  # noqa: ANN401
        strategy, count = info.data.get("search_strategy"), info.data.get("n_samples")
        if strategy == "grid" or (strategy == "halving" and count is None and "n_samples" in info.data):
            other = "sample" if strategy == "grid" else "halving with n_samples"
            message = f"a range has no end of values to try: set search_strategy: {other}."
            refuse(Problem(key, message) for key in _ranges_in(values))
        return values


def _key_problems(others: dict[str, Any]) -> Iterator[Problem]:
    elsewhere = _searched_elsewhere()
    for key, values in others.items():
        try:
            check_key(key, elsewhere)
            if isinstance(values, Range):
                check_range(key, values)
        except ValueError as error:
            yield Problem(key, str(error))


def _ranges_in(values: object) -> list[str]:
    """The keys of a section whose values are a range; an empty key where `values` is one."""
    if isinstance(values, Range):
        return [""]
    inside = values if isinstance(values, dict) else vars(values) if isinstance(values, ConfigModel) else {}
    return [key for key, value in inside.items() if isinstance(value, Range)]


def _searched_elsewhere() -> dict[str, str]:
    """The keys of the training configuration that are lists elsewhere in a search, and where."""
    places = {key: key for axis in OUTER_AXES for key in axis}
    for section, (sampling, axes) in SAMPLED.items():
        places |= {f"{section}.{key}": f"{sampling}.{key}" for axis in axes for key in axis}
    return places
