"""Draws follow the distribution, repeat with the seed, and depend on nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.config.schema import HeadName
from seqjax.inference.sample import Reader, Reading
from seqjax.model.distributions import DISTRIBUTIONS, SamplingRule

draw = DISTRIBUTIONS["categorical"].draw

PROBABILITIES = np.array([0.0, 0.05, 0.3, 0.0, 0.6, 0.05, 0.0])


def log_probs(rows: int, probabilities: np.ndarray = PROBABILITIES) -> np.ndarray:
    with np.errstate(divide="ignore"):
        row = np.log(probabilities).astype(np.float32)
    return np.broadcast_to(row, (rows, 1, len(row)))


RULES = {
    "as predicted": (SamplingRule(), PROBABILITIES),
    "sharper": (SamplingRule(temperature=0.5), PROBABILITIES**2),
    "flatter": (SamplingRule(temperature=2.0), PROBABILITIES**0.5),
    # Of the two classes of probability 0.05, the lower id is the third most probable.
    "top_k": (SamplingRule(top_k=3), PROBABILITIES * [0, 1, 1, 0, 1, 0, 0]),
    "top_p": (SamplingRule(top_p=0.61), PROBABILITIES * [0, 0, 1, 0, 1, 0, 0]),
    "all": (SamplingRule(2.0, top_k=3, top_p=0.75), PROBABILITIES**0.5 * [0, 0, 1, 0, 1, 0, 0]),
}


@pytest.mark.parametrize(("rule", "weights"), RULES.values(), ids=RULES)
def test_frequencies_match_the_probabilities(rule: SamplingRule, weights: np.ndarray) -> None:
    rows = 40_000
    read = Reader({"item": "categorical"}, sampled=["item"], seed=3, rule=rule)
    counts = np.bincount(read({"item": log_probs(rows)}).values["item"][:, 0], minlength=7)
    possible = weights > 0
    assert not counts[~possible].any()
    expected = rows * weights[possible] / weights.sum()
    chi_square = ((counts[possible] - expected) ** 2 / expected).sum()
    quantiles = {1: 10.83, 2: 13.82, 3: 16.27}  # Of order 0.999, by degrees of freedom.
    assert chi_square < quantiles[possible.sum() - 1]


@pytest.mark.parametrize("rule", [rule for rule, _ in RULES.values()], ids=RULES)
def test_jax_draws_what_numpy_draws(rule: SamplingRule) -> None:
    rng = np.random.default_rng(5)
    logs = jax.nn.log_softmax(jnp.asarray(rng.normal(size=(3000, 1, 40)) * 3, jnp.float32))
    uniform = rng.random((3000, 1), np.float32)
    found = jax.jit(lambda logs, uniform: draw(logs, uniform, rule))(logs, uniform)
    expected = draw(np.asarray(logs), uniform, rule)
    # The numbers that fall on a border but for rounding are about one in a million.
    assert (np.asarray(found) != expected).sum() <= 1


def test_the_most_probable_class_always_remains() -> None:
    rule = SamplingRule(top_k=1, top_p=1e-9)
    assert set(draw(log_probs(9), np.linspace(0, 0.99, 9)[:, None], rule)[:, 0].tolist()) == {4}


@pytest.mark.parametrize("uniform", [0.0, 0.5, np.nextafter(1.0, 0.0)])
def test_impossible_classes_are_never_drawn(uniform: float) -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(7, 0.3), size=200) * (rng.random((200, 7)) > 0.4)
    probabilities[:, 3] += 1e-9
    with np.errstate(divide="ignore"):
        logs = np.log(probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)[:, None]
    drawn = draw(logs, np.full((200, 1), uniform))
    assert (np.take_along_axis(probabilities[:, None], drawn[..., None], axis=-1) > 0).all()


def test_inverse_of_the_cumulative_distribution() -> None:
    uniform = np.array([[0.0], [0.049], [0.051], [0.349], [0.351], [0.949], [0.951], [0.9999]])
    assert draw(log_probs(8), uniform)[:, 0].tolist() == [1, 1, 2, 2, 4, 4, 5, 5]


def test_draws_repeat_with_the_seed_and_ignore_batches_and_other_targets() -> None:
    flat = np.full(5, 0.2)
    kinds: dict[str, HeadName] = {"a": "categorical", "b": "categorical"}

    def draw(seed: int, sizes: list[int], sampled: list[str]) -> dict[str, list[int]]:
        read = Reader(kinds, sampled=sampled, seed=seed)
        parts = [read({name: log_probs(size, flat) for name in kinds}).values for size in sizes]
        return {name: np.concatenate([part[name] for part in parts])[:, 0].tolist() for name in kinds}

    whole = draw(1, [50], ["a", "b"])
    assert whole == draw(1, [7, 30, 13], ["b", "a"])
    assert whole["b"] == draw(1, [50], ["b"])["b"]
    assert whole["a"] != whole["b"]
    assert whole["a"] != draw(2, [50], ["a", "b"])["a"]


def test_mode_real_values_and_kept_distributions() -> None:
    outputs = {
        "item": np.log(np.array([[[0.1, 0.2, 0.7]], [[0.5, 0.4, 0.1]]], np.float32)),
        "price": np.array([[[1.5]], [[-2.0]]], np.float32),
    }
    readout = Reader({"item": "categorical", "price": "point"}, keep_log_probs=["item"])(outputs)
    assert readout.values["item"].tolist() == [[2], [0]]
    assert readout.values["item"].dtype == np.int64
    assert readout.values["price"].tolist() == [[1.5], [-2.0]]
    assert list(readout.log_probs) == ["item"]
    assert not Reader({"item": "categorical"})(outputs).log_probs


@pytest.mark.parametrize("rule", [rule for rule, _ in RULES.values()], ids=RULES)
@pytest.mark.parametrize("on_device", [False, True])
def test_unknown_is_neither_predicted_nor_drawn(rule: SamplingRule, *, on_device: bool) -> None:
    """However probable it is, and whatever is cut off."""
    probabilities = np.array([0.9, 0.01, 0.03, 0.06])
    logs = log_probs(2000, probabilities)
    uniform = np.linspace(0, 1, 2000, endpoint=False, dtype=np.float32)[:, None]
    targets: tuple[tuple[str, HeadName], ...] = (("drawn", "categorical"), ("mode", "categorical"))
    reading = Reading(targets, ("drawn",), rule, unknown=False)

    def read(logs: np.ndarray) -> dict[str, np.ndarray]:
        return reading.values({"drawn": logs, "mode": logs}, {"drawn": uniform})

    found = jax.jit(read)(jnp.asarray(logs)) if on_device else read(logs)
    assert set(np.asarray(found["mode"])[:, 0].tolist()) == {3}
    drawn = np.bincount(np.asarray(found["drawn"])[:, 0], minlength=4)
    assert drawn[0] == 0
    without = np.array([0, *probabilities[1:]])
    order = np.argsort(-without, kind="stable")[: rule.top_k]
    expected = np.zeros(4)
    expected[order] = without[order] ** (1 / rule.temperature)
    if rule.top_p is None:
        np.testing.assert_allclose(drawn / 2000, expected / expected.sum(), atol=2e-3)
    else:
        assert drawn[3] > 0
