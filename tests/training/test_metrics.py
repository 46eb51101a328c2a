"""Each metric against numpy, on real positions alone; sums of parts make the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.config.schema import Schema
from seqjax.training.evaluate import Measured, measured_targets, metric_sums, metric_values, no_metric_sums
from seqjax.training.objective import Sums, added, mean_losses
from tests.batches import batch_of

RNG = np.random.default_rng(2)
PADDING = np.asarray([0, 3, 7, 6])
REAL = np.arange(1, 7)[None] >= PADDING[:, None]
STD = 12.5
# Without the id 0, a missing value, which is measured nowhere.
IDS = RNG.integers(1, 9, (4, 7))
VALUES = RNG.normal(size=(4, 7)).astype(np.float32)
# A coarse grid, so that some classes are equally likely.
LOGITS = np.round(RNG.normal(size=(4, 6, 9)) * 3).astype(np.float32)
OUTPUT = RNG.normal(size=(4, 6, 1)).astype(np.float32)
MEASURED = {
    "c": Measured("categorical", ("perplexity", "top_1_accuracy", "top_3_accuracy", "top_5_accuracy")),
    "r": Measured("point", ("mae", "rmse"), STD),
}


def batch(rows=slice(None)):
    # What stands on padding must not matter.
    columns = {"c": jnp.asarray(IDS[rows], jnp.int32), "r": jnp.asarray(VALUES[rows])}
    return batch_of(columns, jnp.asarray(PADDING[rows]))


def sums(rows=slice(None), *, poison=0.0):
    logits = np.where(REAL[..., None], LOGITS, poison)[rows]
    output = np.where(REAL[..., None], OUTPUT, poison)[rows]
    outputs = {"c": jnp.asarray(logits, jnp.float32), "r": jnp.asarray(output, jnp.float32)}
    return jax.jit(lambda outputs, batch: metric_sums(MEASURED, outputs, batch))(outputs, batch(rows))


def by_numpy(name):
    truth, logits = IDS[:, 1:][REAL], LOGITS[REAL].astype(np.float64)
    error = (OUTPUT[..., 0] - VALUES[:, 1:])[REAL].astype(np.float64) * STD
    if name == "perplexity":
        shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        return np.exp(-np.log(shares[np.arange(len(truth)), truth]).mean())
    if name.startswith("top"):
        # The class of missing values is none of the guesses.
        likeliest = 1 + np.argsort(-logits[:, 1:], axis=-1, kind="stable")[:, : int(name[4])]
        return (likeliest == truth[:, None]).any(-1).mean()
    return {"mae": np.abs(error).mean(), "rmse": np.sqrt((error**2).mean())}[name]


@pytest.mark.parametrize(
    ("target", "name"), [(target, name) for target, row in MEASURED.items() for name in row.metrics]
)
def test_a_metric_is_what_numpy_finds(target, name):
    assert metric_values(MEASURED, [sums()])[target][name] == pytest.approx(by_numpy(name), rel=1e-6)


def test_the_first_of_equally_likely_classes_is_the_predicted_one():
    found = metric_values(MEASURED, [sums()])["c"]["top_1_accuracy"]
    assert found == pytest.approx((LOGITS.argmax(-1) == IDS[:, 1:])[REAL].mean())


def test_what_is_on_padding_does_not_matter():
    assert metric_values(MEASURED, [sums(poison=np.nan)]) == metric_values(MEASURED, [sums()])


def test_parts_add_up_on_the_device_and_on_the_host():
    whole = metric_values(MEASURED, [sums()])
    parts = [sums(slice(0, 1)), sums(slice(1, 4))]
    on_device = [added(added(no_metric_sums(MEASURED), parts[0]), parts[1])]
    for found in (metric_values(MEASURED, parts), metric_values(MEASURED, on_device)):
        for name, metrics in whole.items():
            assert found[name] == pytest.approx(metrics, rel=1e-6)


def test_of_no_position_there_is_no_metric():
    assert metric_values(MEASURED, [no_metric_sums(MEASURED)]) == {"c": {}, "r": {}}


def test_targets_are_measured_by_their_kind_and_size():
    schema = Schema(
        n_classes={"many": 9, "few": 4},
        categorical_inputs=("many",),
        real_inputs=("r", "s"),
        targets={"many": "categorical", "few": "categorical", "r": "real", "s": "real"},
        seq_length=6,
    )
    assert measured_targets(schema, {"r": STD}) == {
        "many": MEASURED["c"],
        "few": Measured("categorical", ("perplexity", "top_1_accuracy", "top_3_accuracy")),
        "r": MEASURED["r"],
        "s": Measured("point", ("mae", "rmse"), 1.0),
    }


def test_a_hopeless_model_has_an_infinite_perplexity():
    sums = {"c": {"nll": Sums(jnp.asarray(1e4), jnp.asarray(1.0))}}
    assert metric_values({"c": Measured("categorical", ("perplexity",))}, [sums])["c"]["perplexity"] == np.inf


def test_losses_are_added_up_before_they_are_divided():
    parts = [{"a": Sums(jnp.asarray(1.0), jnp.asarray(1.0))}, {"a": Sums(jnp.asarray(6.0), jnp.asarray(3.0))}]
    losses = mean_losses(parts, {"a": 2.0})
    assert losses.by_target == {"a": 1.75}
    assert losses.weighted == {"a": 3.5}
    assert losses.total == 3.5
    assert mean_losses([], {"a": 2.0}).total == 0.0
