"""The space of a search: which settings are linked, which are free, and which combination has which number.

A space is a list of axes, and of ranges. A choice on an axis sets one key, or several that are linked; a
combination is one choice on each axis. Combinations are numbered like the digits of a number whose digits are
the axes, so that any of them is found, and any number of distinct ones drawn, without listing the space. The
order is that of sequifier's grid: architectures change fastest, then ways of training, then columns and
window lengths. A space with ranges has no numbers; its n-th draw depends on the seed and on n alone.
"""

import itertools
import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from seqjax.config.base import ConfigModel, validate
from seqjax.config.hyperparameter_search import OUTER_AXES, SAMPLED, HyperparameterSearchConfig
from seqjax.config.metadata import Metadata
from seqjax.config.resolve import resolve_schema
from seqjax.config.sampling import Range, is_whole, parts_of
from seqjax.config.train import FixedRun, TrainConfig
from seqjax.errors import ConfigError, Problem

Choice = Mapping[str, Any]
"""Keys of the training configuration, dotted, and their values."""

_SEARCHED = {
    "model_name": "hp_search_name",
    **{section: sampling for section, (sampling, _) in SAMPLED.items()},
}
"""Sections and keys of a training configuration that are called otherwise in a search."""

MAX_GRID = 100_000
"""More runs than this are a mistake rather than a plan."""


@dataclass(frozen=True)
class Space:
    """The combinations of a search, by number from 0."""

    axes: tuple[tuple[Choice, ...], ...]
    """The choices of each axis; the first axis changes fastest."""
    ranges: Mapping[str, Range] = field(default_factory=dict)
    """Keys whose values are drawn from a range."""

    @property
    def count(self) -> int:
        """The number of combinations of what is listed."""
        return math.prod(len(axis) for axis in self.axes)

    def combination(self, number: int) -> dict[str, Any]:
        """The settings of a combination, by dotted key.

        Args:
          number: Which one, from 0 up to `count`.
        """
        settings: dict[str, Any] = {}
        for axis in self.axes:
            number, place = divmod(number, len(axis))
            settings |= axis[place]
        return settings

    def draw(self, seed: int, number: int) -> dict[str, Any]:
        """A random combination, with a value of each range.

        Args:
          seed: Of the search.
          number: Which draw, from 0.
        """
        generator = random.Random(f"{seed} {number}")
        listed = self.combination(generator.randrange(self.count))
        return listed | {key: drawn(key, values, generator) for key, values in self.ranges.items()}

    @property
    def varied(self) -> tuple[str, ...]:
        """The dotted keys that have several values, in the order of the axes from the slowest."""
        listed = (
            key
            for axis in reversed(self.axes)
            for key in axis[0]
            if any(choice[key] != axis[0][key] for choice in axis)
        )
        return (*listed, *self.ranges)


@dataclass(frozen=True)
class Candidate:
    """A combination that can be trained."""

    run: int
    combination: int
    """Its number in the space; in a space with ranges, that of the draw."""
    settings: Choice
    """Values of the keys that the search varies."""
    config: TrainConfig


@dataclass(frozen=True)
class Skipped:
    """A combination that is not trained."""

    combination: int
    problems: Sequence[Problem]
    """Its mistakes; or the earlier one that it repeats."""

    @property
    def reason(self) -> str:
        """The problems as a text of one line."""
        return " ".join(map(str, self.problems))


@dataclass(frozen=True)
class Plan:
    """The runs of a search."""

    candidates: tuple[Candidate, ...]
    skipped: tuple[Skipped, ...]


