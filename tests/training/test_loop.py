import dataclasses

import jax
import numpy as np
import pytest

from seqjax.config.model import ModelSpec
from seqjax.config.optimization import NamedSpec
from seqjax.config.schema import Schema
from seqjax.data.loader import epoch_order
from seqjax.errors import TrainingError
from seqjax.model import functional
from seqjax.optim.optimizers import build_optimizer
from seqjax.optim.schedules import build_schedule
from seqjax.training.evaluate import Evaluation, build_evaluate
from seqjax.training.events import BatchEvent, EpochEvent, StandingEvent
from seqjax.training.feed import ResidentFeed
from seqjax.training.loop import (
    Setup,
    evaluate_start,
    fit,
    grouped,
    learning_rates,
    spans,
)
from seqjax.training.metrics import Losses
from seqjax.training.objective import Target
from seqjax.training.state import new_state
from seqjax.training.step import Recipe, build_step, forward
from tests.training.conftest import make_windows
from tests.training.test_baselines import chain, entropy_rate


@pytest.fixture(scope="module")
def setup(case):
    """A run of the case with batches of 4."""
    feed, recipe = case.feed(), case.recipe(dropout=0.1, clip=0.5)
    return Setup(
        feed=feed,
        fold=feed.fold(build_step(recipe)),
        order=lambda epoch: case.order(4, epoch=epoch),
        learning_rate=build_schedule(NamedSpec.of("StepLR", step_size=1, gamma=0.5), 0.01),
        evaluate=build_evaluate(
            lambda params, batch: recipe.apply(params, batch, None), case.targets, feed, case.order(4)
        ),
        targets=case.targets,
        key=jax.random.key(0, impl="rbg"),
        log_interval=2,
    )


def start(case):
    return case.state(case.recipe())


def scripted(setup, losses):
    """The run with made-up validation losses."""
    queue = iter(losses)

    def evaluate(params):
        return Evaluation(Losses({"item": next(queue)}, {"item": 1.0}), {})

    return dataclasses.replace(setup, evaluate=evaluate)


def test_events_of_an_epoch(case, setup):
    events = []
    fit(setup, start(case), epochs=2, hooks=[events.append])
    kinds = [type(event).__name__ for event in events]
    assert kinds == ["BatchEvent"] * 3 + ["EpochEvent", "StandingEvent"] + kinds[5:]
    batches = [event for event in events if isinstance(event, BatchEvent)]
    assert [event.batch for event in batches] == [2, 4, 6] * 2
    assert [event.samples for event in batches] == [8, 8, 5] * 2
    assert [event.learning_rate for event in batches] == pytest.approx([0.01] * 3 + [0.005] * 3)
    ends = [event for event in events if isinstance(event, StandingEvent)]
    assert [event.finished for event in ends] == [False, True]


def test_the_same_seed_gives_the_same_losses(case, setup):
    first, second = [], []
    fit(setup, start(case), epochs=2, hooks=[first.append])
    fit(setup, start(case), epochs=2, hooks=[second.append])
    losses = [
        [event.losses for event in events if isinstance(event, BatchEvent)] for events in (first, second)
    ]
    assert losses[0] == losses[1]


def test_going_on_equals_going_through(case, setup):
    through = fit(setup, start(case), epochs=4)
    half = fit(setup, start(case), epochs=2)
    resumed = fit(setup, half, epochs=4)
    jax.tree.map(np.testing.assert_array_equal, (through.state, through.best), (resumed.state, resumed.best))
    assert (through.best_loss, through.best_epoch) == (resumed.best_loss, resumed.best_epoch)


def test_the_best_is_strictly_lower_and_patience_counts(case, setup):
    run = scripted(setup, [3.0, 2.0, 2.0, 2.5, 2.0, 1.0])
    standing = fit(run, start(case), epochs=6, patience=3)
    assert (standing.epoch, standing.best_epoch, standing.best_loss, standing.stale) == (5, 2, 2.0, 3)
    best = fit(scripted(setup, [3.0, 2.0]), start(case), epochs=2).best
    jax.tree.map(np.testing.assert_array_equal, standing.best, best)


