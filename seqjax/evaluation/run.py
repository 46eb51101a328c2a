"""Models over held-out data, batch by batch (memory holds a part of the data, and sums), and their ranks.

A model is asked as `infer` asks it: each window's last P items are predicted from those before them. What
holds no item is not scored; nor are values that are missing or, unless asked for, categories that no training
data named, since there is no value to have predicted.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from jaxtyping import Float32, Float64, Int64

from seqjax.artifacts.card import ModelCard
from seqjax.baselines import Fitted, past_of
from seqjax.config.evaluate import EvaluateConfig
from seqjax.console import progress
from seqjax.data.columns import OTHER
from seqjax.data.keys import NUMBERS, Keys
from seqjax.errors import ArtifactError
from seqjax.evaluation.examples import Examples
from seqjax.evaluation.pieces import ENOUGH_SEQUENCES, FEWEST_PIECES, Estimate, Pieces, estimate, resampled
from seqjax.evaluation.result import MODEL, Example, Rank, TargetResult
from seqjax.evaluation.targets import CategoricalRun, Items, RealRun, TargetRun, scored_pieces
from seqjax.inference.engine import Engine
from seqjax.inference.forecast import chunks
from seqjax.inference.tables import labels_of
from seqjax.metrics import JUDGED_BY, Scoring
from seqjax.model.distributions import DISTRIBUTIONS
from seqjax.windows.windows import Batch, Windows, inputs_of, present, valid_mask

_LIKELY = 100_000
"""Windows that are looked at to find the commonest of very many classes."""


@dataclass(frozen=True)
class ModelScores:
    """The scores of a model on the data."""

    targets: Mapping[str, TargetResult]
    examples: list[Example]
    windows: int
    sequences: int
    resampled: str
    """The unit that the bootstrap draws."""
    sums: Mapping[str, Float64[np.ndarray, "S scores"]]
    """By target: the model's sums of each piece of the data that holds a scored item."""
    scoring: Mapping[str, Scoring]


def run_model(
    engine: Engine,
    parts: Iterable[Windows],
    baselines: Mapping[str, Fitted],
    config: EvaluateConfig,
    *,
    name: str,
    total: int | None,
    keys: Keys = NUMBERS,
) -> ModelScores:
    """Scores a model, and baselines on the same items.

    Args:
      engine: A generative model.
      parts: Held-out windows of its seq_length, whole sequences at a time; at least one window.
      baselines: Fitted baselines of each target to score; may be empty.
      config: Sizes and seeds.
      name: What to call the model while it works.
      total: Number of windows, where it is known.
      keys: The ids and times of the data.

    Raises:
      ArtifactError: The model returns what is not finite.
    """
    parts = iter(parts)
    first = _enough_to_choose(parts)
    scorer = _Scorer(engine, first, baselines, config)
    with progress(f"Evaluating {name}", total, "windows") as bar:
        for windows in chain(first, parts):
            for chunk in chunks(len(windows), config.inference_batch_size):
                scorer.add(windows, chunk)
                bar.advance(len(chunk))
            scorer.close(windows)
    return scorer.scores(keys)


def _enough_to_choose(parts: Iterator[Windows]) -> list[Windows]:
    """The first parts, until they hold enough sequences to draw from; all, if there are too few."""
    taken, sequences = [], 0
    for part in parts:
        taken.append(part)
        sequences += len(np.unique(part.runs.sequence_id))
        if sequences >= ENOUGH_SEQUENCES:
            break
    return taken


