import json
from pathlib import Path

import numpy as np
import pytest

from seqjax.config.optimization import SCHEDULERS, NamedSpec
from seqjax.optim.schedules import FORMULAS, build_schedule

TRAJECTORIES = json.loads((Path(__file__).parent / "trajectories.json").read_text())


def rates(name, learning_rate=1.0, steps=20, **arguments):
    schedule = build_schedule(NamedSpec.of(name, **arguments), learning_rate)
    return [schedule(step) for step in range(steps)]


def test_every_name_that_may_be_written_has_a_formula():
    assert set(SCHEDULERS) == {*FORMULAS, "ReduceLROnPlateau"}


def test_curves_are_those_of_torch(shared):
    cases = json.loads((shared / "golden/project/schedules.json").read_text())
    assert len(cases) >= 11
    for case in cases:
        found = rates(case["name"], case["learning_rate"], len(case["lrs"]), **case["kwargs"])
        np.testing.assert_allclose(
            found, case["lrs"], rtol=1e-7, atol=1e-17, err_msg=f"{case['name']} {case['kwargs']}"
        )


@pytest.mark.parametrize(
    "case", TRAJECTORIES["schedules"], ids=lambda case: f"{case['name']}-{case['arguments']}"
)
def test_rates_and_momenta_are_those_of_torch(case):
    schedule = build_schedule(NamedSpec.of(case["name"], **case["arguments"]), 0.01)
    losses = TRAJECTORIES["losses"]
    found = [schedule(step, losses[:step]) for step in range(len(losses))]
    np.testing.assert_allclose(found, case["rates"], rtol=1e-7, atol=1e-17)
    momentum = schedule.momentum
    assert (momentum is None) == (case["name"] == "ReduceLROnPlateau")
    if momentum is not None:
        found = [momentum(step) for step in range(len(losses))]
        np.testing.assert_allclose(found, case["momenta"], rtol=1e-7)


def test_momentum_stays_where_it_is_not_to_be_cycled():
    spec = NamedSpec.of("OneCycleLR", max_lr=0.1, total_steps=4, cycle_momentum=False)
    assert build_schedule(spec, 0.1).momentum is None


def test_the_default_schedule_is_constant():
    assert set(rates("StepLR", 0.1, step_size=1, gamma=1.0)) == {0.1}


def test_restarts_grow_by_their_factor():
    found = rates("CosineAnnealingWarmRestarts", steps=14, T_0=2, T_mult=2)
    assert [step for step, rate in enumerate(found) if rate == 1.0] == [0, 2, 6]


def test_three_phases_return_to_the_start_before_the_end():
    found = rates("OneCycleLR", steps=20, max_lr=1.0, total_steps=20, pct_start=0.25, three_phase=True)
    assert found[4] == pytest.approx(1.0)
    assert found[8] == pytest.approx(found[0]) == pytest.approx(1 / 25)
    assert found[19] == pytest.approx(1 / 25 / 1e4)


def test_one_cycle_in_straight_lines():
    found = rates("OneCycleLR", steps=10, max_lr=1.0, total_steps=10, pct_start=0.5, anneal_strategy="linear")
    assert found[2] == pytest.approx((1 / 25 + 1) / 2)


def test_cycles_shrink_as_their_mode_says():
    halves = rates("CyclicLR", base_lr=0.0, max_lr=1.0, step_size_up=2, mode="triangular2")
    assert (halves[2], halves[6], halves[10]) == (1.0, 0.5, 0.25)
    shrinking = rates(
        "CyclicLR", base_lr=0.0, max_lr=1.0, step_size_up=1, step_size_down=3, mode="exp_range", gamma=0.5
    )
    assert (shrinking[1], shrinking[5]) == (0.5, 0.5**5)


def test_a_warm_up_is_followed_by_half_a_cosine():
    found = rates("WarmupCosine", 2.0, 12, total_steps=10, warmup_ratio=0.2, eta_min=0.5)
    assert found[:3] == [1.0, 2.0, 2.0]
    assert found[6] == pytest.approx(1.25)
    assert found[10:] == [0.5, 0.5]
    whole = build_schedule(NamedSpec.of("WarmupCosine", warmup_ratio=0.2, eta_min=0.5), 2.0, total_steps=10)
    assert [whole(step) for step in range(12)] == found
    assert rates("WarmupCosine", steps=2, total_steps=4, warmup_ratio=0)[0] == 1.0
    assert rates("WarmupCosine", steps=2, total_steps=1, warmup_ratio=0.9) == [1.0, 0.0]
