"""One update of the parameters, as a pure function.

An update sees one large batch: `accumulation` micro-batches whose gradients are added up. The weights of
the whole are known before any micro-batch is computed, so that the sum equals the gradient of the large
batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from seqjax.model.dropout import Dropout
from seqjax.model.functional import GraphDef, merge
from seqjax.training.batch import Batch, inputs_of, valid_mask
from seqjax.training.feed import Step
from seqjax.training.metrics import Sums, added, no_sums
from seqjax.training.objective import Outputs, Target, loss_sums, total_weights, weighted_loss
from seqjax.training.state import Params, TrainState

Apply = Callable[[Params, Batch, Key[Array, ""] | None], Outputs]
"""(params, batch, dropout key or None) -> outputs at all L positions."""

NO_UPDATE = -1


class Constants(NamedTuple):
    """What a run of updates is given besides its state and data."""

    learning_rates: Float[Array, "n"]
    """Learning rate of each update of the epoch."""
    key: Key[Array, ""]
    """The run's dropout key."""


class Report(NamedTuple):
    """What some updates found."""

    sums: dict[str, Sums]
    """Losses of each target."""
    first_bad: Int[Array, ""]
    """First update of the epoch whose loss or gradient was not finite; -1 if none."""


@dataclass(frozen=True)
class Recipe:
    """What an update is made of."""

    apply: Apply
    targets: tuple[Target, ...]
    optimizer: optax.GradientTransformation
    accumulation: int = 1
    """Micro-batches a batch."""
    clip: float | None = None
    """Largest global gradient norm; null does not clip."""


def forward(graphdef: GraphDef, inputs: Sequence[str], dropout: float) -> Apply:
    """The model as a function of its parameters.

    Args:
      graphdef: From `seqjax.model.functional`.
      inputs: The model's input columns.
      dropout: Probability, where a key is given.
    """

    def apply(params: Params, batch: Batch, key: Key[Array, ""] | None) -> Outputs:
        drop = None if key is None or dropout == 0 else Dropout(dropout, key)
        return merge(graphdef, params)(inputs_of(batch, tuple(inputs)), valid_mask(batch), dropout=drop)

    return apply


def empty_report(targets: Sequence[Target]) -> Report:
    """A report on no update."""
    return Report(no_sums(target.name for target in targets), jnp.full((), NO_UPDATE, jnp.int32))


def build_step(recipe: Recipe) -> Step[tuple[TrainState, Report]]:
    """An update as a step of a fold.

    Its carry is (state, report), its constants are `Constants`, its batch the whole large batch.
    """

    def step(
        carry: tuple[TrainState, Report], batch: Batch, index: Int[Array, ""], constants: Constants
    ) -> tuple[TrainState, Report]:
        state, report = carry
        key = jax.random.fold_in(constants.key, state.step)
        sums, grads = _gradient(recipe, state.params, batch, key)
        norm = optax.tree.norm(grads)
        if recipe.clip is not None:
            scale = jnp.minimum(1.0, recipe.clip / (norm + 1e-6))
            grads = jax.tree.map(lambda grad: grad * scale, grads)
        directions, opt_state = recipe.optimizer.update(grads, state.opt_state, state.params)
        rate = constants.learning_rates[index]
        params = jax.tree.map(lambda p, d: p - (rate * d).astype(p.dtype), state.params, directions)
        finite = jnp.isfinite(norm + sum(part.total for part in sums.values()))
        first_bad = jnp.where((report.first_bad == NO_UPDATE) & ~finite, index, report.first_bad)
        return TrainState(params, opt_state, state.step + 1), Report(added(report.sums, sums), first_bad)

    return step


def _gradient(
    recipe: Recipe, params: Params, batch: Batch, key: Key[Array, ""]
) -> tuple[dict[str, Sums], Params]:
    weights = total_weights(recipe.targets, batch)

    def loss(params: Params, part: Batch, key: Key[Array, ""]) -> tuple[Float[Array, ""], dict[str, Sums]]:
        sums = loss_sums(recipe.targets, recipe.apply(params, part, key), part)
        return weighted_loss(recipe.targets, sums, weights), sums

    gradient = jax.grad(loss, has_aux=True)
    if recipe.accumulation == 1:
        grads, sums = gradient(params, batch, key)
        return sums, grads

    def add(
        carry: tuple[dict[str, Sums], Params], part: tuple[Batch, Int[Array, ""]]
    ) -> tuple[tuple[dict[str, Sums], Params], None]:
        grads, sums = gradient(params, part[0], jax.random.fold_in(key, part[1]))
        return (added(carry[0], sums), jax.tree.map(jnp.add, carry[1], grads)), None

    parts = jax.tree.map(lambda leaf: leaf.reshape(recipe.accumulation, -1, *leaf.shape[1:]), batch)
    start = no_sums(target.name for target in recipe.targets), jax.tree.map(jnp.zeros_like, params)
    return jax.lax.scan(add, start, (parts, jnp.arange(recipe.accumulation)))[0]
