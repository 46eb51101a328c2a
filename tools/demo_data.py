"""A table of event sequences whose best possible loss is known.

The process has two columns. `event` is a second-order Markov chain: the next category depends on the last
two. `level` is real and wanders around a mean that the previous category sets:

    c[t] ~ transitions[c[t-2], c[t-1]]
    x[t] = means[c[t-1]] + r[t],    r[t] = persistence * r[t-1] + noise * normal

Given two items, the best prediction of the next one is therefore `transitions[c[t-1], c[t]]` for the
category, and for the real value a mean whose squared error is the noise variance alone. The first items
of a window have less to go by. Every sequence starts in equilibrium, so the best predictions from one
item or none are known exactly too: `r` is independent of the categories, and all there is to infer from
one item (c, x) is the category before it. The loss of those predictions on given windows is the optimum
that `optimal_losses` returns: no model can be expected to do better, at any position.
"""

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

EVENTS = ("browse", "cart", "help", "login", "pay", "search", "share", "wish")
SEQUENCES, ITEMS, SEED = 400, 200, 1010


@dataclass(frozen=True)
class Process:
    """The parameters of the process; C categories."""

    transitions: Float[np.ndarray, "C C C"]
    """Probability of the next category, given the last but one and the last."""
    means: Float[np.ndarray, " C"]
    """Mean of the next real value, given the last category."""
    persistence: float
    """Share of the deviation from the mean that lasts to the next item."""
    noise: float
    """Standard deviation of what is new in every real value."""

    @property
    def pairs(self) -> Float[np.ndarray, "C C"]:
        """Long-run share of each pair of consecutive categories."""
        classes = len(self.means)
        pairs = np.full((classes, classes), 1 / classes**2)
        for _ in range(10_000):
            following = np.einsum("ab,abc->bc", pairs, self.transitions)
            if np.abs(following - pairs).max() < 1e-15:
                break
            pairs = following
        return pairs / pairs.sum()

    @property
    def entropy_rate(self) -> float:
        """Nats a category, on average, that two items of history leave open."""
        entropies = -(self.transitions * np.log(np.maximum(self.transitions, 1e-300))).sum(axis=2)
        return float((self.pairs * entropies).sum())

    @property
    def spread(self) -> float:
        """Standard deviation of the deviation from the mean, in equilibrium."""
        return self.noise / (1 - self.persistence**2) ** 0.5

    @property
    def variance(self) -> float:
        """Variance of the real column, in equilibrium."""
        shares = self.pairs.sum(axis=1)
        mean = shares @ self.means
        return float(shares @ (self.means - mean) ** 2 + self.spread**2)


class Losses(NamedTuple):
    """Loss of every predicted item; NaN where a slot holds no real item. W windows, L predicted items."""

    cross_entropy: Float[np.ndarray, "W L"]
    """Of the category, in nats."""
    squared_error: Float[np.ndarray, "W L"]
    """Of the real value, in its own units."""


def make_process(seed: int = SEED, classes: int = 6) -> Process:
    """A process with `classes` categories, drawn from a seed."""
    rng = np.random.default_rng(seed)
    transitions = rng.dirichlet(np.full(classes, 0.5), size=(classes, classes))
    means = rng.permutation(np.linspace(-1.5, 1.5, classes))
    return Process(transitions=transitions, means=means, persistence=0.7, noise=0.5)


def sample(
    process: Process, sequences: int, items: int, seed: int = SEED
) -> tuple[Int[np.ndarray, "sequences items"], Float[np.ndarray, "sequences items"]]:
    """Draws sequences in equilibrium: the categories and the real values of every item."""
    rng = np.random.default_rng((seed, 1))
    classes = len(process.means)
    first = rng.choice(classes**2, size=sequences, p=process.pairs.ravel())
    # One more category than asked for: the one before the first item sets the first real value's mean.
    categories = np.empty((sequences, items + 1), dtype=np.int64)
    categories[:, 0], categories[:, 1] = np.divmod(first, classes)
    cumulative = process.transitions.cumsum(axis=2)
    for t in range(2, items + 1):
        drawn = rng.random((sequences, 1)) > cumulative[categories[:, t - 2], categories[:, t - 1]]
        categories[:, t] = np.minimum(drawn.sum(axis=1), classes - 1)
    deviations = np.empty((sequences, items))
    deviations[:, 0] = process.spread * rng.standard_normal(sequences)
    for t in range(1, items):
        new = process.noise * rng.standard_normal(sequences)
        deviations[:, t] = process.persistence * deviations[:, t - 1] + new
    return categories[:, 1:], process.means[categories[:, :-1]] + deviations


