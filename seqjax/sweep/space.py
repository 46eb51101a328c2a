"""The space of a search: which settings are linked, which are free, and which combination has which number.

A space is a list of axes. A choice on an axis sets one key, or several that are linked; a combination is one
choice on each axis. Combinations are numbered like the digits of a number whose digits are the axes, so that
any of them is found, and any number of distinct ones drawn, without listing the space. The order is that of
sequifier's grid: architectures change fastest, then ways of training, then columns and window lengths.
"""

import itertools
import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from seqjax.config.base import validate
from seqjax.config.hyperparameter_search import HyperparameterSearchConfig
from seqjax.config.metadata import Metadata
from seqjax.config.resolve import resolve_schema
from seqjax.config.train import TrainConfig
from seqjax.errors import ConfigError, Problem

Choice = Mapping[str, Any]
"""Keys of the training configuration, dotted, and their values."""

MODEL, TRAINING = "model_spec", "training_spec"

MAX_GRID = 100_000
"""More runs than this are a mistake rather than a plan."""

_FIXED_AT_TOP = (
    "project_root",
    "metadata_config_path",
    "training_data_path",
    "validation_data_path",
    "read_format",
    "target_columns",
    "target_column_types",
    "inference_batch_size",
    "export_generative_model",
    "export_embedding_model",
    "export_onnx",
    "export_pt",
    "export_with_dropout",
    "seed",
)
_WIDTHS = ("dim_model", "n_head", "initial_embedding_dim", "joint_embedding_dim", "feature_embedding_dims")
_RATES = ("learning_rate", "epochs", "scheduler")

# In sequifier's order: of two axes, the later one changes faster.
_MODEL_AXES = (
    _WIDTHS,
    ("dim_feedforward",),
    ("num_layers",),
    ("activation_fn",),
    ("normalization",),
    ("positional_encoding",),
    ("attention_type",),
    ("norm_first",),
    ("n_kv_heads",),
    ("rope_theta",),
)
_TRAINING_AXES = (_RATES, ("batch_size",), ("dropout",), ("optimizer",), ("accumulation_steps",))
_OUTER_AXES = (("input_columns", "column_types"), ("seq_length",))


@dataclass(frozen=True)
class Space:
    """The combinations of a search, by number from 0."""

    axes: tuple[tuple[Choice, ...], ...]
    """The choices of each axis; the first axis changes fastest."""

    @property
    def count(self) -> int:
        """The number of combinations."""
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

    @property
    def varied(self) -> tuple[str, ...]:
        """The dotted keys that have several values, in the order of the axes from the slowest."""
        return tuple(
            key
            for axis in reversed(self.axes)
            for key in axis[0]
            if any(choice[key] != axis[0][key] for choice in axis)
        )


@dataclass(frozen=True)
class Candidate:
    """A combination that can be trained."""

    run: int
    """The number of its run, from 0."""
    combination: int
    """Its number in the space."""
    settings: Choice
    """What distinguishes it: the keys that the search varies."""
    config: TrainConfig
    """All of it."""


@dataclass(frozen=True)
class Skipped:
    """A combination that is not trained."""

    combination: int
    """Its number in the space."""
    reason: str
    """Why: what is wrong with it, or which earlier one it repeats."""


@dataclass(frozen=True)
class Plan:
    """The runs of a search."""

    candidates: tuple[Candidate, ...]
    skipped: tuple[Skipped, ...]
    """What was looked at on the way, and left out."""


def space_of(config: HyperparameterSearchConfig) -> Space:
    """The combinations of a search, linked and free as the documents say."""
    values = config.model_dump(mode="json")
    groups = (
        ("", values, _OUTER_AXES),
        (f"{TRAINING}.", values["training_hyperparameter_sampling"], _TRAINING_AXES),
        (f"{MODEL}.", values["model_hyperparameter_sampling"], _MODEL_AXES),
    )
    slowest_first = [_axis(prefix, section, keys) for prefix, section, axes in groups for keys in axes]
    return Space(tuple(reversed(slowest_first)))


