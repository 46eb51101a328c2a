import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from seqjax.config.optimization import CRITERIA
from seqjax.config.schema import Schema
from seqjax.config.train import TrainingSpec
from seqjax.training.objective import (
    Target,
    build_targets,
    loss_sums,
    loss_weights,
    total_weights,
    weighing,
    weighted_loss,
    without_smoothing,
)
from tests.batches import batch_of

RNG = np.random.default_rng(1)
IDS = RNG.integers(1, 4, (3, 6)).astype(np.int32)
VALUES = RNG.normal(size=(3, 6)).astype(np.float32)
PADDING = np.asarray([0, 3, 6])
REAL = np.arange(6)[None] >= PADDING[:, None]
LOGITS = RNG.normal(size=(3, 5, 4)).astype(np.float32) * 3
OUTPUT = RNG.normal(size=(3, 5, 1)).astype(np.float32) * 3
MEAN_AND_SCALE = np.concatenate([OUTPUT, RNG.normal(size=(3, 5, 1)).astype(np.float32)], axis=-1)
OUTPUTS = {"c": jnp.asarray(LOGITS), "r": jnp.asarray(OUTPUT), "g": jnp.asarray(MEAN_AND_SCALE)}
UNIT_SCALE = np.log(np.expm1(0.999))
CLASS_WEIGHTS = np.asarray([0.1, 2.0, 0.0, 1.5], np.float32)


def batch():
    columns = {"c": jnp.asarray(np.where(REAL, IDS, 0)), "r": jnp.asarray(np.where(REAL, VALUES, 0))}
    columns["g"] = columns["r"]
    return batch_of(columns, jnp.asarray(PADDING))


def by_hand(criterion):
    error = OUTPUT[..., 0] - VALUES[:, 1:]
    small = np.abs(error) < 1
    huber = np.where(small, error**2 / 2, np.abs(error) - 0.5)
    log_probs = LOGITS - np.log(np.exp(LOGITS).sum(-1, keepdims=True))
    entropy = -np.take_along_axis(log_probs, IDS[:, 1:, None], -1)[..., 0]
    rows = {
        "CrossEntropyLoss": entropy,
        "NLLLoss": entropy,
        "MSELoss": error**2,
        "L1Loss": np.abs(error),
        "SmoothL1Loss": huber,
        "HuberLoss": huber,
        "GaussianNLLLoss": -norm.logpdf(
            error, scale=np.log1p(np.exp(MEAN_AND_SCALE[..., 1] + UNIT_SCALE)) + 1e-3
        ),
    }
    return rows[criterion]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_each_criterion_is_a_mean_over_real_positions(criterion):
    column = {"categorical": "c", "point": "r", "gaussian": "g"}[CRITERIA[criterion]]
    target = Target(column, criterion)
    sums = loss_sums([target], OUTPUTS, batch())[column]
    mask = REAL[:, 1:]
    assert sums.weight == mask.sum()
    np.testing.assert_allclose(sums.total, by_hand(criterion)[mask].sum(), rtol=1e-6)


def test_weighing_tells_long_class_weights_apart():
    def weighed(place):
        weights = np.ones(2000, np.float32)
        weights[place] = 2.0
        return weighing([Target("item", "CrossEntropyLoss", 1.0, weights)])

    assert weighed(1000) != weighed(1001)
    assert weighed(1000) == weighed(1000)


def test_class_weights_divide_by_their_sum():
    sums = loss_sums(
        [Target("c", "CrossEntropyLoss", 1.0, CLASS_WEIGHTS)], {"c": jnp.asarray(LOGITS)}, batch()
    )["c"]
    weights = CLASS_WEIGHTS[IDS[:, 1:]] * REAL[:, 1:]
    expected = (weights * by_hand("CrossEntropyLoss")).sum() / weights.sum()
    np.testing.assert_allclose(sums.total / sums.weight, expected, rtol=1e-6)


@pytest.mark.parametrize("class_weights", [None, CLASS_WEIGHTS])
def test_label_smoothing_is_that_of_torch(class_weights):
    # torch 2.13: nn.functional.cross_entropy(logits, ids, weight=class_weights, label_smoothing=0.2).
    logits, ids = np.array([[[0.5, -1.0, 2.0, 0.1], [1.5, 0.3, -0.7, 0.0]]]), np.array([[0, 3, 1]])
    expected = 1.9445633698 if class_weights is None else 1.7840237775
    truth = batch_of({"c": jnp.asarray(ids)}, jnp.asarray([0]))
    target = Target("c", "CrossEntropyLoss", 1.0, class_weights, 0.2)
    sums = loss_sums([target], {"c": jnp.asarray(logits, jnp.float32)}, truth)["c"]
    np.testing.assert_allclose(sums.total / sums.weight, expected, rtol=1e-6)
    assert without_smoothing([target])[0].label_smoothing == 0


