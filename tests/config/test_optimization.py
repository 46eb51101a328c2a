import subprocess
import sys

import pytest

from seqjax.config.base import Problems, validate
from seqjax.config.optimization import (
    OPTIMIZERS,
    SCHEDULERS,
    NamedSpec,
    optimizer_settings,
    schedule_length,
    scheduler_settings,
)
from seqjax.config.train import TrainingSpec
from seqjax.errors import ConfigError

SPEC = {
    "device": "cpu",
    "epochs": 5,
    "save_interval_epochs": 1,
    "batch_size": 2,
    "learning_rate": 1e-3,
    "criterion": {"item": "CrossEntropyLoss"},
}


def refusal(**changes):
    with pytest.raises(ConfigError) as error:
        validate(TrainingSpec, {**SPEC, **changes}, "train.yaml")
    return str(error.value)


def test_an_unknown_name_gets_the_nearest_and_all():
    text = refusal(optimizer={"name": "AdaW"}, scheduler={"name": "Nothing"})
    assert "optimizer.name: no optimizer is called 'AdaW'. Did you mean 'AdamW'? Known: " in text
    assert "scheduler.name: no scheduler is called 'Nothing'. Known: StepLR" in text
    assert all(name in text for name in (*OPTIMIZERS, *SCHEDULERS))


def test_arguments_are_checked_by_name_and_kind():
    text = refusal(
        optimizer={"name": "Adam", "weight_dacay": 0.1, "betas": [0.9, 1.5]},
        scheduler={"name": "CosineAnnealingLR", "T_max": "ten"},
    )
    assert "optimizer.weight_dacay: unknown key" in text
    assert "Did you mean 'weight_decay'?" in text
    assert "optimizer.betas.1: must be less than 1" in text
    assert "scheduler.T_max: must be a whole number" in text


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (
            {"name": "SGD", "dampening": 0.1, "momentum": 0.9, "nesterov": True},
            "optimizer.nesterov: true needs momentum above 0, and no dampening",
        ),
        ({"name": "SGD", "nesterov": True}, "optimizer.nesterov: true needs momentum"),
        ({"name": "Muon", "adjust_lr_fn": "fast"}, "optimizer.adjust_lr_fn: must be 'original'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(optimizer, message):
    assert message in refusal(optimizer=optimizer)


def test_defaults_are_those_of_torch():
    assert optimizer_settings(NamedSpec.of("AdamW")).model_dump()["weight_decay"] == 0.01
    assert optimizer_settings(NamedSpec.of("Adam")).model_dump()["weight_decay"] == 0.0
    assert scheduler_settings(NamedSpec.of("StepLR", step_size=3)).model_dump()["gamma"] == 0.1


def test_a_cycle_must_cover_all_epochs():
    cycle = {"name": "OneCycleLR", "max_lr": 0.1, "total_steps": 4}
    assert "at least epochs (5) steps" in refusal(scheduler=cycle)
    validate(TrainingSpec, {**SPEC, "scheduler": cycle, "scheduler_step_on": "batch"}, "train.yaml")


def test_a_cycle_of_momentum_needs_one():
    cycle = {"name": "OneCycleLR", "max_lr": 0.1, "total_steps": 9}
    text = refusal(scheduler=cycle, optimizer={"name": "Adagrad"})
    assert "scheduler: OneCycleLR moves momentum too, but Adagrad has neither" in text
    fixed = {"scheduler": cycle | {"cycle_momentum": False}, "optimizer": {"name": "Adagrad"}}
    validate(TrainingSpec, SPEC | fixed, "train.yaml")


def test_a_plateau_is_looked_for_by_epoch():
    text = refusal(scheduler={"name": "ReduceLROnPlateau"}, scheduler_step_on="batch")
    assert "scheduler_step_on: must be epoch with ReduceLROnPlateau" in text


def test_a_cycle_knows_its_length():
    assert schedule_length(NamedSpec.of("OneCycleLR", max_lr=0.1, epochs=3, steps_per_epoch=7)) == 21
    assert schedule_length(NamedSpec.of("StepLR", step_size=1)) is None
    with pytest.raises(Problems, match="total_steps: is required"):
        schedule_length(NamedSpec.of("OneCycleLR", max_lr=0.1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"layer_type_dtypes": {"linear": "int8"}}, "layer_type_dtypes.linear: must be 'float32'")],
)
def test_keys_without_an_effect_are_refused_where_they_would_change_one(changes, message):
    assert message in refusal(**changes)


def test_a_mistake_is_reported_without_jax():
    code = (
        "import sys; from seqjax.config.train import TrainingSpec; assert 'jax' not in sys.modules;"
        "assert 'optax' not in sys.modules and 'polars' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