def plan(config: HyperparameterSearchConfig, metadata: Metadata) -> Plan:
    """Which runs a search consists of.

    A grid is all combinations in order. A sample is `n_samples` distinct ones in an order drawn from the
    seed, so that a larger sample begins with a smaller one. Combinations that cannot be trained, or that come
    to the same training as an earlier one, are left out; a sample draws others in their place.

    Args:
      config: The search.
      metadata: Of the data, which decides which columns there are.

    Raises:
      ConfigError: No combination can be trained, or a grid is too large.
    """
    space = space_of(config)
    if config.search_strategy == "grid":
        if space.count > MAX_GRID:
            problem = (
                f"grid makes {space.count} combinations, more than {MAX_GRID}: set search_strategy: sample."
            )
            raise ConfigError(_source(config), [Problem("search_strategy", problem)])
        return _plan(config, metadata, space, range(space.count), space.count)
    wanted = min(config.n_samples or 0, space.count)
    looked_at = itertools.islice(shuffled(space.count, config.seed), 100 * wanted + 1000)
    return _plan(config, metadata, space, looked_at, wanted)


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
    values = config.model_dump(mode="json")
    model, training = values["model_hyperparameter_sampling"], values["training_hyperparameter_sampling"]
    result: dict[str, Any] = {key: values[key] for key in _FIXED_AT_TOP} | {"model_name": model_name}
    result[MODEL] = _without(model, _MODEL_AXES)
    result[TRAINING] = _without(training, _TRAINING_AXES)
    for key, value in settings.items():
        section, _, name = key.rpartition(".")
        (result[section] if section else result)[name] = value
    return result


def resolved(settings: Choice) -> dict[str, Any]:
    """Settings in which a number of key/value heads that does not divide the query heads is null."""
    kv_heads, heads = settings[f"{MODEL}.n_kv_heads"], settings[f"{MODEL}.n_head"]
    divides = kv_heads is not None and heads % kv_heads == 0
    return {**settings, f"{MODEL}.n_kv_heads": kv_heads if divides else None}


def run_name(search: str, run: int) -> str:
    """The name of a run."""
    return f"{search}-run-{run}"


def _plan(
    config: HyperparameterSearchConfig,
    metadata: Metadata,
    space: Space,
    numbers: Iterable[int],
    wanted: int,
) -> Plan:
    candidates: list[Candidate] = []
    skipped: list[Skipped] = []
    first_error: ConfigError | None = None
    seen: dict[str, int] = {}
    for number in numbers:
        if len(candidates) == wanted:
            break
        run, settings = len(candidates), resolved(space.combination(number))
        name = run_name(config.hp_search_name, run)
        try:
            train = validate(TrainConfig, train_values(config, settings, name), f"combination {number}")
            resolve_schema(train, metadata)
        except ConfigError as error:
            first_error = first_error or error
            skipped.append(Skipped(number, " ".join(map(str, error.problems))))
            continue
        same = seen.setdefault(_identity(train), number)
        if same != number:
            skipped.append(Skipped(number, f"comes to the same training as combination {same}."))
            continue
        varied = {key: settings[key] for key in space.varied}
        candidates.append(Candidate(run, number, varied, train))
    if not candidates and first_error is not None:
        raise ConfigError(
            f"{_source(config)} has no combination that can be trained ({len(skipped)} tried). The first",
            first_error.problems,
        )
    return Plan(tuple(candidates), tuple(skipped))


def _source(config: HyperparameterSearchConfig) -> str:
    return f"The search {config.hp_search_name!r}"


def _identity(config: TrainConfig) -> str:
    return json.dumps(config.model_dump(mode="json", exclude={"model_name"}), sort_keys=True)


def _axis(prefix: str, section: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[Choice, ...]:
    given = {f"{prefix}{key}": section[key] for key in keys if section[key] is not None}
    return tuple(dict(zip(given, place, strict=True)) for place in zip(*given.values(), strict=True))


def _without(section: Mapping[str, Any], axes: tuple[tuple[str, ...], ...]) -> dict[str, Any]:
    varied = {key for axis in axes for key in axis}
    return {key: value for key, value in section.items() if key not in varied}
