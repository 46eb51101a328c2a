"""Halving and Optuna find what a grid finds, for a third of its updates."""

from pathlib import Path

import pytest

from tools.prove_strategies import compare, holds, project

GRID = {"learning_rate": [1e-3, 3e-3, 1e-2], "dropout": [0.0, 0.2], "weight_decay": [0.0, 0.1]}


@pytest.mark.slow
def test_halving_reaches_a_small_grid(tmp_path: Path) -> None:
    project(tmp_path, 20)
    result = compare(tmp_path, 0, trials=4, **GRID)
    assert result["grid"]["epochs"] == 12 * 9
    # What four trials of twelve find is luck: of Optuna only the whole comparison says something.
    assert result["tpe"]["epochs"] == 4 * 9
    assert holds({**result, "tpe": result["halving"]}), result


def test_the_check() -> None:
    good = {"loss_above_grid": 0.009, "share_of_updates": 1 / 3}
    assert holds({"halving": good, "tpe": good})
    assert holds({"halving": {**good, "loss_above_grid": -0.1}, "tpe": good})
    assert not holds({"halving": good, "tpe": {**good, "loss_above_grid": 0.02}})
    assert not holds({"halving": {**good, "share_of_updates": 0.4}, "tpe": good})
