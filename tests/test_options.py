"""The options that a config model becomes, and how their words are read, by the type of their field."""

import dataclasses
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from seqjax.command import Command
from seqjax.config.base import ConfigModel
from seqjax.options import options_class, read_words


class Section(ConfigModel):
    rate: Annotated[float, Field(gt=0)] | None
    """A rate."""


Positive = Section.model_fields["rate"].annotation


@pytest.mark.parametrize(
    ("words", "annotation", "value"),
    [
        (["1e-3"], float, 0.001),
        (["1e-3"], Positive, 0.001),
        (["1e-3"], str, "1e-3"),
        (["a: b"], str, "a: b"),
        (["None"], str | None, None),
        (["null"], int | None, None),
        (["none"], str, "none"),
        (["true"], bool, True),
        (["csv"], Literal["csv", "parquet"], "csv"),
        (["x"], str | list[str], "x"),
        (["x", "y"], str | list[str], ["x", "y"]),
        (["[x, y]"], str | list[str], ["x", "y"]),
        (["3"], list[int], [3]),
        (["3", "x"], list[int], [3, "x"]),
        (["1"], list[str], ["1"]),
        ([], list[str], []),
        (["{a: 1e-3, b: [x]}"], dict[str, float], {"a": 0.001, "b": ["x"]}),
        (["a: 1"], dict[str, int] | None, {"a": 1}),
        (["[1, no]"], Any, [1, "no"]),
        (["0.1"], list[float] | Section, [0.1]),
        (["0.1", "0.2"], list[float] | Section, [0.1, 0.2]),
        (["{rate: 1e-3}"], list[float] | Section, {"rate": 0.001}),
    ],
)
def test_words_are_read_by_the_type(words, annotation, value):
    assert read_words(words, annotation, "key") == value


class Whole(ConfigModel):
    """A section whose required keys do not come first."""

    name: str = "x"
    """A name."""
    count: int
    """A count."""
    section: Section
    """A section."""


def test_what_must_be_given_comes_first():
    options = options_class(Whole, Command("make", summary="", positional=["other"]))
    assert [field.name for field in dataclasses.fields(options)] == ["count", "section", "name"]