def space_of(config: HyperparameterSearchConfig) -> Space:
    """The combinations of a search, linked and free as the documents say."""
    groups = (
        ("", config, OUTER_AXES),
        *((f"{name}.", getattr(config, sampling), axes) for name, (sampling, axes) in SAMPLED.items()),
        ("", config.other_sampling, [(key,) for key in config.other_sampling]),
    )
    axes: list[tuple[Choice, ...]] = []
    ranges: dict[str, Range] = {}
    for prefix, section, linked in groups:
        held: dict[str, Any] = dict(section)
        plain = section.model_dump(mode="json") if isinstance(section, ConfigModel) else section
        for keys in linked:
            ranges |= {f"{prefix}{key}": held[key] for key in keys if isinstance(held[key], Range)}
            listed = {f"{prefix}{key}": plain[key] for key in keys if isinstance(held[key], list | tuple)}
            if listed:
                places = zip(*listed.values(), strict=True)
                axes.append(tuple(dict(zip(listed, place, strict=True)) for place in places))
    return Space(tuple(reversed(axes)), ranges)


def drawn(key: str, values: Range, generator: random.Random) -> float:
    """A number of a range, each as likely as any other (on a logarithmic scale, where it says so)."""
    if is_whole(key, values) and not values.log:
        return generator.randint(math.ceil(values.low), math.floor(values.high))
    low, high = (math.log(bound) if values.log else bound for bound in (values.low, values.high))
    value = generator.uniform(low, high)
    value = min(max(math.exp(value) if values.log else value, values.low), values.high)
    # What the configuration says is the value, so it is rounded here rather than where it is written.
    return round(value) if is_whole(key, values) else float(f"{value:.6g}")


def plan(config: HyperparameterSearchConfig, metadata: Metadata) -> Plan:
    """The runs that a search consists of.

    A grid is all combinations in order. A sample is `n_samples` distinct ones in an order drawn from the
    seed, so that a larger sample begins with a smaller one. Halving begins with a sample, or with all. A
    sample draws others in place of those that are left out.

    Args:
      config: The search.
      metadata: Of the data, which decides which columns there are.

    Raises:
      ConfigError: No combination can be trained, or a grid is too large.
    """
    space, source = space_of(config), f"The search {config.hp_search_name!r}"
    wanted, numbers = space.count, range(space.count)
    if config.search_strategy == "grid" or config.n_samples is None:
        if space.count > MAX_GRID:
            problem = (
                f"{config.search_strategy} makes {space.count} combinations, more than {MAX_GRID}: set "
                "search_strategy: sample."
            )
            raise ConfigError(source, [Problem("search_strategy", problem)])
    else:
        wanted = config.n_samples if space.ranges else min(config.n_samples, space.count)
        order = itertools.count() if space.ranges else shuffled(space.count, config.seed)
        numbers = itertools.islice(order, 100 * wanted + 1000)
    settings = partial(space.draw, config.seed) if space.ranges else space.combination
    runs = trainable(config, metadata, ((number, settings(number)) for number in numbers), wanted)
    if not runs.candidates and runs.skipped:
        raise ConfigError(
            f"{source} has no combination that can be trained ({len(runs.skipped)} tried). The first",
            runs.skipped[0].problems,
        )
    return runs


def trainable(
    config: HyperparameterSearchConfig,
    metadata: Metadata,
    combinations: Iterable[tuple[int, Choice]],
    wanted: int | None = None,
) -> Plan:
    """The combinations that can be trained, less those that come to the same training as an earlier one.

    Args:
      config: The search.
      metadata: Of the data.
      combinations: Their numbers and settings.
      wanted: The largest number of runs, which are numbered from 0; None takes all, and the runs have the
        numbers of their combinations.
    """
    space = space_of(config)
    candidates: list[Candidate] = []
    skipped: list[Skipped] = []
    seen: dict[str, int] = {}
    for number, settings in combinations:
        if len(candidates) == wanted:
            break
        run = number if wanted is None else len(candidates)
        try:
            candidate = _candidate(config, space, metadata, settings, run=run, number=number)
        except ConfigError as error:
            skipped.append(Skipped(number, error.problems))
            continue
        alike = json.dumps(candidate.config.model_dump(mode="json", exclude={"model_name"}), sort_keys=True)
        same = seen.setdefault(alike, number)
        if same == number:
            candidates.append(candidate)
        else:
            message = f"comes to the same training as combination {same}."
            skipped.append(Skipped(number, [Problem("", message)]))
    return Plan(tuple(candidates), tuple(skipped))


