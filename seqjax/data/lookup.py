"""The id of a value, however a program wrote it.

The keys of a map are texts. A text has the id of the key that is the same; else, where the keys are numbers
or booleans, of the key of the same value: 7, 7.0 and "7" are one category, as are true, True and "1" beside a
map of booleans. Where the keys are other texts, 007 is not 7, nor is version 1.10 version 1.1.
"""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import cached_property
from typing import Literal

from seqjax.data.cells import is_number

OTHER = 1
"""The id of a value that a map lacks."""
_TRUTH = {"true": True, "false": False}
_MOST_DIGITS = 40
"""Of a whole number: those of 128 bits."""


def numbers_of(id_map: Iterable[str]) -> Literal["whole", "decimal"] | None:
    """The way the keys of a map are written: `whole` or `decimal` numbers; None if some are text."""
    keys = list(id_map)
    try:
        if all(str(int(key)) == key for key in keys):
            return "whole"
    except ValueError:
        pass
    try:
        return "decimal" if all(str(float(key)) == key for key in keys) else None
    except ValueError:
        return None


class Lookup:
    """A map from values to ids."""

    def __init__(self, id_map: Mapping[str, int]) -> None:
        self.id_map = id_map

    def ids(self, texts: Iterable[str]) -> list[int]:
        """The id of each text; `OTHER` where the map knows no such value."""
        return [self._id(text) for text in texts]

    def _id(self, text: str) -> int:
        known = self.id_map.get(text)
        if known is not None:
            return known
        if text.strip().lower() in _TRUTH:
            return self._truth.get(_TRUTH[text.strip().lower()], OTHER)
        return self._by_value.get(value, OTHER) if (value := self._value(text)) is not None else OTHER

    @cached_property
    def _kind(self) -> Literal["whole", "decimal", "text"]:
        return numbers_of(self.id_map) or "text"

    @cached_property
    def _by_value(self) -> dict[Decimal | float, int]:
        """The ids of numbers, and of truths in a map of truths."""
        if self._kind == "whole":
            return {Decimal(key): number for key, number in self.id_map.items()}
        if self._kind == "decimal":
            return {float(key): number for key, number in self.id_map.items()}
        if {key.lower() for key in self.id_map} <= set(_TRUTH):
            return {Decimal(truth): number for truth, number in self._truth.items()}
        # A program that writes 7.0 for 7 does so for all numbers of a column.
        if any(re.fullmatch(r"-?[0-9]+\.[0-9]+", key) for key in self.id_map):
            return {}
        keys = [key for key in self.id_map if re.fullmatch("-?[1-9][0-9]*|0", key)]
        return {Decimal(key): self.id_map[key] for key in keys}

    @cached_property
    def _truth(self) -> dict[bool, int]:
        """The ids of true and false, where the map tells these apart from its other values."""
        if set(self.id_map) <= {"0", "1"}:
            return {key == "1": number for key, number in self.id_map.items()}
        spellings: dict[bool, list[int]] = {}
        for key, number in self.id_map.items():
            if key.lower() in _TRUTH:
                spellings.setdefault(_TRUTH[key.lower()], []).append(number)
        return {truth: numbers[0] for truth, numbers in spellings.items() if len(numbers) == 1}

    def _value(self, text: str) -> Decimal | float | None:
        """The number that a text writes, of the type of the keys' numbers."""
        if not is_number(text):
            return None
        if self._kind == "decimal":
            return float(text)
        value = Decimal(text.strip())
        is_whole = (
            value.is_finite() and value.adjusted() < _MOST_DIGITS and value == value.to_integral_value()
        )
        return value if is_whole else None
