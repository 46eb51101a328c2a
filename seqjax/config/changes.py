"""Marks of keys, by what depends on them, and differences of two configurations of the same command.

A field says by a mark what depends on it: `dropout: Annotated[ShareBelowOne, TRACED]`. Which runs share
compiled programs, and with which changes a checkpoint may be continued, follows from the marks. A key without
a mark is compiled in, and what is learnt depends on it.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from seqjax.config.base import ConfigModel, closed_section_of


@dataclass(frozen=True)
class Mark:
    """The things that depend on a key."""

    is_compiled: bool = True
    """True if compiled programs, or the data that they run on, differ for another value."""
    has_influence: bool = True
    """True if what is learnt depends on it."""
    may_change: bool = False
    """True if a run may go on from a checkpoint with another value, although what is learnt depends on it."""


FREE = Mark(is_compiled=False, has_influence=False)
"""Neither programs nor results depend on it."""
LOCAL = Mark(has_influence=False)
"""It decides where and by which programs a run computes, but not what is learnt."""
TRACED = Mark(is_compiled=False)
"""Programs take it in as a value, or never see it; what is learnt depends on it."""
RESUMABLE = Mark(is_compiled=False, may_change=True)
"""Like `TRACED`; and it concerns only what comes before or after what a checkpoint holds."""


def mark_of(model: type[ConfigModel], name: str) -> Mark:
    """The mark of a field."""
    marks = [mark for mark in model.model_fields[name].metadata if isinstance(mark, Mark)]
    return marks[0] if marks else Mark()


def marked_keys(model: type[ConfigModel], accepts: Callable[[Mark], bool], prefix: str = "") -> list[str]:
    """The dotted keys of a configuration, those of its sections too, whose mark is accepted."""
    keys = []
    for name, field in model.model_fields.items():
        section = closed_section_of(field.annotation)
        if accepts(mark_of(model, name)):
            keys.append(f"{prefix}{name}")
        elif section is not None:
            keys += marked_keys(section, accepts, f"{prefix}{name}.")
    return keys


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted key; lists and empty mappings are values."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def without(flat: Mapping[str, Any], ignored: Collection[str]) -> dict[str, Any]:
    """Flattened values, less those of the `ignored` keys and of all that is below them."""
    return {
        key: value
        for key, value in flat.items()
        if not any(key == name or key.startswith(f"{name}.") for name in ignored)
    }


def changed_keys(
    before: Mapping[str, Any], after: Mapping[str, Any], *, ignored: Collection[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """The dotted keys whose values differ: (before, after), None where a key is missing.

    Args:
      before: Nested values, as JSON holds them.
      after: Likewise.
      ignored: Dotted keys that may differ, with all that is below them.
    """
    old, new = (without(flattened(values), ignored) for values in (before, after))
    keys = [key for key in dict.fromkeys((*old, *new)) if old.get(key) != new.get(key)]
    return {key: (old.get(key), new.get(key)) for key in keys}
