"""One model over held-out data, batch by batch: memory holds a part of the data, and sums.

The model is asked as `infer` asks it: each window's last P items are predicted from those before them. What
holds no item is not scored; nor, unless asked for, are categories that are missing or that no training data
named, since there is no value to have predicted.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from seqjax.artifacts.card import ModelCard
from seqjax.baselines import Fitted
from seqjax.config.evaluate import EvaluateConfig
from seqjax.console import progress
from seqjax.data.columns import FIRST_ID, OTHER, UNKNOWN, class_labels
from seqjax.errors import ArtifactError
from seqjax.evaluation.examples import Examples
from seqjax.evaluation.pieces import ENOUGH_SEQUENCES, Pieces, Unit, unit_for
from seqjax.evaluation.result import Example, TargetResult
from seqjax.evaluation.targets import CategoricalRun, Items, RealRun, TargetRun, scored_pieces
from seqjax.inference.engine import Engine
from seqjax.inference.forecast import chunks
from seqjax.metrics import Scoring
from seqjax.model.distributions import DISTRIBUTIONS
from seqjax.windows.windows import Batch, Windows

_LIKELY = 100_000
"""Windows that are looked at to find the commonest of very many classes."""


@dataclass(frozen=True)
class Found:
    """The results of a model on the data."""

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
) -> Found:
    """Scores a model, and the baselines beside it.

    Args:
      engine: A generative model.
      parts: Held-out windows of its seq_length, whole sequences at a time; at least one window.
      baselines: Fitted baselines by name, for the targets to score.
      config: Sizes and seeds.
      name: What to call the model while it works.
      total: Number of windows, where it is known.

    Raises:
      ArtifactError: The model returns what is not finite.
    """
    targets = config.target_columns or list(engine.card.column_schema.targets)
    parts = iter(parts)
    first = _enough_to_choose(parts)
    unit = unit_for(np.concatenate([part.sequence_id() for part in first]), first[0].seq_length)
    scorer = _Scorer(engine, first[0], unit, baselines, config, targets=targets)
    sequences, count = 0, 0
    with progress(f"Evaluating {name}", total, "windows") as bar:
        for windows in chain(first, parts):
            sequences += len(np.unique(windows.runs.sequence_id))
            count += len(windows)
            for chunk in chunks(len(windows), config.inference_batch_size):
                scorer.add(windows, chunk)
                bar.advance(len(chunk))
    return scorer.found(windows=count, sequences=sequences)


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
        first: Windows,
        unit: Unit,
        baselines: Mapping[str, Fitted],
        config: EvaluateConfig,
        *,
        targets: list[str],
    ) -> None:
        self._engine = engine
        self._config = config
        self._count = engine.card.model_spec.prediction_length
        self._columns = tuple(dict.fromkeys((*engine.card.column_schema.inputs, *targets)))
        self._pieces = Pieces(unit)
        self._seq_length = first.seq_length
        self._examples = Examples(config.examples, config.seed, engine.card, targets)
        self._runs = {
            target: _target_run(
                target,
                engine.card,
                {name: fitted[target] for name, fitted in baselines.items() if target in fitted},
                config,
                first,
            )
            for target in targets
        }
        self._not_scored = {
            target: {"padding": 0} | ({"unknown": 0, "other": 0} if isinstance(run, CategoricalRun) else {})
            for target, run in self._runs.items()
        }

    def add(self, windows: Windows, indices: Int64[np.ndarray, "B"]) -> None:
        """Scores the windows at `indices`."""
        gathered = windows.gather(indices, self._columns)
        seen = np.arange(windows.seq_length) >= gathered.padding[:, None]
        inputs = {name: gathered.columns[name][:, :-1] for name in self._engine.card.column_schema.inputs}
        outputs = self._engine.predict(inputs, seen)
        pieces = self._pieces.numbers(windows.sequence_id(indices), windows.subsequence_id(indices))
        for target, run in self._runs.items():
            items, scored = self._items(target, gathered, pieces)
            run.add(items, self._checked(target, outputs[target])[scored])
        if self._config.examples:
            self._examples.add(windows, indices, gathered, outputs)

    def found(self, *, windows: int, sequences: int) -> Found:
        """The results of so many windows of so many sequences."""
        count = len(self._pieces)
        return Found(
            targets={
                name: run.result(count, self._seq_length, self._not_scored[name])
                for name, run in self._runs.items()
            },
            examples=self._examples.examples(),
            windows=windows,
            sequences=sequences,
            resampled=str(self._pieces.unit),
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

    def _items(
        self, target: str, batch: Batch, pieces: Int64[np.ndarray, "B"]
    ) -> tuple[Items, Bool[np.ndarray, "B P"]]:
        """The items to score of a target, and their places in the prediction windows."""
        slots = np.arange(self._seq_length + 1 - self._count, self._seq_length + 1)
        values, counts = batch.columns[target], self._not_scored[target]
        truth, last = values[:, slots], values[:, slots - 1]
        real, known = (at >= batch.padding[:, None] for at in (slots, slots - 1))
        scored = real
        counts["padding"] += int((~real).sum())
        if "unknown" in counts and not self._config.score_reserved:
            counts["unknown"] += int((real & (truth == UNKNOWN)).sum())
            counts["other"] += int((real & (truth == OTHER)).sum())
            scored = real & (truth >= FIRST_ID)
        window, position = np.nonzero(scored)
        return Items(truth[scored], last[scored], known[scored], pieces[window], position), scored


def _target_run(
    target: str, card: ModelCard, baselines: Fitted, config: EvaluateConfig, first: Windows
) -> TargetRun:
    schema, count = card.column_schema, card.model_spec.prediction_length
    head = schema.head(target)
    if not DISTRIBUTIONS[head].has_classes:
        return RealRun(card.statistics[target], baselines, config, head=head, n_positions=count)
    labels = class_labels(card.id_maps.get(target, {}), schema.n_classes[target])
    likely = first.gather(np.arange(min(len(first), _LIKELY)), (target,)).columns[target][:, -1]
    return CategoricalRun(labels, baselines, config, n_positions=count, likely=likely)
