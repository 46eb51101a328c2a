"""The benchmark of searches runs, and compares what it measured."""

import json
import sys
from pathlib import Path

import pytest

from seqjax.config.base import validate
from seqjax.config.hyperparameter_search import HyperparameterSearchConfig
from seqjax.config.train import TrainConfig
from tools import bench_sweep


def test_the_search_is_valid() -> None:
    values = bench_sweep.search(16, bench_sweep.SHAPE)
    config = validate(HyperparameterSearchConfig, values, "the benchmark")
    assert len(set(config.model_dump()["training_hyperparameter_sampling"]["learning_rate"])) == 16


def test_ways_take_turns_and_their_medians_count(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = bench_sweep.SOLO
    seconds = {"loop": [9.0, 2.0, 4.0, 1.0], alone: [8.0, 4.0, 4.0, 4.0]}
    turns = []

    def trained(trainer: object, runs: list[TrainConfig]) -> tuple[float, float]:
        way = alone if runs[0].model_name.startswith(("first-one", "one")) else "loop"
        turns.append((way, len(runs)))
        found = seconds[way].pop(0)
        return 10 * found, found

    monkeypatch.setattr(bench_sweep, "_trained", trained)
    found = bench_sweep.population(2, bench_sweep.SIZES[0], ("loop", alone), 3, "cpu")
    assert turns == [("loop", 2), (alone, 2)] * 4
    steps = 2 * bench_sweep.EPOCHS * bench_sweep.BATCHES
    assert found["model_steps"] == steps
    assert found["ways"]["loop"] == {
        "first_seconds": 90.0,
        "wall_seconds": 20.0,
        "cpu_seconds": 2.0,
        "model_steps_per_cpu_second": steps / 2,
        "wall_against_sequential": 2.0,
        "cpu_against_sequential": 2.0,
    }
    assert found["ways"][alone]["cpu_against_sequential"] == 1.0


def test_whole_searches_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def timed(command: list[str], folder: Path, **variables: str) -> tuple[float, float]:
        if command[0] == sys.executable:
            assert variables["JAX_COMPILATION_CACHE_DIR"].startswith(str(folder))
            return 4.0, 3.0
        asked.append(command[1])
        (folder / "models").mkdir(exist_ok=True)
        for run in range(4):
            (folder / f"models/sequifier-bench-run-{run}-last-{bench_sweep.EPOCHS}.pt").touch()
        return 40.0, 30.0

    monkeypatch.setattr(bench_sweep, "timed", timed)
    monkeypatch.setattr(bench_sweep, "in_a_process", lambda *given: {"models": given[0]})
    output = tmp_path / "sweep.json"
    words = ["--models", "4", "--peer", "sequifier", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["bench_sweep", *words])
    assert bench_sweep.main() == 0
    found = json.loads(output.read_text())
    assert found["population"]["rows"] == [{"models": 4}]
    ours, theirs = found["searches"]["rows"]
    assert ours == {
        "program": "seqjax",
        "runs": 4,
        "wall_seconds": 4.0,
        "cpu_seconds": 3.0,
        "each_wall_seconds": [4.0] * 3,
        "each_cpu_seconds": [3.0] * 3,
        "wall_against_sequifier": 10.0,
        "each_wall_against_sequifier": [10.0] * 2,
        "cpu_against_sequifier": 10.0,
        "each_cpu_against_sequifier": [10.0] * 2,
    }
    assert theirs == {
        "program": "sequifier",
        "runs": 4,
        "wall_seconds": 40.0,
        "each_wall_seconds": [40.0] * 2,
        "cpu_seconds": 30.0,
        "each_cpu_seconds": [30.0] * 2,
    }
    assert asked == ["preprocess", "hyperparameter-search"] * 2
    monkeypatch.setattr(bench_sweep, "in_a_process", lambda *given: {"models": 0})
    monkeypatch.setattr(sys, "argv", ["bench_sweep", *words, "--parts", "population"])
    assert bench_sweep.main() == 0
    again = json.loads(output.read_text())
    assert again["population"]["rows"] == [{"models": 0}]
    assert again["searches"] == found["searches"]
    with pytest.raises(RuntimeError, match="trained 4 of 9 runs"):
        bench_sweep.peers(Path("sequifier"), 9)


def test_a_command_that_fails_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="failed: the reason"):
        bench_sweep.timed([sys.executable, "-c", "raise SystemExit('the reason')"], tmp_path)
