"""Several models side by side: who is best on each target, and how far behind the others are."""

from collections.abc import Mapping

import numpy as np

from seqjax.config.evaluate import EvaluateConfig
from seqjax.evaluation.bootstrap import FEWEST_PIECES, Estimate, estimate, resampled
from seqjax.evaluation.metrics import JUDGED_BY, values_of
from seqjax.evaluation.result import MODEL, Rank
from seqjax.evaluation.run import Found


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
    metric = JUDGED_BY[next(iter(found.values())).targets[target].kind]
    figures = {name: row.targets[target].metrics[MODEL][metric] for name, row in found.items()}
    order = sorted(figures, key=lambda name: (figures[name].value is None, figures[name].value))
    best = order[0]
    return [
        Rank(name, figures[name], None if name == best else _behind(target, found[best], found[name], config))
        for name in order
    ]


def _behind(target: str, best: Found, other: Found, config: EvaluateConfig) -> Estimate | None:
    sums, others = best.sums[target], other.sums[target]
    if sums.shape != others.shape or (sums[:, 0] != others[:, 0]).any():
        return None
    kind = best.targets[target].kind
    both = np.stack([sums, others], axis=1)
    metric = JUDGED_BY[kind]
    first, second = values_of(kind, both.sum(axis=0))[metric]
    draws = None
    if len(both) >= FEWEST_PIECES:
        drawn = values_of(kind, resampled(both, samples=config.bootstrap_samples, seed=config.seed))[metric]
        draws = drawn[:, 1] - drawn[:, 0]
    return estimate(float(second - first), draws, level=config.confidence_level)
