import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.training.evaluate import CompiledEvaluator, Evaluator, Measured
from seqjax.training.feed import ResidentFeed, StreamedFeed
from seqjax.training.objective import loss_sums, loss_weights, mean_losses
from seqjax.training.placement import Placement
from seqjax.training.step import forward
from seqjax.windows.order import Order
from tests.batches import batch_of

MEASURED = {
    "item": Measured("categorical", ("perplexity", "top_1_accuracy", "top_3_accuracy")),
    "value": Measured("point", ("mae", "rmse"), 3.0),
}


def evaluated(case, size, *, feed: type[ResidentFeed | StreamedFeed] = ResidentFeed):
    apply = forward(case.graphdef, case.schema.inputs)
    order = Order(len(case.windows), size, shuffle=False)
    evaluator = Evaluator(
        lambda params, batch: apply(params, batch, None), tuple(case.targets), {"item": 5}, MEASURED
    )
    return evaluator.result(
        CompiledEvaluator(evaluator, case.feed(feed), order, Placement())(case.params, {})
    )


@pytest.fixture(scope="module")
def by_hand(case):
    """Outputs, losses and the whole data as one batch."""
    host = case.windows.gather(np.arange(len(case.windows)), case.columns)
    batch = batch_of(jax.tree.map(jnp.asarray, host.columns), jnp.asarray(host.padding))
    outputs = jax.jit(lambda p, b: forward(case.graphdef, case.schema.inputs)(p, b, None))(case.params, batch)
    losses = mean_losses([loss_sums(case.targets, outputs, batch)], loss_weights(case.targets))
    return outputs, losses, batch


@pytest.mark.parametrize("size", [4, 21])
def test_batches_of_any_size_give_the_mean_over_all(case, by_hand, size):
    found = evaluated(case, size).losses
    assert found.by_target == pytest.approx(by_hand[1].by_target, rel=1e-5)
    assert found.total == pytest.approx(by_hand[1].total, rel=1e-5)


def test_a_streamed_feed_finds_the_same(case):
    resident, streamed = evaluated(case, 4), evaluated(case, 4, feed=StreamedFeed)
    assert resident.losses.by_target == pytest.approx(streamed.losses.by_target, rel=1e-6)


def test_shares_are_of_real_positions_only(case, by_hand):
    outputs, _, batch = by_hand
    real = np.arange(1, 7)[None] >= np.asarray(batch.padding)[:, None]
    chosen = 1 + np.asarray(outputs["item"])[..., 1:].argmax(-1)[real]  # Class 0 is never predicted.
    np.testing.assert_allclose(
        evaluated(case, 4).shares["item"], np.bincount(chosen, minlength=5) / len(chosen)
    )


@pytest.mark.parametrize("size", [4, 21])
def test_metrics_are_of_all_real_positions(case, by_hand, size):
    outputs, _, batch = by_hand
    real = np.arange(1, 7)[None] >= np.asarray(batch.padding)[:, None]
    logits, ids = np.asarray(outputs["item"])[real], np.asarray(batch.columns["item"])[:, 1:][real]
    error = (np.asarray(outputs["value"])[..., 0] - np.asarray(batch.columns["value"])[:, 1:])[real] * 3.0
    entropy = np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(ids)), ids]
    # Class 0 is never predicted.
    ranks = (-logits[:, 1:]).argsort(-1).argsort(-1)[np.arange(len(ids)), ids - 1]
    found = evaluated(case, size).metrics
    assert found["item"] == pytest.approx(
        {
            "perplexity": np.exp(entropy.mean()),
            "top_1_accuracy": (ranks < 1).mean(),
            "top_3_accuracy": (ranks < 3).mean(),
        },
        rel=1e-5,
    )
    assert found["value"] == pytest.approx(
        {"mae": np.abs(error).mean(), "rmse": np.sqrt((error**2).mean())}, rel=1e-5
    )
