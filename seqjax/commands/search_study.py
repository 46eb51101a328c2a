"""A search that learns from its results: Optuna's study of a space, asked for several runs at a time.

A trial of the study is a run of the search, by the same number. The study is a file next to the state of the
search (SQLite), so that it survives the process, and optuna-dashboard shows it. Runs are asked
for in batches, which are trained together; then their losses are reported. What is asked depends on the seed
and on the trials before, so that a search that was killed asks again for what it asked for.
"""

import json
import logging
import random
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqjax.config.sampling import is_whole
from seqjax.errors import ArtifactError, MissingPackageError
from seqjax.sweep.space import Choice, Space

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler


_MOST_RANDOM = 10
"""Random trials before the sampler uses results, of a large study; of a small one, a third."""


class Study:
    """The trials of a search and their losses.

    Args:
      path: The file of the study.
      name: Its name there.
      space: What can be tried.
      seed: Seed of the sampler.
      wanted: The number of trials of the whole search.

    Raises:
      MissingPackageError: Optuna is not installed.
      ArtifactError: The file is there, but holds no study.
    """

    def __init__(self, path: Path, name: str, space: Space, *, seed: int, wanted: int) -> None:
        if find_spec("optuna") is None:
            raise MissingPackageError("search_strategy: tpe", package="optuna", extra="search")
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # Optuna has handlers of its own, and all there is to say is said by seqjax.
        logging.getLogger("optuna").propagate = False
        path.parent.mkdir(parents=True, exist_ok=True)
        self._study = _opened(path, name)
        self._space = space
        self._distributions = _distributions(space)
        self._seed = seed
        self._random = max(1, min(wanted // 3, _MOST_RANDOM))

    @property
    def count(self) -> int:
        """Number of trials."""
        return len(self._study.get_trials(deepcopy=False))

    def settings(self) -> dict[int, Choice]:
        """The settings of all trials, by number."""
        return {trial.number: self._settings(trial) for trial in self._study.get_trials(deepcopy=False)}

    def ask(self, count: int, *, at_random: bool) -> None:
        """Adds new trials.

        Args:
          count: The number of trials.
          at_random: True leaves results aside.
        """
        startup = self.count + count if at_random else self._random
        self._study.sampler = _sampler(f"{self._seed} {self.count}", startup)
        for _ in range(count):
            self._study.ask(self._distributions)

    def tell_all(self, losses: Mapping[int, float | None]) -> None:
        """Reports losses of trials, by number; None is a failure. Known ones are passed over."""
        from optuna.trial import TrialState

        trials = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for number in (trial.number for trial in trials):
            if number in losses:
                loss = losses[number]
                state = TrialState.FAIL if loss is None else TrialState.COMPLETE
                self._study.tell(number, loss, state=state)

    def _settings(self, trial: Any) -> dict[str, Any]:  # noqa: ANN401 (one of two classes of Optuna)
        settings: dict[str, Any] = {}
        for axis in self._space.axes:
            place = 0 if len(axis) == 1 else _places(axis).index(trial.params[_name(axis)])
            settings |= axis[place]
        return settings | {key: trial.params[key] for key in self._space.ranges}


def _opened(path: Path, name: str) -> "optuna.Study":
    """The study in a file, which is created if need be."""
    import optuna

    try:
        return optuna.create_study(
            storage=f"sqlite:///{path}", study_name=name, load_if_exists=True, direction="minimize"
        )
    except OSError:
        raise
    except Exception as error:
        # What a damaged file leads to depends on where it is damaged: errors of SQLAlchemy, of
        # assertions and missing keys in Optuna.
        reason = next(iter(str(error).splitlines()), "")
        raise ArtifactError(
            f"{path} cannot be opened as a study of Optuna's ({type(error).__name__}: {reason}). Put it "
            f"right, or move it, {name}-search.json beside it and the checkpoints of the search's runs away "
            "to start anew."
        ) from error


def _sampler(seed: str, at_random: int) -> "BaseSampler":
    from optuna.samplers import TPESampler

    with warnings.catch_warnings():
        # Counting what was asked for, and has no loss yet, as bad is what keeps a batch's runs apart.
        warnings.simplefilter("ignore")
        return TPESampler(
            seed=random.Random(seed).randrange(2**32),
            n_startup_trials=at_random,
            constant_liar=True,
            multivariate=True,
            group=False,
        )


def _distributions(space: Space) -> dict[str, "BaseDistribution"]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    distributions: dict[str, BaseDistribution] = {
        _name(axis): CategoricalDistribution(_places(axis)) for axis in space.axes if len(axis) > 1
    }
    for key, values in space.ranges.items():
        if is_whole(key, values):
            distributions[key] = IntDistribution(int(values.low), int(values.high), log=values.log)
        else:
            distributions[key] = FloatDistribution(values.low, values.high, log=values.log)
    return distributions


def _name(axis: Sequence[Mapping[str, Any]]) -> str:
    """An axis is called after its first key."""
    return next(iter(axis[0]))


def _places(axis: Sequence[Mapping[str, Any]]) -> list[Any]:
    """A value for each choice: its first one, where these are plain and differ; else text."""
    first = [choice[_name(axis)] for choice in axis]
    plain = all(value is None or isinstance(value, bool | int | float | str) for value in first)
    if plain and len(set(map(repr, first))) == len(first):
        return first
    return [f"{place}: {json.dumps(choice)}" for place, choice in enumerate(axis)]
