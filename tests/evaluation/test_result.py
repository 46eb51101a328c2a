"""The JSON report: strict, complete, and as documented."""

import json
import re
from dataclasses import replace
from pathlib import Path

from seqjax.evaluation.result import to_json
from tests.evaluation.reports import report

DOCUMENT = Path(__file__).parents[2] / "docs" / "evaluate.md"

# Keys that are names of the user's, of predictors or of metrics.
OPEN = {"metrics", "targets", "ece", "predictions", "window", "likely", "comparison", "not_scored", "classes"}


def keys(value, inside=""):
    """The names of all fields of a report, without what is named by data."""
    if isinstance(value, list):
        for member in value:
            yield from keys(member, inside)
    elif isinstance(value, dict):
        for name, member in value.items():
            if inside not in OPEN:
                yield name
            yield from keys(member, "" if inside in OPEN and inside != "metrics" else name)


def test_it_is_strict_json_without_nan():
    found = report("a")
    broken = replace(found.models[0].examples[0], window={"price": [float("nan"), float("inf")]})
    text = to_json(replace(found, models=[replace(found.models[0], examples=[broken])]))
    values = json.loads(text, parse_constant=lambda name: (_ for _ in ()).throw(ValueError(name)))
    assert values["models"][0]["examples"][0]["window"] == {"price": [None, None]}


def test_a_field_is_a_key():
    assert json.loads(to_json(report("a")))["models"][0]["targets"]["price"]["metrics"]["model"]["mae"] == {
        "value": 0.5,
        "low": 0.4,
        "high": 0.6,
    }


def test_every_key_is_documented():
    documented = set(re.findall(r"`(\w+)`", DOCUMENT.read_text(encoding="utf-8")))
    found = set(keys(json.loads(to_json(report("a", "b")))))
    assert {"verdict", "difference", "low", "calibration", "behind", "positions"} <= found
    assert found <= documented, sorted(found - documented)
