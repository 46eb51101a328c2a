"""Draws follow the distribution, repeat with the seed, and depend on nothing else."""

import numpy as np
import pytest

from seqjax.config.schema import ColumnKind
from seqjax.inference.sample import Reader, sample_classes

PROBABILITIES = np.array([0.0, 0.05, 0.3, 0.0, 0.6, 0.05, 0.0])


def log_probs(rows: int, probabilities: np.ndarray = PROBABILITIES) -> np.ndarray:
    with np.errstate(divide="ignore"):
        row = np.log(probabilities).astype(np.float32)
    return np.broadcast_to(row, (rows, 1, len(row)))


def test_frequencies_match_the_probabilities() -> None:
    rows = 40_000
    read = Reader({"item": "categorical"}, sampled=["item"], seed=3)
    counts = np.bincount(read({"item": log_probs(rows)}).values["item"][:, 0], minlength=7)
    possible = PROBABILITIES > 0
    assert not counts[~possible].any()
    expected = rows * PROBABILITIES[possible]
    chi_square = ((counts[possible] - expected) ** 2 / expected).sum()
    assert chi_square < 16.27  # The 0.999 quantile for 3 degrees of freedom.


@pytest.mark.parametrize("uniform", [0.0, 0.5, np.nextafter(1.0, 0.0)])
def test_impossible_classes_are_never_drawn(uniform: float) -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(7, 0.3), size=200) * (rng.random((200, 7)) > 0.4)
    probabilities[:, 3] += 1e-9
    with np.errstate(divide="ignore"):
        logs = np.log(probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)[:, None]
    drawn = sample_classes(logs, np.full((200, 1), uniform))
    assert (np.take_along_axis(probabilities[:, None], drawn[..., None], axis=-1) > 0).all()


def test_inverse_of_the_cumulative_distribution() -> None:
    uniform = np.array([[0.0], [0.049], [0.051], [0.349], [0.351], [0.949], [0.951], [0.9999]])
    assert sample_classes(log_probs(8), uniform)[:, 0].tolist() == [1, 1, 2, 2, 4, 4, 5, 5]


def test_draws_repeat_with_the_seed_and_ignore_batches_and_other_targets() -> None:
    flat = np.full(5, 0.2)
    kinds: dict[str, ColumnKind] = {"a": "categorical", "b": "categorical"}

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
    readout = Reader({"item": "categorical", "price": "real"}, keep_log_probs=["item"])(outputs)
    assert readout.values["item"].tolist() == [[2], [0]]
    assert readout.values["item"].dtype == np.int64
    assert readout.values["price"].tolist() == [[1.5], [-2.0]]
    assert list(readout.log_probs) == ["item"]
    assert not Reader({"item": "categorical"})(outputs).log_probs
