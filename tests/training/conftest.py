"""Small data sets and models that train in a moment."""

import dataclasses
import math
from typing import NamedTuple

import jax
import numpy as np
import pytest

from seqjax.config.model import ModelSpec
from seqjax.config.optimization import NamedSpec
from seqjax.config.schema import Schema
from seqjax.model import functional
from seqjax.optim.optimizers import build_optimizer
from seqjax.training.events import RunState
from seqjax.training.feed import ResidentFeed
from seqjax.training.loop import Member
from seqjax.training.objective import Losses, Target, loss_weights
from seqjax.training.step import NOT_FINITE, SKIPPED, Recipe, forward, new_state
from seqjax.windows.order import Order
from seqjax.windows.windows import Windows, listed

LENGTH = 6
FAST_TO_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


class Report(NamedTuple):
    """What some updates found."""

    losses: Losses
    first_bad: int
    """Number of the first update that was not finite; -1 if none."""
    skipped: int


def report(table, targets, low, high) -> Report:
    """Adds up the rows of the updates from `low` to `high` of a loss table."""
    rows = np.asarray(table, np.float64)[low:high]
    sums = rows[:, :-1].sum(axis=0).reshape(-1, 2).tolist()
    means = {
        target.name: total / weight if weight else math.nan
        for target, (total, weight) in zip(targets, sums, strict=True)
    }
    bad = np.flatnonzero(rows[:, -1] == NOT_FINITE)
    skipped = int((rows[:, -1] == SKIPPED).sum())
    return Report(Losses(means, loss_weights(targets)), low + int(bad[0]) if len(bad) else -1, skipped)


def fit(population, start, *, epochs, patience=None, until=None, hooks=(), note=None, run=None) -> RunState:
    """Trains a run by itself.

    Args:
      population: With one slot; its programs are used again by the next call.
      start: Where the run begins.
      epochs: Its last epoch.
      patience: Epochs without a lower validation loss after which it ends.
      until: The epoch after which it pauses.
      hooks: Called with everything that happens.
      note: Says which signal asks to stop.
      run: The run, if it is another one than that of the population.
    """
    member = Member(run or population.run, start, epochs, patience=patience, until=until, hooks=hooks)
    population.train([member], lambda _: None, note)
    if member.error is not None:
        raise member.error
    return member.state


def make_windows(columns: dict, length: int, *, starts=None, lengths=None) -> Windows:
    """Windows over flat columns; by default one at every row, all full."""
    rows = len(next(iter(columns.values())))
    start = np.arange(rows - length) if starts is None else np.asarray(starts)
    items = np.full(len(start), length + 1) if lengths is None else np.asarray(lengths)
    return listed(columns, start=start.astype(np.int64), length=items, seq_length=length)


@dataclasses.dataclass(frozen=True)
class Case:
    """A model of two columns, its data and its objective."""

    schema: Schema
    windows: Windows
    graphdef: functional.GraphDef
    params: dict
    targets: tuple[Target, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a batch."""
        return tuple(self.schema.columns)

    def recipe(self, *, accumulation=1, clip=None, dropout=0.0, optimizer="AdamW") -> Recipe:
        """An update of the model."""
        apply = forward(self.graphdef, self.schema.inputs)
        built = build_optimizer(NamedSpec.of(optimizer))
        return Recipe(apply, self.targets, built, accumulation, clip, dropout)

    def state(self, recipe: Recipe):
        """A new state that may be consumed."""
        return new_state(jax.tree.map(jax.numpy.array, self.params), recipe.optimizer)

    def feed(self, kind=ResidentFeed):
        """The data."""
        return kind(self.windows, self.columns, compiler_options=FAST_TO_COMPILE)

    def order(self, size: int, *, epoch=1):
        """Shuffled batches."""
        return Order(len(self.windows), size, seed=3, epoch=epoch)


@pytest.fixture(scope="session")
def case() -> Case:
    """See `make_case`."""
    return make_case()


def make_case() -> Case:
    """Padded windows over a categorical and a real column, both predicted."""
    rng = np.random.default_rng(0)
    rows = 60
    columns = {
        "item": rng.integers(1, 5, rows).astype(np.int8),
        "value": rng.normal(size=rows).astype(np.float32),
    }
    starts = rng.integers(0, rows - LENGTH - 1, 21)
    windows = make_windows(columns, LENGTH, starts=starts, lengths=rng.integers(1, LENGTH + 2, 21))
    schema = Schema(
        n_classes={"item": 5},
        categorical_inputs=("item",),
        real_inputs=("value",),
        targets={"item": "categorical", "value": "real"},
        seq_length=LENGTH,
    )
    spec = ModelSpec(
        initial_embedding_dim=8,
        feature_embedding_dims={"item": 6, "value": 2},
        dim_model=8,
        n_head=2,
        dim_feedforward=8,
        num_layers=1,
    )
    graphdef, params = functional.init(schema, spec, seed=0)
    weights = np.asarray([0.5, 1.0, 2.0, 3.0, 0.25], np.float32)
    targets = (Target("item", "CrossEntropyLoss", 0.7, weights), Target("value", "MSELoss", 1.3))
    return Case(schema, windows, graphdef, params, targets)
