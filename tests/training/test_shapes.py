"""Which runs are trained together, and in which numbers they may differ."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.config.base import Problems
from seqjax.config.changes import marked_keys
from seqjax.config.optimization import OPTIMIZERS, NamedSpec, optimizer_settings
from seqjax.config.train import TrainConfig
from seqjax.optim.optimizers import build_optimizer
from seqjax.training.shapes import grouped_by_shape, shape_of, values_of
from tests.populations import SCHEMA, config


def test_what_is_a_value_does_not_split_a_group():
    alike = [
        {"learning_rate": 0.5},
        {"scheduler": {"name": "WarmupCosine", "total_steps": 5}, "scheduler_step_on": "batch"},
        {"dropout": 0.5},
        {"epochs": 3, "early_stopping_epochs": 2},
        {"gradient_clip": None},
        {"loss_weights": {"item": 1, "value": 2}},
        {"class_weights": {"item": [1, 2, 3, 4, 5]}},
        {"label_smoothing": 0.1},
        {"huber_delta": 0.5},
        {"smooth_l1_beta": 0.5},
        {"save_interval_minutes": 3},
        {"log_interval": 4},
        {"optimizer": {"name": "AdamW", "betas": [0.5, 0.6], "eps": 0.1, "weight_decay": 0}},
    ]
    base = shape_of(config())
    assert {shape_of(config(changes)) for changes in alike} == {base}
    assert shape_of(config(seed=9, model_name="other", export_onnx=False)) == base


def test_what_is_compiled_in_does():
    unlike = [
        {"batch_size": 5},
        {"accumulation_steps": 2},
        {"optimizer": {"name": "Adam"}},
        {"optimizer": {"name": "SGD"}},
        {"optimizer": {"name": "SGD", "momentum": 0.9}},
        {"optimizer": {"name": "SGD", "momentum": 0.9, "nesterov": True}},
        {"criterion": {"item": "CrossEntropyLoss", "value": "L1Loss"}},
    ]
    shapes = {shape_of(config()), *(shape_of(config(changes)) for changes in unlike)}
    assert len(shapes) == len(unlike) + 1
    assert shape_of(config(seq_length=5)) not in shapes
    momenta = [config({"optimizer": {"name": "SGD", "momentum": rate}}) for rate in (0.9, 0.5)]
    assert shape_of(momenta[0]) == shape_of(momenta[1])


OTHER_VALUES = {
    "seed": 9,
    "model_name": "other",
    "inference_batch_size": 7,
    "embedding_layers": [0],
    "training_spec.epochs": 3,
    "training_spec.learning_rate": 0.5,
    "training_spec.optimizer": {"name": "AdamW", "weight_decay": 0.5},
    "training_spec.scheduler": {"name": "ExponentialLR", "gamma": 0.5},
    "training_spec.scheduler_step_on": "batch",
    "training_spec.dropout": 0.3,
    "training_spec.gradient_clip": 2.0,
    "training_spec.loss_weights": {"item": 2.0, "value": 1.0},
    "training_spec.class_weights": {"item": [1, 2, 3, 4, 5]},
    "training_spec.label_smoothing": 0.3,
    "training_spec.huber_delta": 0.3,
    "training_spec.smooth_l1_beta": 0.3,
    "training_spec.early_stopping_epochs": 3,
    "training_spec.warm_start": "other.pt",
    "training_spec.save_interval_minutes": 0.5,
    "training_spec.save_interval_steps": 5,
    "training_spec.save_interval_epochs": 5,
    "training_spec.keep_checkpoints": 7,
    "training_spec.log_interval": 7,
    "training_spec.log_to": ["tensorboard"],
    "categorical_columns": ["item"],
    "real_columns": ["value"],
    "training_spec.world_size": 7,
    "training_spec.backend": "gloo",
    "training_spec.device_max_concat_length": 7,
}


@pytest.mark.parametrize("key", marked_keys(TrainConfig, lambda mark: not mark.is_compiled))
def test_runs_that_differ_in_what_is_not_compiled_in_share_programs(key):
    """Every key that is marked so: the shape is the same, and so are the names of the numbers taken in."""
    criterion = {"criterion": {"item": "CrossEntropyLoss", "value": "HuberLoss"}}
    section, _, name = key.rpartition(".")
    default = config(criterion)
    before = default.training_spec if section else default
    value = OTHER_VALUES.get(key, not getattr(before, name))
    other = config(criterion | ({name: value} if section else {}), **({} if section else {name: value}))
    assert other != default
    assert shape_of(other) == shape_of(default)
    ours, theirs = values_of([default, other], SCHEMA)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)


def test_groups_keep_the_order_of_the_runs():
    sizes = [4, 5, 4, 6, 5]
    runs = [(place, config({"batch_size": size})) for place, size in enumerate(sizes)]
    assert grouped_by_shape(runs) == [[0, 2], [1, 4], [3]]


def test_values_are_those_in_which_runs_differ():
    some = [
        config({"dropout": 0.1, "class_weights": {"item": [1, 2, 3, 4, 5]}}),
        config({"dropout": 0.2, "gradient_clip": None}),
        config({"dropout": 0.2, "optimizer": {"name": "AdamW", "weight_decay": 0.02, "betas": [0.5, 0.999]}}),
    ]
    found = values_of(some, SCHEMA)
    assert [sorted(one) for one in found] == [["clip", "dropout", "optimizer", "targets"]] * 3
    assert [one["dropout"] for one in found] == [0.1, 0.2, 0.2]
    assert [one["clip"] for one in found] == [0.5, float("inf"), 0.5]
    assert [one["optimizer"] for one in found] == [{"betas": (0.9, 0.999)}] * 2 + [{"betas": (0.5, 0.999)}]
    np.testing.assert_array_equal(found[1]["targets"]["item"]["class_weights"], np.ones(5))
    assert list(found[1]["targets"]) == ["item"]
    assert values_of(some[:1], SCHEMA) == [{}]


def variants(name):
    """An optimizer with each of its numbers in turn at 0 and elsewhere, as far as these may be."""
    base = {"momentum": 0.9} if "momentum" in vars(optimizer_settings(NamedSpec.of(name))) else {}
    yield base
    for key, value in vars(optimizer_settings(NamedSpec.of(name, **base))).items():
        numbers = value if isinstance(value, tuple) else (value,)
        if not numbers or not all(isinstance(number, float) for number in numbers):
            continue
        for number in (0.0, 0.3):
            one = [number, *numbers[1:]] if isinstance(value, tuple) else number
            try:
                optimizer_settings(NamedSpec.of(name, **{**base, key: one}))
            except Problems:
                continue
            yield {**base, key: one}


def moved(own, optimizer):
    """Where three updates of an optimizer lead from the state that a run's own one begins with."""
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(3, 2))), "b": {"0": jnp.asarray(rng.normal(size=3))}}
    state = own.init(params)
    for _ in range(3):
        grads = jax.tree.map(lambda leaf: leaf * leaf + 0.1, params)
        params, state = optimizer.rule.update(grads, state, params, 0.01)
    return params, state


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_number_that_is_taken_in_does_what_one_that_is_compiled_in_does(name):
    """The programs of a group are built for one of its runs, and take in the numbers of the others."""
    groups = {}
    for arguments in variants(name):
        settings = config({"optimizer": {"name": name, **arguments}})
        groups.setdefault(shape_of(settings), []).append(settings)
    with jax.enable_x64(True):
        for group in groups.values():
            optimizers = [build_optimizer(one.training_spec.optimizer) for one in group]
            values = [one.get("optimizer", {}) for one in values_of(group, SCHEMA)]
            for first in (optimizers[0], optimizers[-1]):
                for own, numbers in zip(optimizers, values, strict=True):
                    taken_in = first.with_values(jax.tree.map(jnp.asarray, numbers))
                    jax.tree.map(np.testing.assert_allclose, moved(own, taken_in), moved(own, own))