def shuffled(count: int, seed: int) -> Iterator[int]:
    """The numbers from 0 up to `count`, each once, in an order that the seed decides.

    Time and memory grow with what is taken, not with `count`.
    """
    generator = random.Random(seed)
    moved: dict[int, int] = {}
    for place in range(count):
        chosen = generator.randrange(place, count)
        yield moved.get(chosen, chosen)
        moved[chosen] = moved.pop(place, place)


def train_values(config: HyperparameterSearchConfig, settings: Choice, model_name: str) -> dict[str, Any]:
    """The training configuration of a combination, as plain nested values.

    Args:
      config: The search.
      settings: The combination.
      model_name: Name of the run.
    """
    result = config.model_dump(mode="json", include={*FixedRun.model_fields, "seed"})
    result["model_name"] = model_name
    for section, (sampling, axes) in SAMPLED.items():
        varied = {key for axis in axes for key in axis}
        result[section] = getattr(config, sampling).model_dump(mode="json", exclude=varied)
    # What is set inside of a key comes after the key itself.
    for key, value in sorted(settings.items(), key=lambda item: len(parts_of(item[0]))):
        *outer, name = parts_of(key)
        section = result
        for part in outer:
            # A value for all names gives way to a mapping by name, as of label_smoothing.
            held = section.get(part)
            section[part] = dict(held) if isinstance(held, Mapping) else {}
            section = section[part]
        section[name] = value
    return result


def _candidate(
    config: HyperparameterSearchConfig,
    space: Space,
    metadata: Metadata,
    settings: Choice,
    *,
    run: int,
    number: int,
) -> Candidate:
    """A combination as a run; raises a ConfigError with the keys of the search if it cannot be trained."""
    kv_heads = settings["model_spec.n_kv_heads"]
    if kv_heads is not None and settings["model_spec.n_head"] % kv_heads:
        kv_heads = None
    chosen = {**settings, "model_spec.n_kv_heads": kv_heads}
    values = train_values(config, chosen, f"{config.hp_search_name}-run-{run}")
    try:
        train = validate(TrainConfig, values, f"combination {number}")
        resolve_schema(train, metadata)
    except ConfigError as error:
        places = _places(space, settings)
        problems = [
            Problem(_searched_key(config, places, problem.key), problem.message) for problem in error.problems
        ]
        raise ConfigError(error.source, problems) from None
    return Candidate(run, number, {key: chosen[key] for key in space.varied}, train)


def _places(space: Space, settings: Choice) -> dict[str, int]:
    """The place of each listed value of a combination in the list that it is from."""
    places: dict[str, int] = {}
    for axis in space.axes:
        same = (all(settings[key] == value for key, value in choice.items()) for choice in axis)
        places |= dict.fromkeys(axis[0], next(place for place, is_same in enumerate(same) if is_same))
    return places


def _searched_key(config: HyperparameterSearchConfig, places: Mapping[str, int], key: str) -> str:
    """The key of a search that says what is under a key of a combination's training configuration."""
    begins = (begin for begin in _begins(key) if begin in places or begin in config.other_sampling)
    outer = next(begins, key)
    section, dot, name = outer.partition(".")
    in_section = f"{_SEARCHED.get(section, section)}{dot}{name}"
    searched = f"other_sampling.{outer}" if outer in config.other_sampling else in_section
    place = f".{places[outer]}" if outer in places else ""
    return f"{searched}{place}{key.removeprefix(outer)}"


def _begins(key: str) -> Iterator[str]:
    """A key, and the keys that it is inside of, the nearest first."""
    while key:
        yield key
        key = key.rpartition(".")[0]
