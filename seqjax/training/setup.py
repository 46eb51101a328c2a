"""From a configuration and windows to a run: feeds, the update, the schedule, the order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import jax
import numpy as np
from jaxtyping import Array, Int, Key

from seqjax.baselines import fit_baselines, predict_targets
from seqjax.config.optimization import schedule_length
from seqjax.config.schema import Schema
from seqjax.config.train import TrainConfig, TrainingSpec
from seqjax.errors import ConfigError, Problem, TrainingError
from seqjax.model.functional import GraphDef, abstract, layer_types
from seqjax.optim.optimizers import Optimizer, build_optimizer
from seqjax.optim.schedules import Schedule, build_schedule
from seqjax.training.devices import Device, compiler_options, memory_limit
from seqjax.training.evaluate import Evaluation, Evaluator, evaluate_side_by_side
from seqjax.training.events import RunState
from seqjax.training.feed import Feed, ResidentFeed, StreamedFeed, build_feed
from seqjax.training.freezing import frozen_parameters
from seqjax.training.metrics import measured_targets
from seqjax.training.objective import Target, build_targets, without_smoothing
from seqjax.training.placement import Placement
from seqjax.training.precision import FLOAT32, Precision, build_precision
from seqjax.training.state import Params, TrainState, new_state, to_host
from seqjax.training.step import Apply, Recipe, forward
from seqjax.windows.batches import Loader
from seqjax.windows.order import Order
from seqjax.windows.windows import Windows


@dataclass(frozen=True)
class Data:
    """The windows of a run, and in which batches they come."""

    training: Windows
    validation: Windows
    order: Callable[[int], Order]
    """Training batches of an epoch (counted from 1)."""
    validation_order: Order
    """Validation batches, every window once."""
    std: Mapping[str, float] = field(default_factory=dict)
    """Standard deviation of real columns, in whose units metrics are told."""
    loader: Callable[[Windows, tuple[str, ...]], Loader] = Loader
    """What gathers batches of data that does not fit on the device."""
    describe: Callable[[Int[np.ndarray, "n"]], str] | None = None
    """Says which training windows these are, for messages."""


@dataclass(frozen=True)
class Run:
    """What of a run is compiled, and what does not change from epoch to epoch."""

    recipe: Recipe
    """An update; its accumulation is in batches."""
    evaluator: Evaluator
    training: Feed
    validation: Feed
    order: Callable[[int], Order]
    """The training batches of an epoch (counted from 1)."""
    validation_order: Order
    learning_rate: Callable[[int, Sequence[float]], float]
    """The schedule, by its steps from 0 and the validation losses so far."""
    key: Key[Array, ""]
    """What dropout and rounding are drawn from."""
    precision: Precision = FLOAT32
    log_interval: int = 10
    """Batches between log lines."""
    step_on_batch: bool = False
    """Whether the schedule steps with batches rather than epochs."""
    momentum: Callable[[int], float] | None = None
    """The momentum by the schedule's steps, where the schedule moves it."""
    save_interval: int | None = None
    """Updates between pauses, at which the run may be saved."""
    placement: Placement = field(default_factory=Placement)
    """All devices to compute on."""
    describe: Callable[[Int[np.ndarray, "n"]], str] | None = None
    """Says which training windows these are, for messages."""

    def new_state(self, params: Params) -> TrainState:
        """What the first update consumes a copy of, from float32 parameters."""
        kept = self.precision.keep(params)
        return new_state(kept, self.recipe.optimizer, is_scaled=self.precision.is_scaled)

    def begin(self, params: Params) -> RunState:
        """The run before the first update, from float32 parameters."""
        state = to_host(self.new_state(params))
        return RunState(0, state, state.params)


def prepare(
    config: TrainConfig,
    schema: Schema,
    graphdef: GraphDef,
    data: Data,
    device: Device,
    *,
    like: Run | None = None,
    placement: Placement | None = None,
) -> Run:
    """Puts a run together; nothing is compiled yet.

    Args:
      config: What to train, and how.
      schema: Its columns.
      graphdef: The model.
      data: The windows.
      device: The device to compute on; must be jax's default device.
      like: Another run on the same data, whose copy of it on the device is used.
      placement: All devices to compute on; None is `device` alone.

    Raises:
      TrainingError: A split is empty.
      ConfigError: The schedule ends before the training.
    """
    spec = config.training_spec
    _check_data(config, data)
    placement = placement or Placement([device])
    targets = build_targets(schema, spec)
    precision = _precision(spec, graphdef, device)
    apply = forward(graphdef, schema.inputs, precision)
    n_batches = len(data.order(1))
    schedule = _schedule(spec, n_batches)
    optimizer = _optimizer(config, schema, schedule, graphdef)
    accumulation = min(spec.accumulation_steps or 1, n_batches)
    feeds = (like.training, like.validation) if like else None
    training, validation = feeds or _feeds(spec, schema, data, device, placement=placement)
    return Run(
        Recipe(apply, targets, optimizer, accumulation, spec.gradient_clip, spec.dropout),
        _evaluator(apply, without_smoothing(targets), spec, schema, data),
        training,
        validation,
        data.order,
        validation_order=data.validation_order,
        learning_rate=schedule,
        momentum=schedule.momentum,
        key=jax.random.key(config.seed % 2**32),
        precision=precision,
        log_interval=spec.log_interval,
        step_on_batch=spec.scheduler_step_on == "batch",
        save_interval=spec.save_interval_steps,
        placement=placement,
        describe=data.describe,
    )


