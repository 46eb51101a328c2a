"""From a configuration and windows to a run: feeds, the update, the schedule, the order."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from types import MappingProxyType
from typing import TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Int, Key

from seqjax.baselines import Periods, fit_baselines, periods_of, predict_targets
from seqjax.config.base import suggestion
from seqjax.config.optimization import schedule_length
from seqjax.config.schema import Schema
from seqjax.config.train import TrainConfig, TrainingSpec
from seqjax.errors import ConfigError, Problem, TrainingError
from seqjax.model.functional import GraphDef, abstract, layer_types
from seqjax.optim.optimizers import Optimizer, build_optimizer
from seqjax.optim.rule import Path
from seqjax.optim.schedules import Schedule, build_schedule
from seqjax.training.devices import Device, compiler_options, memory_limit
from seqjax.training.evaluate import (
    BEST_OF_EACH,
    Evaluation,
    Evaluator,
    Shared,
    combined,
    evaluate_side_by_side,
    measured_targets,
)
from seqjax.training.events import RunState
from seqjax.training.feed import Feed, ResidentFeed, StreamedFeed, fits
from seqjax.training.objective import build_targets, without_smoothing
from seqjax.training.placement import Placement, to_host
from seqjax.training.precision import FLOAT32, Precision, build_precision
from seqjax.training.step import Apply, Params, Recipe, TrainState, forward, new_state
from seqjax.windows.batches import Loader
from seqjax.windows.order import Order
from seqjax.windows.windows import Windows

Splits: TypeAlias = tuple[Windows, Windows]
"""The training and the validation windows."""

logger = logging.getLogger(__name__)

_WINDOWS_TO_NAME = 8


@dataclass(frozen=True)
class Run:
    """The compiled parts of a run, and the parts that do not change from epoch to epoch."""

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
    """The key that dropout and rounding are drawn from."""
    precision: Precision = FLOAT32
    log_interval: int = 10
    """Batches between log lines."""
    step_on_batch: bool = False
    """True if the schedule steps with batches rather than epochs."""
    momentum: Callable[[int], float] | None = None
    """The momentum by the schedule's steps, where the schedule moves it."""
    save_interval: int | None = None
    """Updates between pauses, at which the run may be saved."""
    placement: Placement = field(default_factory=Placement)
    describe: Callable[[Int[np.ndarray, "n"]], str] | None = None
    """Says which training windows these are, for messages."""

    def new_state(self, params: Params) -> TrainState:
        """The state before the first update, which consumes a copy, from float32 parameters."""
        kept = self.precision.keep(params)
        return new_state(kept, self.recipe.optimizer, is_scaled=self.precision.is_scaled)

    def begin(self, params: Params) -> RunState:
        """The run before the first update, from float32 parameters."""
        state = to_host(self.new_state(params))
        return RunState(0, state, state.params)

    def batches_done(self, state: RunState) -> int:
        """Batches that are done of the epoch that is under way."""
        updates = 0 if state.progress is None else state.progress.updates
        return min(updates * self.recipe.accumulation, len(self.order(1)))


def prepare(
    config: TrainConfig,
    schema: Schema,
    graphdef: GraphDef,
    splits: Splits,
    device: Device,
    *,
    units: Mapping[str, float] = MappingProxyType({}),
    like: Run | None = None,
    placement: Placement | None = None,
    shared: Shared | None = None,
) -> Run:
    """Puts a run together; nothing is compiled yet.

    Args:
      config: What to train, and how.
      schema: Its columns.
      graphdef: The model.
      splits: The training and the validation windows.
      device: The device to compute on; must be jax's default device.
      units: `Statistics.unit` of real columns, in which metrics are told.
      like: Another run on the same data, whose copy of it on the device is used.
      placement: All devices to compute on; None is `device` alone.
      shared: By what the run is compared with others; None is its loss.

    Raises:
      TrainingError: A split is empty.
      ConfigError: The schedule ends before the training.
    """
    spec = config.training_spec
    order, validation_order = _orders(config, splits)
    n_batches = len(order(1))
    placement = placement or Placement([device])
    autocast, layers = bool(spec.layer_autocast), layer_types(graphdef)
    precision = build_precision(spec.layer_type_dtypes, autocast=autocast, device=device, layers=layers)
    targets, apply = build_targets(schema, spec), forward(graphdef, schema.inputs, precision)
    steps = spec.epochs * (n_batches if spec.scheduler_step_on == "batch" else 1)
    schedule = build_schedule(spec.scheduler, spec.learning_rate, total_steps=steps)
    optimizer, accumulation = _optimizer(config, schema, schedule, graphdef), spec.accumulation_steps or 1
    known = (like.training, like.validation) if like else None
    training, validation = known or _feeds(spec, schema, splits, device, placement=placement)
    return Run(
        Recipe(apply, targets, optimizer, min(accumulation, n_batches), spec.gradient_clip, spec.dropout),
        _evaluator(config, schema, apply, units, shared),
        training,
        validation,
        order,
        validation_order=validation_order,
        learning_rate=schedule,
        momentum=schedule.momentum,
        key=jax.random.key(config.seed % 2**32),
        precision=precision,
        log_interval=spec.log_interval,
        step_on_batch=spec.scheduler_step_on == "batch",
        save_interval=spec.save_interval_steps,
        placement=placement,
        describe=partial(_described, splits[0]),
    )


def _evaluator(
    config: TrainConfig, schema: Schema, apply: Apply, units: Mapping[str, float], shared: Shared | None
) -> Evaluator:
    """The evaluation of a run, which goes by the plain losses of its targets."""
    spec = config.training_spec
    return Evaluator(
        lambda params, batch: apply(params, batch, None),
        without_smoothing(build_targets(schema, spec)),
        share_columns={name: schema.n_classes[name] for name in spec.class_share_log_columns},
        measured=measured_targets(schema, units),
        newest=config.model_spec.prediction_length if spec.select_on == "predicted" else None,
        shared=shared,
    )


