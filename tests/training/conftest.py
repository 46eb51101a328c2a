"""Small data sets and models that train in a moment."""

import dataclasses

import jax
import numpy as np
import pytest

from seqjax.config.model import ModelSpec
from seqjax.config.optimization import NamedSpec
from seqjax.config.schema import Schema
from seqjax.model import functional
from seqjax.optim.optimizers import build_optimizer
from seqjax.training.feed import ResidentFeed
from seqjax.training.objective import Target
from seqjax.training.state import new_state
from seqjax.training.step import Recipe, forward
from seqjax.windows.order import Order
from seqjax.windows.windows import Windows, listed

LENGTH = 6
FAST_TO_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


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
