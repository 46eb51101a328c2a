"""The number by which the runs of a search are compared: a validation loss, or a score.

Losses can be compared where all runs have the same criteria, weights and thresholds, and predict the same
items of the validation windows. Otherwise each target counts with weight 1 and by one metric, over the items
that all runs predict. This follows from the space of the search alone, so that a search that goes on
compares as before.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seqjax.config.hyperparameter_search import HyperparameterSearchConfig
from seqjax.config.optimization import CRITERIA
from seqjax.config.sampling import parts_of, short_name
from seqjax.errors import ConfigError, Problem
from seqjax.sweep.space import Space, space_of, train_values
from seqjax.training.evaluate import Shared, metric_of_all

_LOSS_KEYS = ("criterion", "loss_weights", "class_weights", "huber_delta", "smooth_l1_beta")
_ITEM_KEYS = (
    *("seq_length", "min_history", "target_columns", "target_column_types"),
    *("model_spec.prediction_length", "training_spec.select_on"),
)
_DECISIVE = (*(f"training_spec.{key}" for key in _LOSS_KEYS), *_ITEM_KEYS)


@dataclass(frozen=True)
class Ranking:
    """The number by which runs are compared, and why it is that."""

    differing: tuple[str, ...] = ()
    """The keys in which runs differ so that losses cannot be compared."""
    shared: Shared | None = None
    """None compares validation losses."""

    def __str__(self) -> str:
        if self.shared is None:
            return "Runs are ranked by their lowest validation loss, which is of the same things in all."
        return (
            f"Runs differ in {', '.join(self.differing)}, so that their losses are of different things. They "
            f"are ranked by a score of their best epochs: {self.shared}, which all runs predict. Each target "
            "has the weight 1."
        )


def ranking_of(config: HyperparameterSearchConfig) -> Ranking:
    """The number by which the runs of a search are compared.

    Raises:
      ConfigError: They have no target in common.
    """
    space = space_of(config)
    values = _Values(config, space)
    histories, lengths = values.of("min_history"), values.of("seq_length")
    predicted, selected = values.of("model_spec.prediction_length"), values.of("training_spec.select_on")
    counted = [*(predicted if "predicted" in selected else ()), *(lengths if "all" in selected else ())]
    # An item further back has too short a history in the shortest windows.
    newest = max(1, min(*counted, min(lengths) - max(histories) + 1))
    differing = [key for key in space.varied if key.startswith(_DECISIVE)]
    if selected == ["predicted"] and predicted == [newest]:
        differing = [key for key in differing if key != "seq_length"]
    if not differing:
        return Ranking()
    targets = [
        name for name in config.target_columns if all(name in row for row in values.of("target_columns"))
    ]
    if not targets:
        problem = "its values have no target in common, so that runs could not be compared."
        raise ConfigError(
            f"The search {config.hp_search_name!r}", [Problem("other_sampling.target_columns", problem)]
        )
    metrics = {
        name: metric_of_all({CRITERIA[criterion] for criterion in values.inside(name)}) for name in targets
    }
    return Ranking(tuple(map(short_name, differing)), Shared(newest, max(histories), metrics))


class _Values:
    """The values that keys of the training configuration have in a search."""

    def __init__(self, config: HyperparameterSearchConfig, space: Space) -> None:
        first = space.combination(0) | {key: values.low for key, values in space.ranges.items()}
        self._space, self._first = space, train_values(config, first, "")

    def of(self, key: str) -> Sequence[Any]:
        """Those of a key; of a range its bounds."""
        return list(dict.fromkeys(_hashable(value) for value in self._all(key)))

    def inside(self, target: str) -> Iterator[str]:
        """The criteria of a target, set as a mapping or by themselves."""
        for key in ("training_spec.criterion", f"training_spec.criterion.{target}"):
            for value in self._all(key):
                found = value.get(target) if isinstance(value, Mapping) else value
                if isinstance(found, str) and found in CRITERIA:
                    yield found

    def _all(self, key: str) -> Sequence[Any]:
        listed: list[Any] = [choice[key] for axis in self._space.axes if key in axis[0] for choice in axis]
        if key in self._space.ranges:
            listed = [self._space.ranges[key].low, self._space.ranges[key].high]
        if not listed:
            value: Any = self._first
            for part in parts_of(key):
                value = value.get(part) if isinstance(value, Mapping) else None
            listed = [value]
        return listed


def _hashable(value: Any) -> Any:  # noqa: ANN401 (a value of any key)
    return tuple(value) if isinstance(value, list) else value
