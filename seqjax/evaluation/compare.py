"""Several models side by side: who is best on each target, and how far behind the others are."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from seqjax.config.evaluate import EvaluateConfig
from seqjax.evaluation.pieces import FEWEST_PIECES, Estimate, estimate, resampled
from seqjax.evaluation.result import MODEL, Rank
from seqjax.evaluation.run import Found
from seqjax.metrics import JUDGED_BY, Scoring


def compare(found: Mapping[str, Found], config: EvaluateConfig) -> dict[str, list[Rank]]:
    """The models in order of each target's judged metric; empty for a single model.

    Two models are compared over the same resamples where the same items of the same pieces of the data were
    scored for both. Models of other window lengths or prediction lengths are ranked without a difference.

    Args:
      found: What each model did, by its name.
      config: Seed, resamples and level.
    """
    if len(found) < 2:
        return {}
    targets = dict.fromkeys(name for result in found.values() for name in result.targets)
    return {
        target: _ranks(target, {name: row for name, row in found.items() if target in row.targets}, config)
        for target in targets
    }


def _ranks(target: str, found: Mapping[str, Found], config: EvaluateConfig) -> list[Rank]:
    judged = {JUDGED_BY[row.scoring[target].head] for row in found.values()}
    # Models that predict a density are compared with those that do not by what both have.
    metric = judged.pop() if len(judged) == 1 else "rmse"
    figures = {name: row.targets[target].metrics[MODEL][metric] for name, row in found.items()}
    order = sorted(figures, key=lambda name: (figures[name].value is None, figures[name].value))
    best = order[0]
    scored = {name: (row.scoring[target], row.sums[target]) for name, row in found.items()}
    behind = {name: _behind([scored[best], scored[name]], metric, config) for name in order[1:]}
    return [Rank(name, figures[name], behind.get(name)) for name in order]


def _behind(
    pair: Sequence[tuple[Scoring, Float64[np.ndarray, "_ scores"]]], metric: str, config: EvaluateConfig
) -> Estimate | None:
    """The second model's figure less that of the first; None where other items were scored."""
    items, others = (sums[:, 0] for _, sums in pair)
    if not np.array_equal(items, others):
        return None
    first, second = (float(scoring.values(sums.sum(axis=0))[metric]) for scoring, sums in pair)
    draws = None
    if len(items) >= FEWEST_PIECES:
        drawn = [
            scoring.values(resampled(sums, samples=config.bootstrap_samples, seed=config.seed))[metric]
            for scoring, sums in pair
        ]
        draws = drawn[1] - drawn[0]
    return estimate(second - first, draws, level=config.confidence_level)