class _Scorer:
    def __init__(
        self,
        engine: Engine,
        first: Sequence[Windows],
        baselines: Mapping[str, Fitted],
        config: EvaluateConfig,
    ) -> None:
        schema = engine.card.column_schema
        targets = config.target_columns or list(schema.targets)
        self._engine = engine
        self._config = config
        self._columns = tuple(dict.fromkeys((*schema.inputs, *targets)))
        self._seq_length = first[0].seq_length
        self._pieces = Pieces.of(np.concatenate([part.sequence_id() for part in first]), self._seq_length)
        self._examples = Examples(config.examples, config.seed, engine.card, targets)
        self._runs: dict[str, TargetRun] = {}
        for target in targets:
            self._runs[target] = _target_run(target, engine.card, baselines.get(target, {}), config, first[0])
        self.windows = self.sequences = 0

    def add(self, windows: Windows, indices: Int64[np.ndarray, "B"]) -> None:
        """Scores the windows at `indices`."""
        batch = windows.gather(indices, self._columns)
        schema = self._engine.card.column_schema
        inputs = inputs_of(batch, schema.inputs, schema.masked_inputs)
        outputs = self._engine.predict(inputs, valid_mask(batch))
        pieces = self._pieces.numbers(windows.sequence_id(indices), windows.subsequence_id(indices))
        for target, run in self._runs.items():
            items = self._items(target, batch, pieces)
            run.add(items, self._checked(target, outputs[target])[items.scored])
        if self._config.examples:
            self._examples.add(windows, indices, batch, outputs)

    def close(self, windows: Windows) -> None:
        """Counts windows that were scored, and the items that none of them asks for."""
        self.sequences += len(np.unique(windows.runs.sequence_id))
        self.windows += len(windows)
        for run in self._runs.values():
            run.not_scored["without_history"] += windows.runs.without_history

    def scores(self, keys: Keys) -> ModelScores:
        """The scores of all windows, whose ids and times are `keys`."""
        count = len(self._pieces)
        return ModelScores(
            targets={name: run.result(count, self._seq_length) for name, run in self._runs.items()},
            examples=self._examples.examples(keys),
            windows=self.windows,
            sequences=self.sequences,
            resampled=self._pieces.unit,
            sums={name: scored_pieces(run.tallies, count)[:, 0] for name, run in self._runs.items()},
            scoring={name: run.scoring for name, run in self._runs.items()},
        )

    def _checked(self, target: str, output: Float32[np.ndarray, "B P _"]) -> Float32[np.ndarray, "B P _"]:
        # The logarithm of no probability at all is a legitimate output, of a class.
        lowest = -np.inf if isinstance(self._runs[target], CategoricalRun) else np.finfo(np.float32).min
        if not ((output >= lowest) & (output < np.inf)).all():
            raise ArtifactError(
                f"The model's output for {target!r} is not finite everywhere, so it cannot be evaluated. "
                "Was it exported after its training diverged?"
            )
        return output

    def _items(self, target: str, batch: Batch, pieces: Int64[np.ndarray, "B"]) -> Items:
        """The items to score of a target."""
        count = self._engine.card.model_spec.prediction_length
        newest = slice(-count, None)
        truth = batch.columns[target][:, newest]
        slots = np.arange(1, self._seq_length + 1)[newest]
        scored, left_out = slots >= batch.first_target[:, None], self._runs[target].not_scored
        left_out["padding"] += int((slots < batch.padding[:, None]).sum())
        score_reserved = "other" in left_out and self._config.score_reserved
        if not score_reserved:
            left_out["missing"] += int((scored & ~present(truth)).sum())
            scored &= present(truth)
        if "other" in left_out and not score_reserved:
            left_out["other"] += int((scored & (truth == OTHER)).sum())
            scored &= truth != OTHER
        window, position = np.nonzero(scored)
        return Items(truth[scored], past_of(batch, target, count), scored, pieces[window], position)


def _target_run(
    target: str, card: ModelCard, baselines: Fitted, config: EvaluateConfig, first: Windows
) -> TargetRun:
    head, count = card.column_schema.head(target), card.model_spec.prediction_length
    if not DISTRIBUTIONS[head].has_classes:
        return RealRun(card.statistics[target], baselines, config, head=head, n_positions=count)
    likely = first.gather(np.arange(min(len(first), _LIKELY)), (target,)).columns[target][:, -1]
    unknown, labels = card.is_sequifiers, labels_of(card, target)
    return CategoricalRun(labels, baselines, config, n_positions=count, likely=likely, unknown=unknown)


def compare(models: Mapping[str, ModelScores], config: EvaluateConfig) -> dict[str, list[Rank]]:
    """The models in order of each target's judged metric; empty for a single model.

    Two models are compared over the same resamples where the same items of the same pieces of the data were
    scored for both. Models of other window lengths or prediction lengths are ranked without a difference.

    Args:
      models: The scores of each model, by its name.
      config: Seed, resamples and level.
    """
    if len(models) < 2:
        return {}
    targets = dict.fromkeys(name for scores in models.values() for name in scores.targets)
    return {
        target: _ranks(target, {name: row for name, row in models.items() if target in row.targets}, config)
        for target in targets
    }


def _ranks(target: str, models: Mapping[str, ModelScores], config: EvaluateConfig) -> list[Rank]:
    judged = {JUDGED_BY[row.scoring[target].head] for row in models.values()}
    # Models that predict a density are compared with those that do not by what both have.
    metric = judged.pop() if len(judged) == 1 else "rmse"
    figures = {name: row.targets[target].metrics[MODEL][metric] for name, row in models.items()}
    order = sorted(figures, key=lambda name: (figures[name].value is None, figures[name].value))
    scored = {name: (row.scoring[target], row.sums[target]) for name, row in models.items()}
    behind = {name: _behind([scored[order[0]], scored[name]], metric, config) for name in order[1:]}
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
