import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.baselines import fit_baselines, predict_targets
from seqjax.config.schema import Schema
from seqjax.training.evaluate import Evaluator, evaluate_side_by_side
from seqjax.training.feed import ResidentFeed
from seqjax.training.objective import Target
from seqjax.windows.order import Order
from tests.batches import batch_of
from tests.training.conftest import make_windows


def chain(transitions, rows, seed=0):
    """A first-order Markov chain over ids 2 and up."""
    rng = np.random.default_rng(seed)
    states = np.zeros(rows, np.int64)
    for row in range(1, rows):
        states[row] = rng.choice(len(transitions), p=transitions[states[row - 1]])
    return (states + 2).astype(np.int16)


def entropy_rate(transitions):
    values, vectors = np.linalg.eig(transitions.T)
    stationary = np.real(vectors[:, np.argmax(np.real(values))])
    stationary /= stationary.sum()
    return float(-(stationary[:, None] * transitions * np.log(transitions)).sum())


def losses(windows, schema, targets):
    order = Order(len(windows), 50, shuffle=False)
    feed = ResidentFeed(windows, tuple(schema.columns))
    evaluator = Evaluator(lambda *_: {}, tuple(targets))
    fitted = fit_baselines(windows, schema)
    found = evaluate_side_by_side(evaluator, feed, order, fitted, predict=predict_targets)
    return {name: one.losses.by_target for rows in found.values() for name, one in rows.items()}


def one_column(name, kind, n_classes=None):
    categorical = kind == "categorical"
    return Schema(
        n_classes={name: n_classes} if n_classes else {},
        categorical_inputs=(name,) if categorical else (),
        real_inputs=() if categorical else (name,),
        targets={name: kind},
        seq_length=9,
    )


def test_markov_reaches_the_entropy_rate_of_a_chain():
    transitions = np.random.default_rng(1).dirichlet(np.ones(4), size=4)
    windows = make_windows({"item": chain(transitions, 20_000)}, 9)
    found = losses(windows, one_column("item", "categorical", 6), [Target("item", "CrossEntropyLoss")])
    assert list(found) == ["last value", "marginal", "first-order Markov", "second-order Markov"]
    assert found["second-order Markov"]["item"] == pytest.approx(entropy_rate(transitions), rel=0.01)
    assert found["first-order Markov"]["item"] == pytest.approx(entropy_rate(transitions), rel=0.01)
    assert found["marginal"]["item"] > found["first-order Markov"]["item"]


def test_a_column_that_repeats_is_easy_for_the_last_value():
    stay = 0.97
    transitions = np.full((5, 5), (1 - stay) / 4) + np.eye(5) * (stay - (1 - stay) / 4)
    windows = make_windows({"item": chain(transitions, 20_000)}, 9)
    found = losses(windows, one_column("item", "categorical", 7), [Target("item", "CrossEntropyLoss")])
    assert found["last value"]["item"] == pytest.approx(entropy_rate(transitions), rel=0.05)
    assert found["marginal"]["item"] == pytest.approx(np.log(5), rel=0.05)


def test_real_columns_follow_their_formulas():
    rng = np.random.default_rng(2)
    values = np.zeros(30_000)
    for row in range(1, len(values)):
        values[row] = 0.5 + 0.6 * values[row - 1] + rng.normal()
    windows = make_windows({"value": values.astype(np.float32)}, 9)
    found = losses(windows, one_column("value", "real"), [Target("value", "MSELoss")])
    assert found["first-order Markov"]["value"] == pytest.approx(1.0, rel=0.03)
    assert found["marginal"]["value"] == pytest.approx(values.var(), rel=0.03)
    assert found["last value"]["value"] == pytest.approx(np.square(np.diff(values)).mean(), rel=0.03)


def test_outputs_are_probabilities_and_padding_gives_the_marginal():
    schema = one_column("item", "categorical", 6)
    windows = make_windows({"item": chain(np.full((4, 4), 0.25), 200)}, 9, starts=[0, 50], lengths=[3, 10])
    host = windows.gather(np.arange(2))
    batch = batch_of(jax.tree.map(jnp.asarray, host.columns), jnp.asarray(host.padding))
    fitted = fit_baselines(windows, schema)
    for name, logits in predict_targets(jax.tree.map(jnp.asarray, fitted), batch)["item"].items():
        np.testing.assert_allclose(np.exp(logits).sum(-1), 1, rtol=1e-5)
        marginal = np.broadcast_to(fitted["item"][name]["marginal"], (7, 6))
        np.testing.assert_allclose(logits[0, :7], marginal, rtol=1e-6)


def test_too_many_classes_leave_markov_out():
    windows = make_windows({"item": np.arange(2, 60, dtype=np.int16)}, 9)
    found = fit_baselines(windows, one_column("item", "categorical", 5000))
    assert list(found["item"]) == ["last value", "marginal"]


def test_a_column_with_very_many_classes_has_no_transition_table(caplog):
    windows = make_windows({"item": np.arange(2, 40, dtype=np.int16)}, 9)
    with caplog.at_level("INFO", logger="seqjax"):
        found = fit_baselines(windows, one_column("item", "categorical", 5000))
    assert list(found["item"]) == ["last value", "marginal"]
    assert "No Markov baselines: item has more than 4096 classes." in caplog.text