def test_epoch_0_is_no_candidate(case, setup):
    event = evaluate_start(scripted(setup, [0.5]), case.params)
    assert isinstance(event, EpochEvent)
    assert (event.epoch, event.training) == (0, None)
    assert fit(scripted(setup, [1.0]), start(case), epochs=1).best_loss == 1.0


def test_a_loss_that_is_not_finite_ends_the_run(case, setup):
    wild = dataclasses.replace(setup, learning_rate=lambda step: 1e30)
    with pytest.raises(
        TrainingError, match=r"not finite in epoch 1, batch [23] of 6 \(learning rate 1e\+30\)"
    ):
        fit(wild, start(case), epochs=1)
    with pytest.raises(TrainingError, match="validation loss is nan after epoch 1"):
        fit(scripted(setup, [float("nan")]), start(case), epochs=1)


def test_schedules_step_by_epoch_or_batch(setup):
    run = dataclasses.replace(setup, learning_rate=float)
    assert list(learning_rates(run, 3, 4)) == [2, 2, 2, 2]
    by_batch = dataclasses.replace(run, step_on_batch=True)
    assert list(learning_rates(by_batch, 3, 4)) == [8, 9, 10, 11]
    # An update takes the rate of its last batch; the last update of an epoch may have fewer.
    assert list(learning_rates(dataclasses.replace(by_batch, accumulation=3), 2, 4)) == [6, 7]


def test_orders_are_grouped_and_filled_up():
    order = np.arange(10).reshape(5, 2)
    np.testing.assert_array_equal(grouped(order, 2), [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, -1, -1]])


def test_dispatches_cover_an_epoch_and_end_with_log_intervals():
    found = list(spans(250, 100))
    assert found == [(0, 64), (64, 100), (100, 164), (164, 200), (200, 250)]


def test_a_chain_is_learnt_to_near_its_entropy_rate():
    transitions = np.random.default_rng(4).dirichlet(np.full(5, 0.5), size=5) * 0.98 + 0.004
    length, size = 16, 64
    windows = {
        split: make_windows(
            {"item": chain(transitions, rows, seed)}, length, starts=np.arange(0, rows - 20, 8)
        )
        for split, rows, seed in (("train", 16_000, 1), ("valid", 8_000, 2))
    }
    schema = Schema(
        n_classes={"item": 7},
        categorical_inputs=("item",),
        real_inputs=(),
        targets={"item": "categorical"},
        seq_length=length,
    )
    spec = ModelSpec(initial_embedding_dim=16, dim_model=16, n_head=2, dim_feedforward=32, num_layers=1)
    graphdef, params = functional.init(schema, spec, seed=0)
    apply, targets = forward(graphdef, schema.inputs), (Target("item", "CrossEntropyLoss"),)
    recipe = Recipe(apply, targets, build_optimizer(NamedSpec.of("AdamW")), 1, 0.5)
    train, valid = (ResidentFeed(windows[split], ("item",)) for split in ("train", "valid"))
    known = epoch_order(len(windows["valid"]), size, seed=0, epoch=0, shuffle=False)
    setup = Setup(
        feed=train,
        fold=train.fold(build_step(recipe)),
        order=lambda epoch: epoch_order(len(windows["train"]), size, seed=0, epoch=epoch, shuffle=True),
        learning_rate=build_schedule(NamedSpec.of("CosineAnnealingLR", T_max=8), 1e-2),
        evaluate=build_evaluate(lambda p, batch: apply(p, batch, None), targets, valid, known),
        targets=targets,
        key=jax.random.key(0, impl="rbg"),
    )
    standing = fit(setup, new_state(params, recipe.optimizer), epochs=8)
    assert standing.best_loss == pytest.approx(entropy_rate(transitions), rel=0.03)
