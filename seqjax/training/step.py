"""One update of the parameters, as a pure function of state, batch and constants.

An update sees one large batch: `accumulation` micro-batches whose gradients are added up. The weights of
the whole are known before any micro-batch is computed, so that the sum equals the gradient of the large
batch.

What a `Recipe` consists of is compiled in. Its numbers are too, unless `Constants` bring other values for
them: those are traced, so that one compiled step serves any values, and `jax.vmap` over constants (and
states) trains a population whose members differ in

* learning rates (and a cycled momentum), by update;
* dropout rate, gradient clip, weight decay, betas and the optimizer's other numbers;
* the numbers of targets: loss weights, class weights, label smoothing, thresholds;
* the key, and so the seed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from seqjax.model.dropout import Dropout
from seqjax.model.functional import GraphDef, merge
from seqjax.optim.optimizers import Optimizer
from seqjax.optim.rule import Number, State, is_off, widened
from seqjax.training.feed import Step
from seqjax.training.objective import (
    Outputs,
    Sums,
    Target,
    added,
    loss_sums,
    no_sums,
    total_weights,
    weighted_loss,
    with_numbers,
)
from seqjax.training.precision import FLOAT32, LossScale, Precision, first_scale, next_scale, rounded
from seqjax.windows.windows import Batch, inputs_of, valid_mask

Params: TypeAlias = dict[str, Any]
Apply = Callable[[Params, Batch, Dropout | None], Outputs]
"""(params, batch, dropout or None) -> outputs at all L positions."""
Values: TypeAlias = Mapping[str, Any]

Table: TypeAlias = Float[Any, "rows columns"]
"""A row for each update: sum and weight of the losses of each target, and a flag. Update i is in row i modulo
the number of rows."""

TABLE_ROWS = 64
"""Rows of a table: how many updates are sent to a device at once at most."""
FINE, SKIPPED, NOT_FINITE = 0.0, 1.0, 2.0
"""Flags: SKIPPED is an update that was left out because a scaled gradient overflowed (float16 only)."""

_ROUNDING = 1 << 31  # Told apart from the numbers of micro-batches, which dropout keys are folded with.


class TrainState(NamedTuple):
    """Everything that the next step depends on, the data and the run's constants apart."""

    params: Params
    """Parameters, in the formats in which they are kept; these are evaluated and exported."""
    opt_state: State
    step: Int[Array, ""]
    """Steps made; what a step draws (dropout, rounding) depends on it."""
    loss_scale: LossScale | None = None
    """The factor of the loss, where float16 needs one."""


def new_state(params: Params, optimizer: Optimizer, *, is_scaled: bool = False) -> TrainState:
    """The state before the first update.

    Its leaves may share buffers: an optimizer may start two of its statistics from one array, and the caller
    keeps `params`. A step consumes a copy (`Placement.replicate`).

    Args:
      params: Parameters, in the formats in which they are kept.
      optimizer: What will move them.
      is_scaled: Whether losses must be scaled (`Precision.is_scaled`).
    """
    scale = first_scale() if is_scaled else None
    return TrainState(params, optimizer.init(params), jax.device_put(np.int32(0)), scale)


class Constants(NamedTuple):
    """Traced values that updates are given besides state and data."""

    learning_rates: Float[Array, "n"] | Float[np.ndarray, "n"]
    """Learning rate of each update of the epoch."""
    key: Key[Array, ""]
    """The run's key, from its seed; dropout and rounding draw from it."""
    values: Values | None = None
    """Numbers to use in place of the recipe's: `dropout` and `clip`, a scalar each; `targets`, the
    numbers of a `Target` by its name; `optimizer`, a scalar (betas: a tuple) by keyword argument."""
    momenta: Float[Array, "n"] | Float[np.ndarray, "n"] | None = None
    """Momentum of each update of the epoch, in place of the optimizer's."""


@dataclass(frozen=True)
class Recipe:
    """The ingredients of an update."""

    apply: Apply
    targets: tuple[Target, ...]
    optimizer: Optimizer
    accumulation: int = 1
    """Micro-batches a batch."""
    clip: Number | None = None
    """Largest global gradient norm; None does not clip."""
    dropout: Number = 0.0

    def with_values(self, values: Values) -> "Recipe":
        """The same recipe with other numbers, which may be traced: see `Constants.values`."""
        own = {name: value for name, value in values.items() if name not in ("targets", "optimizer")}
        return replace(
            self,
            **own,
            targets=with_numbers(self.targets, values.get("targets", {})),
            optimizer=self.optimizer.with_values(values.get("optimizer", {})),
        )


def forward(graphdef: GraphDef, inputs: Sequence[str], precision: Precision = FLOAT32) -> Apply:
    """The model as a function of its parameters.

    Args:
      graphdef: From `seqjax.model.functional`.
      inputs: The model's input columns.
      precision: In which formats it computes.
    """
    names = tuple(inputs)

    def apply(params: Params, batch: Batch, dropout: Dropout | None) -> Outputs:
        model = merge(graphdef, precision.compute(params))
        return model(
            inputs_of(batch, names, model.masked), valid_mask(batch), dropout=dropout, dtype=precision.between
        )

    return apply


