"""The benchmark of searches runs, and compares what it measured."""

import json
import sys
from pathlib import Path

import pytest

from seqjax.config.base import validate
from seqjax.config.hyperparameter_search import HyperparameterSearchConfig
from tools import bench_sweep


def test_the_search_is_valid() -> None:
    config = validate(HyperparameterSearchConfig, bench_sweep.search(Path(), 16), "the benchmark")
    assert len(set(config.model_dump()["training_hyperparameter_sampling"]["learning_rate"])) == 16


def test_results_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costs = {"sequential": 10.0, "loop": 4.0, "peer": 40.0}

    def timed(command: list[str], folder: Path) -> tuple[float, float]:
        if command[0] != sys.executable:
            return costs["peer"], costs["peer"]
        engine = json.loads(command[3]).get("engine", "loop")
        return costs[engine], costs[engine]

    monkeypatch.setattr(bench_sweep, "timed", timed)
    output = tmp_path / "sweep.json"
    words = ["--models", "8", "--sequential", "2", "--runners", "loop", "--peer", "sequifier"]
    monkeypatch.setattr(sys, "argv", ["bench_sweep", *words, "--peer-runs", "4", "--output", str(output)])
    assert bench_sweep.main() == 0
    row = json.loads(output.read_text())["together"][0]
    assert row["cpu_against_sequential"] == 10.0
    assert row["wall_against_sequifier"] == 20.0
