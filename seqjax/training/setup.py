"""From a configuration and windows to a run: feeds, compiled steps, schedule, order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import jax
import numpy as np
from jaxtyping import Int

from seqjax.baselines import fit_baselines
from seqjax.config.optimization import schedule_length
from seqjax.config.schema import Schema
from seqjax.config.train import TrainConfig, TrainingSpec
from seqjax.errors import ConfigError, Problem, TrainingError
from seqjax.model.functional import GraphDef, abstract
from seqjax.optim.optimizers import Optimizer, build_optimizer
from seqjax.optim.schedules import Schedule, build_schedule
from seqjax.training.baselines import predict_baseline
from seqjax.training.devices import Device, compiler_options, memory_limit
from seqjax.training.epoch import Setup
from seqjax.training.evaluate import Evaluation, Evaluator, build_evaluate, evaluate_side_by_side
from seqjax.training.feed import Feed, ResidentFeed, StreamedFeed, build_feed
from seqjax.training.freezing import frozen_parameters
from seqjax.training.metrics import measured_targets
from seqjax.training.objective import Target, build_targets, without_smoothing
from seqjax.training.placement import Placement
from seqjax.training.precision import Precision, build_precision
from seqjax.training.state import Params, TrainState, new_state
from seqjax.training.step import Apply, Recipe, build_step, forward
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
    """A run that is ready to start."""

    setup: Setup
    optimizer: Optimizer
    validation: Feed
    precision: Precision
    recipe: Recipe
    evaluator: Evaluator

    def begin(self, params: Params) -> TrainState:
        """The state before the first update, from float32 parameters."""
        kept = self.precision.keep(params)
        return new_state(kept, self.optimizer, is_scaled=self.precision.is_scaled)


def prepare(
    config: TrainConfig,
    schema: Schema,
    graphdef: GraphDef,
    data: Data,
    device: Device,
    *,
    beside: Run | None = None,
    placement: Placement | None = None,
    parts: int = 1,
) -> Run:
    """Puts a run together.

    Args:
      config: What to train, and how.
      schema: Its columns.
      graphdef: The model.
      data: The windows.
      device: The device to compute on; must be jax's default device.
      beside: Another run on the same data, whose copy of it on the device is used.
      placement: All devices to compute on; null is `device` alone.
      parts: Micro-batches into which each batch is cut, for want of memory.

    Raises:
      TrainingError: A split is empty.
      ConfigError: The schedule ends before the training.
    """
    spec = config.training_spec
    _check_data(config, data)
    placement = placement or Placement([device])
    targets = build_targets(schema, spec)
    evaluated = without_smoothing(targets)
    precision = build_precision(spec.layer_type_dtypes, autocast=spec.layer_autocast, device=device)
    apply = forward(graphdef, schema.inputs, precision)
    schedule = _schedule(spec, len(data.order(1)))
    optimizer = _optimizer(config, schema, schedule)
    accumulation = min(spec.accumulation_steps or 1, len(data.order(1)))
    feeds = (beside.setup.feed, beside.validation) if beside else None
    training, validation = feeds or _feeds(spec, schema, data, device, placement=placement)
    recipe = Recipe(apply, targets, optimizer, accumulation * parts, spec.gradient_clip, spec.dropout)
    evaluator = _evaluator(apply, evaluated, spec, schema, data)
    setup = Setup(
        feed=training,
        fold=training.fold(build_step(recipe)),
        order=data.order,
        learning_rate=schedule,
        momentum=schedule.momentum,
        evaluate=build_evaluate(evaluator, validation, smaller(data.validation_order, parts)),
        targets=evaluated,
        key=jax.random.key(config.seed % 2**32),
        accumulation=accumulation,
        parts=parts,
        log_interval=spec.log_interval,
        step_on_batch=spec.scheduler_step_on == "batch",
        save_interval=spec.save_interval_steps,
        placement=placement,
        describe=data.describe,
    )
    return Run(setup, optimizer, validation, precision, recipe, evaluator)


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


def _optimizer(config: TrainConfig, schema: Schema, schedule: Schedule) -> Optimizer:
    spec, frozen = config.training_spec, frozenset()
    if spec.freeze:
        frozen = frozen_parameters(spec.freeze, abstract(schema, config.model_spec)[1], schema)
    optimizer = build_optimizer(spec.optimizer, frozen=frozen)
    momentum = schedule.momentum
    return optimizer if momentum is None else optimizer.with_momentum(momentum(0))


def evaluate_baselines(run: Run, schema: Schema, data: Data) -> Mapping[str, Evaluation]:
    """What simple predictors, fitted on the training data, reach on the validation data, by name."""
    evaluator = Evaluator(predict_baseline, run.setup.targets, measured=measured_targets(schema, data.std))
    fitted = fit_baselines(data.training, schema)
    return evaluate_side_by_side(evaluator, run.validation, data.validation_order, fitted)


def smaller(order: Order, parts: int) -> Order:
    """An order whose batches are a part as large."""
    return replace(order, batch_size=-(-order.batch_size // parts))


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