def test_label_smoothing_leaves_padding_out():
    target = Target("c", "CrossEntropyLoss", label_smoothing=0.3)
    wild = np.where(REAL[:, 1:, None], LOGITS, np.inf)
    sums = [loss_sums([target], {"c": jnp.asarray(logits)}, batch())["c"] for logits in (LOGITS, wild)]
    assert sums[0].total == sums[1].total


@pytest.mark.parametrize(("criterion", "scale"), [("HuberLoss", 1.0), ("SmoothL1Loss", 1 / 0.4)])
def test_the_bend_of_a_huber_loss_can_be_moved(criterion, scale):
    error = np.abs(OUTPUT[..., 0] - VALUES[:, 1:])
    expected = np.where(error < 0.4, error**2 / 2, 0.4 * (error - 0.2)) * scale
    target = Target("r", criterion, threshold=0.4)
    total = loss_sums([target], {"r": jnp.asarray(OUTPUT)}, batch())["r"].total
    np.testing.assert_allclose(total, expected[REAL[:, 1:]].sum(), rtol=1e-6)


def test_the_loss_is_the_weighted_sum_over_targets():
    targets = [Target("c", "CrossEntropyLoss", 0.25), Target("r", "MSELoss", 2.0)]
    sums = loss_sums(targets, {"c": jnp.asarray(LOGITS), "r": jnp.asarray(OUTPUT)}, batch())
    mask = REAL[:, 1:]
    expected = 0.25 * by_hand("CrossEntropyLoss")[mask].mean() + 2 * by_hand("MSELoss")[mask].mean()
    np.testing.assert_allclose(
        weighted_loss(targets, sums, total_weights(targets, batch())), expected, rtol=1e-6
    )
    assert loss_weights(targets) == {"c": 0.25, "r": 2.0}


def test_an_empty_batch_has_no_loss_and_no_gradient():
    empty = batch()._replace(padding=jnp.full(3, 6), first_target=jnp.full(3, 6))
    targets = [Target("c", "CrossEntropyLoss"), Target("r", "MSELoss")]

    def loss(outputs):
        return weighted_loss(targets, loss_sums(targets, outputs, empty), total_weights(targets, empty))

    value, grads = jax.value_and_grad(loss)({"c": jnp.asarray(LOGITS), "r": jnp.asarray(OUTPUT)})
    assert value == 0
    assert all(not np.asarray(grad).any() for grad in jax.tree.leaves(grads))


def test_an_infinite_loss_on_padding_does_not_count():
    outputs = np.where(REAL[:, 1:, None], OUTPUT, np.inf)
    sums = loss_sums([Target("r", "MSELoss")], {"r": jnp.asarray(outputs)}, batch())["r"]
    assert np.isfinite(sums.total)


def test_targets_are_taken_from_the_configuration():
    schema = Schema(
        n_classes={"c": 4},
        categorical_inputs=("c",),
        real_inputs=("r",),
        targets={"r": "real", "c": "categorical"},
        seq_length=5,
    )
    spec = TrainingSpec.model_validate(
        {
            "device": "cpu",
            "epochs": 1,
            "save_interval_epochs": 1,
            "batch_size": 1,
            "learning_rate": 0.1,
            "criterion": {"c": "CrossEntropyLoss", "r": "HuberLoss"},
            "loss_weights": {"c": 3.0, "r": 1.0},
            "class_weights": {"c": [1, 2, 3, 4]},
            "label_smoothing": 0.1,
            "huber_delta": {"r": 0.5},
        }
    )
    real, categorical = build_targets(schema, spec)
    assert (real.name, real.criterion, real.loss_weight, real.class_weights) == ("r", "HuberLoss", 1.0, None)
    assert (categorical.name, categorical.loss_weight) == ("c", 3.0)
    np.testing.assert_array_equal(categorical.class_weights, [1, 2, 3, 4])
    assert (categorical.label_smoothing, real.label_smoothing, real.threshold) == (0.1, 0.0, 0.5)