def _orders(config: TrainConfig, splits: Splits) -> tuple[Callable[[int], Order], Order]:
    """The training batches of each epoch, and the validation batches; raises what `prepare` does."""
    for name, windows in zip(("training", "validation"), splits, strict=True):
        if len(windows) == 0:
            raise TrainingError(f"The {name} data has no windows. Run preprocess with another split_ratios.")
        if not windows.has_targets:
            raise TrainingError(
                f"The {name} data has no item to predict: none has {windows.min_history} items before it "
                "(min_history). Use sequences that are longer, or min_history: 0."
            )
    (count, known), size = map(len, splits), config.training_spec.batch_size

    def order(epoch: int) -> Order:
        return Order(count, min(size, count), seed=config.seed, epoch=epoch)

    spec, n_batches = config.training_spec, len(order(1))
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
    return order, Order(known, min(size, known), shuffle=False)


def _optimizer(config: TrainConfig, schema: Schema, schedule: Schedule, graphdef: GraphDef) -> Optimizer:
    spec, frozen = config.training_spec, frozenset()
    if spec.freeze:
        frozen = frozen_parameters(spec.freeze, abstract(schema, config.model_spec)[1], schema)
    linear = frozenset(path for path, kind in layer_types(graphdef).items() if kind == "linear")
    optimizer = build_optimizer(spec.optimizer, frozen=frozen, linear=linear)
    return optimizer if schedule.momentum is None else optimizer.with_momentum(schedule.momentum(0))


def frozen_parameters(patterns: Sequence[str], params: Params, schema: Schema) -> frozenset[Path]:
    """The parameters that `training_spec.freeze` keeps as they are, by patterns over sequifier's names.

    Args:
      patterns: Names such as decoder.price.bias, in which * stands for anything and ? for any character.
      params: The model's parameters, or their shapes.
      schema: Its columns.

    Raises:
      ConfigError: A pattern matches nothing, or nothing is left to train.
    """
    paths = [
        tuple(str(key.key) for key in path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]
    ]
    names = {schema.parameter_name(path): path for path in paths}
    problems, frozen = [], set()
    for index, pattern in enumerate(patterns):
        matching = {path for name, path in names.items() if fnmatchcase(name, pattern)}
        frozen |= matching
        if not matching:
            hint = suggestion(pattern, list(names))
            problems.append(
                Problem(f"training_spec.freeze.{index}", f"{pattern!r} is the name of no parameter. {hint}")
            )
    if not problems and len(frozen) == len(paths):
        problems = [
            Problem("training_spec.freeze", "names all parameters, so that nothing is left to train.")
        ]
    if problems:
        raise ConfigError("The training configuration", problems)
    return frozenset(frozen)


def evaluate_baselines(
    run: Run, schema: Schema, training: Windows, periods: Periods = None
) -> Mapping[str, Evaluation]:
    """Evaluates simple predictors, fitted on the training data, on the validation data; by name.

    Some predict only targets of one kind. The last of several targets' is made of the best for each.
    """
    fitted = fit_baselines(training, schema, periods)
    found = evaluate_side_by_side(
        run.evaluator, run.validation, run.validation_order, fitted, predict=predict_targets
    )
    for target, period in periods_of(fitted).items():
        logger.info("[INFO] The seasonal last value of %s is that of %d items before.", target, period)
    names = dict.fromkeys(name for rows in found.values() for name in rows)
    baselines = {name: combined([rows[name] for rows in found.values() if name in rows]) for name in names}
    if len(found) > 1:
        best = [
            min(rows.values(), key=lambda row, target=target: row.losses.by_target[target])
            for target, rows in found.items()
        ]
        baselines[BEST_OF_EACH] = combined(best)
    return baselines


def parameter_count(params: Params) -> int:
    """Number of scalars in the parameters."""
    return sum(int(leaf.size) for leaf in jax.tree.leaves(params))


def _feeds(
    spec: TrainingSpec, schema: Schema, splits: Splits, device: Device, *, placement: Placement
) -> tuple[Feed, Feed]:
    """The feeds of training and validation batches; what stays on the device is within one limit."""
    limit = memory_limit(device, load_in_full=spec.load_full_data_to_ram, max_ram_gb=spec.max_ram_gb)
    columns = tuple(schema.columns)
    options = compiler_options(device, deterministic=spec.enforce_determinism, has_dropout=spec.dropout > 0)

    def feed(windows: Windows, taken: int) -> ResidentFeed | StreamedFeed:
        if fits(windows, columns, limit=None if limit is None else limit - taken):
            return ResidentFeed(windows, columns, compiler_options=options, placement=placement)
        loader = Loader(
            windows,
            columns,
            in_ram=spec.load_full_data_to_ram,
            num_workers=spec.num_workers,
            max_ram_gb=spec.max_ram_gb,
        )
        return StreamedFeed(windows, columns, compiler_options=options, placement=placement, loader=loader)

    training = feed(splits[0], 0)
    return training, feed(splits[1], training.nbytes)


def _described(windows: Windows, numbers: Int[np.ndarray, "n"]) -> str:
    """Names windows by sequence and item positions; the first few of them."""
    names = []
    for number in numbers[:_WINDOWS_TO_NAME, None]:
        slots = np.asarray([windows.seq_length + 1 - int(windows.length(number)[0]), windows.seq_length])
        first, last = windows.positions(number, slots)[0]
        names.append(f"sequence {windows.sequence_id(number)[0]} items {first} to {last}")
    more = len(numbers) - len(names)
    return "; ".join(names) + (f"; and {more} more" if more else "")