def optimal_losses(
    process: Process,
    categories: Int[np.ndarray, "W slots"],
    values: Float[np.ndarray, "W slots"],
    padding: Int[np.ndarray, " W"],
) -> Losses:
    """The losses of the best possible predictor on windows of L + 1 slots, whose first is never predicted.

    Args:
      process: What drew the items.
      categories: Category of each slot; any where it is padding.
      values: Real value of each slot; any where it is padding.
      padding: Number of leading slots that hold no item.
    """
    real: Bool[np.ndarray, "W slots"] = np.arange(categories.shape[1]) >= padding[:, None]
    before = np.maximum(np.arange(1, categories.shape[1]) - 2, 0)
    c, x = np.where(real, categories, 0), np.where(real, values, 0.0)
    last_c, last_x, earlier_c = c[:, :-1], x[:, :-1], c[:, before]

    shares = process.pairs.sum(axis=1)
    belief = _previous_category(process, last_c, last_x)  # Knowing one item.
    probabilities = np.select(
        [_history(real, 2), _history(real, 1)],
        [
            process.transitions[earlier_c, last_c],
            np.einsum("wla,awlc->wlc", belief, process.transitions[:, last_c]),
        ],
        default=shares,
    )
    expected = np.select(
        [_history(real, 2)[..., 0], _history(real, 1)[..., 0]],
        [
            _mean(process, last_c, last_x, process.means[earlier_c]),
            _mean(process, last_c, last_x, belief @ process.means),
        ],
        default=shares @ process.means,
    )
    predicted = real[:, 1:]
    likelihood = np.take_along_axis(probabilities, c[:, 1:, None], axis=2)[..., 0]
    return Losses(
        cross_entropy=np.where(predicted, -np.log(np.maximum(likelihood, 1e-300)), np.nan),
        squared_error=np.where(predicted, (x[:, 1:] - expected) ** 2, np.nan),
    )


def _history(real: Bool[np.ndarray, "W slots"], items: int) -> Bool[np.ndarray, "W L 1"]:
    """Whether at least so many real items lie before each predicted slot."""
    counts = np.cumsum(real, axis=1)[:, :-1]
    return (counts >= items)[..., None]


def _mean(
    process: Process,
    last_c: Int[np.ndarray, "W L"],
    last_x: Float[np.ndarray, "W L"],
    earlier_mean: Float[np.ndarray, "W L"],
) -> Float[np.ndarray, "W L"]:
    """The expected next real value, given what the last one's mean was."""
    return process.means[last_c] + process.persistence * (last_x - earlier_mean)


def _previous_category(
    process: Process, c: Int[np.ndarray, "W L"], x: Float[np.ndarray, "W L"]
) -> Float[np.ndarray, "W L C"]:
    """Probability of each category at the item before (c, x), given (c, x) alone."""
    prior = process.pairs.T[c]
    logits = -0.5 * ((x[..., None] - process.means) / process.spread) ** 2
    weights = prior * np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def write_csv(
    path: Path, categories: Int[np.ndarray, "sequences items"], values: Float[np.ndarray, "sequences items"]
) -> None:
    """Writes the sequences as the table that `seqjax preprocess` reads."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["sequenceId", "itemPosition", "event", "level"])
        for sequence, (row_c, row_x) in enumerate(zip(categories, values, strict=True)):
            for position, (c, x) in enumerate(zip(row_c, row_x, strict=True)):
                writer.writerow([sequence, position, EVENTS[c], f"{x:.6f}"])


def main() -> None:
    """Writes a table from the command line, and says what its optimum is."""
    parser = argparse.ArgumentParser(
        description="Writes a table of event sequences whose best possible loss is known."
    )
    parser.add_argument("path", type=Path, help="csv file to write")
    parser.add_argument("--sequences", type=int, default=SEQUENCES)
    parser.add_argument("--items", type=int, default=ITEMS, help="items a sequence")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    process = make_process(arguments.seed)
    write_csv(arguments.path, *sample(process, arguments.sequences, arguments.items, arguments.seed))
    print(f"{arguments.path}: {arguments.sequences} sequences of {arguments.items} items")
    print(f"entropy rate of `event`: {process.entropy_rate:.4f} nats")
    print(f"noise share of `level`: {process.noise**2 / process.variance:.4f} of its variance")


if __name__ == "__main__":
    main()
