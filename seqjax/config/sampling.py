"""Values to try of a key: a list of them, or a range that numbers are drawn from.

Keys of the training configuration are written with dots, such as `training_spec.optimizer.weight_decay`: the
section, the key, and what remains is a key inside of it.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, get_args, get_origin

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from seqjax.config.base import ConfigModel, closed_section_of, section_of, suggestion
from seqjax.config.optimization import OPTIMIZERS, SCHEDULERS
from seqjax.config.train import TrainConfig

SECTIONS = ("model_spec", "training_spec")

_OWN_ARGUMENTS: Mapping[str, tuple[type[ConfigModel], ...]] = {
    "training_spec.optimizer": tuple(OPTIMIZERS.values()),
    "training_spec.scheduler": tuple(SCHEDULERS.values()),
}
# Runs that are judged on other data cannot be compared.
_DECIDED_BY_THE_SEARCH = ("model_name", "project_root", "metadata_config_path", "validation_data_path")


class Range(ConfigModel):
    """Numbers from low to high; whole ones where the key takes whole numbers."""

    low: int | float
    high: int | float
    log: bool = False
    """Draw evenly on a logarithmic scale."""

    @model_validator(mode="before")
    @classmethod
    def _has_bounds(cls, values: object) -> object:
        if not isinstance(values, Mapping | Range):
            # Next to a list, "a section of keys and values" would say too little.
            raise PydanticCustomError("range", "must be a range")
        return values

    @field_validator("high")
    @classmethod
    def _is_above_low(cls, high: float, info: ValidationInfo) -> float:
        low = info.data.get("low")
        if low is not None and high <= low:
            raise ValueError(f"must be greater than low, {low} (found {high}).")
        return high

    @field_validator("log")
    @classmethod
    def _logarithms_exist(cls, log: bool, info: ValidationInfo) -> bool:
        low = info.data.get("low")
        if log and low is not None and low <= 0:
            raise ValueError(f"true needs low to be above 0 (found {low}).")
        return log


class WholeRange(Range):
    """Whole numbers from low to high."""

    @field_validator("low", "high")
    @classmethod
    def _is_whole(cls, bound: float) -> int:
        if bound != int(bound):
            raise ValueError(f"must be a whole number (found {bound}).")
        return int(bound)


Values = Annotated[list[Any], Field(min_length=1)] | Range
"""Values of any key that may be tried."""


def parts_of(key: str) -> tuple[str, ...]:
    """The names that lead to a key: its section (if it is in one), itself, and a key inside of it, if any."""
    return tuple(key.split(".", 2 if key.partition(".")[0] in SECTIONS else 1))


def short_name(key: str) -> str:
    """A key without its section; keys inside of others keep those. No two sections have keys of one name."""
    return ".".join(parts_of(key)[1:]) if key.partition(".")[0] in SECTIONS else key


def check_key(key: str, searched_elsewhere: Mapping[str, str]) -> None:
    """Raises `ValueError` unless `key` may be tried.

    Args:
      key: A dotted key of the training configuration.
      searched_elsewhere: Keys that have a place of their own in the search, and where that is.
    """
    outer = _outer(key)
    if key in searched_elsewhere:
        raise ValueError(f"has a place of its own: {searched_elsewhere[key]}.")
    if key in _DECIDED_BY_THE_SEARCH or key in SECTIONS:
        raise ValueError("cannot be varied.")
    known = _known_keys()
    if outer not in known:
        raise ValueError(f"no such key of the training configuration. {suggestion(outer, list(known))}")
    if key != outer and not _holds_names(known[outer].annotation):
        raise ValueError(f"{outer} holds no keys or names, so that nothing inside of it can be varied.")


def check_range(key: str, values: Range) -> None:
    """Raises `ValueError` if a key takes whole numbers, and the bounds of its range are others."""
    fractions = [bound for bound in (values.low, values.high) if bound != int(bound)]
    if fractions and is_whole(key, values):
        raise ValueError(
            f"takes whole numbers, so that low and high must be whole numbers too (found {fractions[0]})."
        )


def is_whole(key: str, values: Range) -> bool:
    """True if a range of a key means whole numbers: where the key's type says so, or else the bounds do."""
    kinds = _number_kinds(key)
    if kinds:
        return kinds == {int}
    return isinstance(values.low, int) and isinstance(values.high, int)


def _outer(key: str) -> str:
    """The key of the training configuration that a key is, or is inside of."""
    return ".".join(parts_of(key)[: 2 if key.partition(".")[0] in SECTIONS else 1])


@cache
def _known_keys() -> Mapping[str, FieldInfo]:
    """The keys of the training configuration, those of its sections after dots."""
    known: dict[str, FieldInfo] = {}
    for name, field in TrainConfig.model_fields.items():
        section = closed_section_of(field.annotation)
        inner = {f"{name}.{key}": own for key, own in section.model_fields.items()} if section else None
        known |= inner or {name: field}
    return known


def _number_kinds(key: str) -> set[type]:
    outer = _outer(key)
    if key == outer:
        fields = [_known_keys().get(key)]
    else:
        argument = key.removeprefix(f"{outer}.")
        fields = [model.model_fields.get(argument) for model in _OWN_ARGUMENTS.get(outer, ())]
    return {kind for field in fields if field is not None for kind in _numbers(field.annotation)}


def _numbers(annotation: object) -> Iterator[type]:
    if annotation in (int, float):
        yield from (kind for kind in (int, float) if kind is annotation)
    elif get_origin(annotation) not in (list, tuple, dict):
        for member in get_args(annotation):
            yield from _numbers(member)


def _holds_names(annotation: object) -> bool:
    """True if a value of a type can have names inside, as a mapping and a section do."""
    if get_origin(annotation) is dict or section_of(annotation) is annotation:
        return True
    return get_origin(annotation) not in (list, tuple) and any(map(_holds_names, get_args(annotation)))
