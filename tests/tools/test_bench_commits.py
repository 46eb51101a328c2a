"""The comparison of commits reads what the benchmarks write, and its ratios are the right way round."""

import json
from pathlib import Path

import pytest

from tools.bench_commits import BENCHMARKS, ratios

FILES = Path(__file__).parents[2] / "docs/benchmarks"


@pytest.mark.parametrize("name", BENCHMARKS)
def test_figures_of_the_files_that_are_kept(name: str) -> None:
    figures = BENCHMARKS[name].figures(json.loads((FILES / f"{name}.json").read_text()))
    assert figures
    assert all(value > 0 for value in figures.values())


def test_a_checkout_that_is_twice_as_fast() -> None:
    rounds = [
        ({"a": 1.0, "gone": 1.0}, {"a": 2.0, "new": 1.0}),
        ({"a": 2.0}, {"a": 4.0}),
        ({"a": 1.0}, {"a": 9.0}),
    ]
    assert ratios(rounds) == {"a": {"ratio": 2.0, "each": [2.0, 2.0, 9.0]}}