def _precision(spec: TrainingSpec, graphdef: GraphDef, device: Device) -> Precision:
    layers = layer_types(graphdef)
    return build_precision(spec.layer_type_dtypes, autocast=spec.layer_autocast, device=device, layers=layers)


def _evaluator(
    apply: Apply, targets: tuple[Target, ...], spec: TrainingSpec, schema: Schema, data: Data
) -> Evaluator:
    return Evaluator(
        lambda params, batch: apply(params, batch, None),
        targets,
        {name: schema.n_classes[name] for name in spec.class_share_log_columns},
        measured_targets(schema, data.std),
    )


def _schedule(spec: TrainingSpec, n_batches: int) -> Schedule:
    steps = spec.epochs * (n_batches if spec.scheduler_step_on == "batch" else 1)
    return build_schedule(spec.scheduler, spec.learning_rate, total_steps=steps)


def _optimizer(config: TrainConfig, schema: Schema, schedule: Schedule, graphdef: GraphDef) -> Optimizer:
    spec, frozen = config.training_spec, frozenset()
    if spec.freeze:
        frozen = frozen_parameters(spec.freeze, abstract(schema, config.model_spec)[1], schema)
    linear = frozenset(path for path, kind in layer_types(graphdef).items() if kind == "linear")
    optimizer = build_optimizer(spec.optimizer, frozen=frozen, linear=linear)
    momentum = schedule.momentum
    return optimizer if momentum is None else optimizer.with_momentum(momentum(0))


def evaluate_baselines(run: Run, schema: Schema, data: Data) -> Mapping[str, Evaluation]:
    """Evaluates simple predictors, fitted on the training data, on the validation data; by name."""
    evaluator = Evaluator(predict_targets, run.evaluator.targets, measured=measured_targets(schema, data.std))
    fitted = fit_baselines(data.training, schema)
    return evaluate_side_by_side(evaluator, run.validation, data.validation_order, fitted)


def parameter_count(params: Params) -> int:
    """Number of scalars in the parameters."""
    return sum(int(leaf.size) for leaf in jax.tree.leaves(params))


def _feeds(
    spec: TrainingSpec, schema: Schema, data: Data, device: Device, *, placement: Placement
) -> tuple[Feed, Feed]:
    """Where training and validation batches come from; what stays on the device is within one limit."""
    limit = memory_limit(device, load_in_full=spec.load_full_data_to_ram, max_ram_gb=spec.max_ram_gb)
    columns = tuple(schema.columns)
    options = compiler_options(device, deterministic=spec.enforce_determinism, has_dropout=spec.dropout > 0)

    def feed(windows: Windows, taken: int) -> ResidentFeed | StreamedFeed:
        return build_feed(
            windows,
            columns,
            limit=None if limit is None else limit - taken,
            compiler_options=options,
            placement=placement,
            loader=data.loader(windows, columns),
        )

    training = feed(data.training, 0)
    return training, feed(data.validation, training.nbytes)


def _check_data(config: TrainConfig, data: Data) -> None:
    for name, windows in (("training", data.training), ("validation", data.validation)):
        if len(windows) == 0:
            raise TrainingError(f"The {name} data has no windows. Run preprocess with another split_ratios.")
    _check_schedule(config, len(data.order(1)))


def _check_schedule(config: TrainConfig, n_batches: int) -> None:
    spec = config.training_spec
    length, needed = schedule_length(spec.scheduler), spec.epochs * n_batches
    if spec.scheduler_step_on == "batch" and length is not None and length < needed:
        problem = (
            f"the schedule has {length} steps, but {spec.epochs} epochs of {n_batches} batches make "
            f"{needed}; set total_steps: {needed}."
        )
        raise ConfigError(
            f"The training configuration of {config.model_name!r}",
            [Problem("training_spec.scheduler.total_steps", problem)],
        )