def empty_table(targets: Sequence[Target]) -> Float[np.ndarray, "rows columns"]:
    """A table of no update, in host memory."""
    return np.zeros((TABLE_ROWS, 2 * len(targets) + 1), jnp.result_type(float))


def build_step(recipe: Recipe) -> Step[tuple[TrainState, Table]]:
    """An update as a step of a fold.

    Its carry is (state, table), its constants are `Constants`, its batch the whole large batch.
    """

    def step(
        carry: tuple[TrainState, Table], batch: Batch, index: Int[Array, ""], constants: Constants
    ) -> tuple[TrainState, Table]:
        state, table = carry
        current = recipe.with_values(constants.values or {})
        if constants.momenta is not None:
            current = replace(current, optimizer=current.optimizer.with_momentum(constants.momenta[index]))
        key = jax.random.fold_in(constants.key, state.step)
        sums, grads = _gradient(current, state, batch, key)
        norm = optax.tree.norm(grads)
        if current.clip is not None:
            scale = jnp.minimum(1.0, current.clip / (norm + 1e-6))
            grads = jax.tree.map(lambda grad: grad * scale, grads)
        finite = jnp.isfinite(norm + sum(target.total for target in sums.values()))
        moved = _moved(current.optimizer, state, grads, constants.learning_rates[index], key)
        row = _row([sums[target.name] for target in recipe.targets], finite, state)
        return _settled(state, moved, finite), table.at[index % len(table)].set(row.astype(table.dtype))

    return step


def _gradient(
    recipe: Recipe, state: TrainState, batch: Batch, key: Key[Array, ""]
) -> tuple[dict[str, Sums], Params]:
    """Losses, and the gradient with respect to what moves, in float32."""
    weights = total_weights(recipe.targets, batch)
    optimizer = recipe.optimizer
    point = optimizer.rule.point(widened(optimizer.moving(state.params)), state.opt_state)
    factor = 1.0 if state.loss_scale is None else state.loss_scale.scale

    def loss(moving: Params, part: Batch, key: Key[Array, ""]) -> tuple[Float[Array, ""], dict[str, Sums]]:
        params = optimizer.joined(state.params, moving)
        dropout = None if is_off(recipe.dropout) else Dropout(recipe.dropout, key)
        outputs = recipe.apply(params, part, dropout)
        sums = loss_sums(recipe.targets, outputs, part)
        return factor * weighted_loss(recipe.targets, sums, weights), sums

    gradient = jax.grad(loss, has_aux=True)
    if recipe.accumulation == 1:
        grads, sums = gradient(point, batch, key)
    else:

        def add(
            carry: tuple[Params, dict[str, Sums]], part: tuple[Batch, Int[Array, ""]]
        ) -> tuple[tuple[Params, dict[str, Sums]], None]:
            grads, sums = gradient(point, part[0], jax.random.fold_in(key, part[1]))
            return (jax.tree.map(jnp.add, carry[0], grads), added(carry[1], sums)), None

        parts = _micro_batches(batch, recipe.accumulation)
        start = jax.tree.map(jnp.zeros_like, point), no_sums(target.name for target in recipe.targets)
        grads, sums = jax.lax.scan(add, start, (parts, jnp.arange(recipe.accumulation)))[0]
    if state.loss_scale is not None:
        grads = jax.tree.map(lambda grad: grad / factor, grads)
    return sums, grads


def _micro_batches(batch: Batch, count: int) -> Batch:
    """(micro-batch, row, ...) leaves; row i is of micro-batch i modulo `count`, so that a cut cuts each."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, count, *leaf.shape[1:]).swapaxes(0, 1), batch)


def _moved(
    optimizer: Optimizer, state: TrainState, grads: Params, rate: Float[Array, ""], key: Key[Array, ""]
) -> TrainState:
    """The state after an update, whatever the gradient is."""
    kept = optimizer.moving(state.params)
    wide, opt_state = optimizer.rule.update(grads, state.opt_state, widened(kept), rate)
    moving = rounded(wide, kept, jax.random.fold_in(key, _ROUNDING))
    return state._replace(
        params=optimizer.joined(state.params, moving), opt_state=opt_state, step=state.step + 1
    )


def _settled(state: TrainState, moved: TrainState, finite: Bool[Array, ""]) -> TrainState:
    """The state after an update; under a loss scale, one that is not finite changes nothing but the scale."""
    if state.loss_scale is None:
        return moved
    params, opt_state = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old),
        (moved.params, moved.opt_state),
        (state.params, state.opt_state),
    )
    return TrainState(params, opt_state, moved.step, next_scale(state.loss_scale, finite))


def _row(sums: Sequence[Sums], finite: Bool[Array, ""], state: TrainState) -> Float[Array, "columns"]:
    """The row of an update. A scale that can still be lowered excuses one that is not finite."""
    excused = jnp.bool_(False) if state.loss_scale is None else ~finite & (state.loss_scale.scale > 1)
    found = jnp.stack([number for target in sums for number in target])
    flag = jnp.where(finite, FINE, jnp.where(excused, SKIPPED, NOT_FINITE))
    return jnp.append(jnp.where(excused, 0.0, found), flag)
