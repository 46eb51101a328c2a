"""Mistakes in a config are reported together, under the keys that the user wrote, and say what to write."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from seqjax.config.base import ConfigModel, shown, suggestion, validate
from seqjax.errors import ConfigError


class Inner(ConfigModel):
    size: Annotated[int, Field(gt=0)]
    """A size."""
    rate: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """A rate."""
    widths: dict[str, int] | None = None
    """Widths."""
    formats: dict[Literal["linear", "norm"], str] | None = None
    """Formats."""


class Outer(ConfigModel):
    name: Annotated[str, Field(min_length=1)] = "x"
    """A name."""
    kind: Literal["csv", "parquet"] = "csv"
    """A kind."""
    paths: str | list[str] = "."
    """One path, or several."""
    shares: Annotated[list[float], Field(min_length=1)] = Field(default=[1.0])
    """Shares."""
    on: bool = True
    """A switch."""
    inner: Inner = Inner(size=1)
    """A section."""
    many: list[Inner] = Field(default=[])
    """Several sections."""


def problems(values):
    with pytest.raises(ConfigError) as caught:
        validate(Outer, values, "outer.yaml")
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"name": None}, "name: must be text (found null)."),
        ({"name": ""}, "name: must be text that is not empty (found '')."),
        ({"kind": "cvs"}, "kind: must be 'csv' or 'parquet' (found 'cvs')."),
        ({"on": "perhaps"}, "on: must be true or false (found 'perhaps')."),
        ({"shares": []}, "shares: must be a list of 1 or more (found [])."),
        ({"shares": 0.5}, "shares: must be a list (found 0.5)."),
        ({"shares": [0.5, "half"]}, "shares.1: must be a number (found 'half')."),
        ({"shares": [float("nan")]}, "shares.0: must be a finite number (found nan)."),
        ({"paths": {"a": 1}}, "paths: must be text or a list (found {'a': 1})."),
        ({"paths": ["a", ["b"]]}, "paths.1: must be text (found ['b'])."),
        ({"inner": None}, "inner: must be a section of keys and values (found null)."),
        ({"inner": {}}, "inner.size: is required."),
        ({"inner": {"size": "4.5"}}, "inner.size: must be a whole number (found '4.5')."),
        ({"inner": {"size": 4.5}}, "inner.size: must be a whole number (found 4.5)."),
        ({"inner": {"size": 0}}, "inner.size: must be greater than 0 (found 0)."),
        ({"inner": {"size": 1, "rate": 1}}, "inner.rate: must be less than 1 (found 1)."),
        ({"inner": {"size": 1, "rate": -0.1}}, "inner.rate: must be at least 0 (found -0.1)."),
        # A key that is called like a type is a key.
        (
            {"inner": {"size": 1, "widths": {"int": "a"}}},
            "inner.widths.int: must be a whole number (found 'a').",
        ),
        (
            {"inner": {"size": 1, "widths": [1]}},
            "inner.widths: must be a mapping of names to values (found [1]).",
        ),
        (
            {"inner": {"size": 1, "formats": {"nrom": "x"}}},
            "inner.formats.nrom: unknown name. Known: 'linear' or 'norm'.",
        ),
        ({"many": [{"size": 1}, {"size": 1, "rat": 1}]}, "many.1.rat: unknown key. Did you mean 'rate'?"),
        ({"nmae": "x"}, "nmae: unknown key. Did you mean 'name'?"),
        ({"rate": 0.1}, "rate: unknown key. It belongs in inner."),
        ({"inner": {"size": 1, "kind": "csv"}}, "inner.kind: unknown key. It belongs at the top level."),
        ({"inner": {"size": 1, "zzz": 1}}, "inner.zzz: unknown key. Known: size, rate, widths, formats."),
    ],
)
def test_one_mistake_is_one_sentence(values, expected):
    assert problems(values) == [expected]


def test_all_mistakes_are_reported_together():
    values = {"name": None, "inner": {"size": "big", "rate": 2}, "paths": 3j, "kidn": "csv"}
    with pytest.raises(ConfigError) as caught:
        validate(Outer, values, "outer.yaml")
    assert str(caught.value) == (
        "outer.yaml has 5 problems:\n"
        "  name: must be text (found null).\n"
        "  paths: must be text or a list (found 3j).\n"
        "  inner.size: must be a whole number (found 'big').\n"
        "  inner.rate: must be less than 1 (found 2).\n"
        "  kidn: unknown key. Did you mean 'kind'?"
    )


def test_valid_values_are_taken_as_they_are_meant():
    config = validate(Outer, {"name": 7, "inner": {"size": "4"}, "on": "no"}, "outer.yaml")
    assert (config.name, config.inner.size, config.on) == ("7", 4, False)


def test_a_suggestion_lists_few_names():
    many = [f"column{index}" for index in range(40)]
    assert suggestion("colum7", many) == "Did you mean 'column7'?"
    assert suggestion("zzz", many).endswith("column11, ... (40 in all).")


def test_a_suggestion_does_not_mind_case():
    assert suggestion("adamw", ["Adam", "AdamW"]) == "Did you mean 'AdamW'?"
    assert suggestion("MSELOSS", ["CrossEntropyLoss", "MSELoss"]) == "Did you mean 'MSELoss'?"


def test_a_long_value_is_shown_short():
    assert len(shown("x" * 1000)) < 70
    assert len(shown({str(index): index for index in range(1000)})) < 70
