"""What a run says at its end: whether its loss still falls, and whether baselines are better."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.config.optimization import NamedSpec
from seqjax.training.ending import Ending, best_baseline, best_by_target, still_falling, totals
from seqjax.training.evaluate import BEST_OF_EACH, Evaluation, combined
from seqjax.training.events import EpochEvent, RunState
from seqjax.training.objective import Losses
from seqjax.training.step import TrainState
from tests.artifacts.test_model_files import config

FALLING = [1.0, 0.7, 0.55, 0.45, 0.38, 0.33, 0.29, 0.26, 0.23, 0.21]


def one(target, loss, weight=1.0):
    return Evaluation(Losses({target: loss}, {target: weight}), {})


BASELINES = {
    "last value": combined([one("a", 0.5), one("b", 0.4, 10.0)]),
    "marginal": combined([one("a", 0.9), one("b", 0.9, 10.0)]),
    "velocity": one("b", 0.1, 10.0),
    BEST_OF_EACH: combined([one("a", 0.5), one("b", 0.1, 10.0)]),
}


def test_the_best_baseline_is_made_of_the_best_of_each_target():
    assert totals(BASELINES) == pytest.approx({"last value": 4.5, "marginal": 9.9, BEST_OF_EACH: 1.5})
    assert {name: rival.name for name, rival in best_by_target(BASELINES).items()} == {
        "a": "last value",
        "b": "velocity",
    }
    assert best_baseline(BASELINES) == ("last value (a), velocity (b)", pytest.approx(1.5))
    assert best_baseline({"last value": one("b", 0.4), "velocity": one("b", 0.1)}) == ("velocity", 0.1)


@pytest.mark.parametrize(
    "losses",
    [
        FALLING,
        FALLING[:3],
        np.geomspace(1, 0.5, 40).tolist(),
        [3.0, 1.0, -1.0, -2.5],
        [100 * x for x in FALLING],
    ],
)
def test_a_falling_loss_is_seen(losses):
    fall = still_falling(losses)
    assert fall is not None
    assert fall.after < fall.before


@pytest.mark.parametrize(
    "losses",
    [
        [],
        [1.0],
        [1.0, 0.5],
        [1.0, 0.5, 0.4, 0.4, 0.4, 0.4],
        [1.0, 0.5, 0.4, 0.39, 0.392, 0.389, 0.391, 0.39],
        FALLING[::-1],
        [1.0, 0.5, 0.3, 0.2, 0.21, 0.22],
        [1.0, math.nan, 0.5],
        # Falls on average, by less than it jumps.
        [1.0, 0.5, 0.6, 0.48, 0.58, 0.46, 0.57, 0.45],
    ],
)
def test_a_loss_that_is_flat_or_noisy_is_not_falling(losses):
    assert still_falling(losses) is None


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(8, 40), st.floats(1e-6, 1e6))
def test_noise_around_a_level_is_seldom_taken_for_a_fall(seed, count, scale):
    rng = np.random.default_rng(seed)
    flat = sum(
        still_falling((scale * np.r_[3.0, 1 + 0.01 * rng.normal(size=count)]).tolist()) is not None
        for _ in range(40)
    )
    assert flat <= 12


def run_at(best_loss, *, epochs=10, history=FALLING):
    """A run whose best epoch was the second."""
    state = TrainState({}, {}, jnp.zeros((), jnp.int32))
    return RunState(epochs, state, {}, 2, best_loss, losses=tuple(history))


def ended(losses_by_target, *, epochs=10, history=FALLING, spec=None, state=None):
    """What is said of a run with these losses at its best epoch."""
    ending = Ending(BASELINES)
    losses = Losses(losses_by_target, {"a": 1.0, "b": 10.0})
    worse = Losses({name: loss + 1 for name, loss in losses_by_target.items()}, {"a": 1.0, "b": 10.0})
    for epoch, found in enumerate((losses, worse, losses, worse)):
        ending(EpochEvent(epoch, Evaluation(found, {}), 0.1, 1.0))
    settings = spec or config().training_spec.model_copy(update={"epochs": epochs})
    found = state or run_at(losses.total, epochs=epochs, history=history)
    return list(ending.warnings(found)), list(ending.remarks(found, settings))


def test_a_run_that_is_worse_says_on_what():
    warnings, _ = ended({"a": 0.3, "b": 0.2})
    assert len(warnings) == 1
    assert "after epoch 2, the best: b 0.2 (velocity: 0.1)." in warnings[0]
    assert "a 0.3" not in warnings[0]
    assert ended({"a": 0.3, "b": 0.05})[0] == []


def test_a_run_that_went_on_from_a_checkpoint_says_it_in_all():
    resumed = run_at(2.5)
    (warning,) = ended({"a": 0.9, "b": 0.9}, state=resumed)[0]
    assert "validation loss 2.5 (last value (a), velocity (b): 1.5)" in warning


def test_a_run_that_still_falls_says_what_to_do():
    _, (remark,) = ended({"a": 0.3, "b": 0.05})
    assert "from 0.2583 to 0.2083 in the last 3 of 10 epochs" in remark
    assert "set training_spec.epochs: 20, and run seqjax train again, which goes on from here." in remark
    scheduler = NamedSpec.of("CosineAnnealingLR", T_max=10)
    spec = config().training_spec.model_copy(update={"epochs": 10, "scheduler": scheduler})
    _, (remark,) = ended({"a": 0.3, "b": 0.05}, spec=spec)
    assert "epochs: 20, scheduler.T_max as much longer, and continue_training: false" in remark


def test_a_run_that_stopped_early_has_nothing_to_gain():
    stopped = run_at(0.8)
    spec = config().training_spec.model_copy(update={"epochs": 50})
    assert ended({"a": 0.3, "b": 0.05}, state=stopped, spec=spec)[1] == []
