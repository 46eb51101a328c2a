"""Values to try of a key: a list of them, or a range that numbers are drawn from.

Keys of the training configuration are written with dots, such as `training_spec.optimizer.weight_decay`: the
section, the key, and what remains is a key inside of it.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args, get_origin

from pydantic import Field, ValidationInfo, field_validator

from seqjax.config.base import ConfigModel, suggestion
from seqjax.config.optimization import OPTIMIZERS, SCHEDULERS
from seqjax.config.train import TrainConfig

SECTIONS = ("model_spec", "training_spec")

_OWN_ARGUMENTS: Mapping[str, tuple[type[ConfigModel], ...]] = {
    "training_spec.optimizer": tuple(OPTIMIZERS.values()),
    "training_spec.scheduler": tuple(SCHEDULERS.values()),
}
_DECIDED_BY_THE_SEARCH = ("model_name", "project_root", "metadata_config_path")


class Range(ConfigModel):
    """Numbers from low to high; whole ones where the key takes whole numbers."""

    low: int | float
    """The smallest."""
    high: int | float
    """The largest."""
    log: bool = False
    """Draw evenly on a logarithmic scale."""

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


Values = Annotated[list[Any], Field(min_length=1)] | Range
"""What may be tried of any key."""


def parts_of(key: str) -> tuple[str, ...]:
    """The names that lead to a key: its section (if it is in one), itself, and a key inside of it, if any."""
    return tuple(key.split(".", 2 if key.partition(".")[0] in SECTIONS else 1))


def check_key(key: str, searched_elsewhere: Mapping[str, str]) -> None:
    """Raises `ValueError` unless `key` may be tried.

    Args:
      key: A dotted key of the training configuration.
      searched_elsewhere: Keys that have a place of their own in the search, and where that is.
    """
    outer = ".".join(parts_of(key)[:2]) if key.partition(".")[0] in SECTIONS else key.partition(".")[0]
    if key in searched_elsewhere:
        raise ValueError(f"has a place of its own: {searched_elsewhere[key]}.")
    if key in _DECIDED_BY_THE_SEARCH or key in SECTIONS:
        raise ValueError("cannot be varied.")
    known = list(_known_keys())
    if outer not in known:
        raise ValueError(f"no such key of the training configuration. {suggestion(outer, known)}")


def is_whole(key: str, values: Range) -> bool:
    """Whether a range of a key means whole numbers: where the key's type says so, or else the bounds do."""
    kinds = _number_kinds(key)
    if kinds:
        return kinds == {int}
    return isinstance(values.low, int) and isinstance(values.high, int)


def _known_keys() -> Iterator[str]:
    for name, field in TrainConfig.model_fields.items():
        if name in SECTIONS:
            yield from (f"{name}.{inner}" for inner in _section(field.annotation).model_fields)
        else:
            yield name


def _number_kinds(key: str) -> set[type]:
    parts = parts_of(key)
    models: tuple[type[ConfigModel], ...] = (TrainConfig,)
    if parts[0] in SECTIONS:
        models, parts = (_section(TrainConfig.model_fields[parts[0]].annotation),), parts[1:]
    if len(parts) == 2:
        models = _OWN_ARGUMENTS.get(key.rpartition(".")[0], ())
    fields = (model.model_fields.get(parts[-1]) for model in models)
    return {kind for field in fields if field is not None for kind in _numbers(field.annotation)}


def _numbers(annotation: object) -> Iterator[type]:
    if annotation in (int, float):
        yield from (kind for kind in (int, float) if kind is annotation)
    elif get_origin(annotation) not in (list, tuple, dict):
        for member in get_args(annotation):
            yield from _numbers(member)


def _section(annotation: Any) -> type[ConfigModel]:  # noqa: ANN401
    return annotation
