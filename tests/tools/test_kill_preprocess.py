"""Runs that are killed lose nothing; and the check would notice if they did."""

from pathlib import Path

import pytest

from tools.kill_preprocess import check, trial


@pytest.mark.parametrize(("write_format", "in_order"), [("arrow", False), ("parquet", True)])
def test_nothing_is_lost(tmp_path: Path, write_format: str, in_order: bool) -> None:
    wrong, _ = trial(tmp_path, write_format, kills=3, seed=11, in_order=in_order)
    assert wrong == []


OLD = {"data/t-split0/a": "1", "data/t-split0/b": "2", "data/t-split1/a": "3", "configs/t.json": "4"}
NEW = {name: f"new {digest}" for name, digest in OLD.items()}


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (OLD, None),
        (NEW, None),
        ({**OLD, "data/t-split0/a": "new 1", "data/t-split0/b": "new 2"}, None),
        ({**OLD, "data/.t.preprocess/split0/x": "?"}, None),
        ({**OLD, "data/t-split0/a": "new 1"}, "neither"),
        ({name: digest for name, digest in OLD.items() if "split1" not in name}, "neither"),
        ({**OLD, "configs/t.json": "?"}, "neither"),
        ({**OLD, "data/t-split0/c": "?"}, "should not be there"),
    ],
)
def test_the_check(found: dict[str, str], fault: str | None) -> None:
    said = check(found, OLD, NEW)
    assert said is None if fault is None else said is not None and fault in said
