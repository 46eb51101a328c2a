"""The recipes run as their README says; the demo's is run in tests/tools/test_demo.py."""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STORMS = ROOT / "configs" / "recipes" / "storms"
README = STORMS / "README.md"
LENGTH = 6
"""Items that the model, and so a baseline, sees."""


def seqjax(*words):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "seqjax", *words]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result


@pytest.mark.slow
def test_storms_beat_the_baselines(shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seqjax("make", "storms")
    monkeypatch.chdir(tmp_path / "storms")
    for name in ("train", "valid"):
        shutil.copy(shared / "data" / f"storms-{name}.csv", "data")
    for config in STORMS.glob("*.yaml"):
        shutil.copy(config, "configs")
    seqjax("preprocess")
    assert "  seqjax evaluate --model-path models/sequifier-storms-best-16.onnx" in seqjax("train").stderr
    seqjax("infer")
    records = [
        json.loads(line) for line in Path("logs/sequifier-storms-rank0.jsonl").read_text().splitlines()
    ]
    model = [record for record in records if record["event"] == "validation"][-1]["losses"]
    (baselines,) = (record for record in records if record["event"] == "baselines")
    for column in ("status", "lat", "long", "wind", "pressure"):
        simple = min(
            baselines[name]["losses"][column]["loss"] for name in ("last value", "first-order Markov")
        )
        assert model[column]["loss"] < 0.9 * simple, column
    assert rows("sequifier-storms-best-16-predictions.csv") == 1237
    seqjax("preprocess", "--config-path", "configs/preprocess-valid.yaml")
    seqjax("infer", "--data-path", "data/storms-valid-split0")
    assert rows("sequifier-storms-best-16-predictions.csv") == 742
    printed = seqjax("evaluate").stdout
    report = json.loads(Path("outputs/evaluations/sequifier-storms-best-16-evaluation.json").read_text())
    (found,) = report["models"]
    assert found["verdict"] in printed
    assert (found["windows"], found["sequences"], found["resampled"]) == (913, 35, "sequences")
    assert found["baselines"]["fitted_on"] == "data/storms-train-split0"
    assert set(found["targets"]) == {"status", "lat", "long", "wind", "pressure"}
    for column, target in found["targets"].items():
        verdict = target["verdict"]
        # A storm goes on as it went: two thirds of what can be known of its place is said by its last step.
        expected = ("worse", "velocity") if column in ("lat", "long") else ("better", verdict["baseline"])
        assert (verdict["outcome"], verdict["baseline"]) == expected, column
        metrics = target["metrics"]
        if column != "status":
            assert min(metrics, key=lambda name: metrics[name]["rmse"]["value"]) in (
                "model",
                verdict["baseline"],
            )
    assert "velocity" in printed
    seqjax("infer", "--data-path", "data/storms-valid.csv", "--read-format", "csv", "--stride", "1")
    for column, figures in by_hand(found["baselines"]["periods"]).items():
        for name, rmse in figures.items():
            reported = found["targets"][column]["metrics"][name]["rmse"]["value"]
            assert reported == pytest.approx(rmse, rel=1e-6), (column, name)
        (row,) = (line for line in README.read_text().splitlines() if line.startswith(f"| {column} | RMSE"))
        _, _, _, _, best, outcome, _ = row.split("|")
        rival = min(("last value", "velocity", "seasonal last value", "drift"), key=figures.get)
        assert rival in best, row
        assert float(best.split()[0]) == pytest.approx(figures[rival], abs=0.006), row
        assert outcome.split()[0] == found["targets"][column]["verdict"]["outcome"], row
    page = Path("outputs/evaluations/sequifier-storms-best-16-evaluation.html").read_text()
    assert page.count("<figcaption>") == 3 + 4 * 4


def rows(name):
    lines = (Path("outputs/predictions") / name).read_text().splitlines()
    assert lines[0] == "sequenceId,itemPosition,status,lat,long,wind,pressure"
    return len(lines) - 1


def by_hand(periods):
    """RMSE by column and predictor, from the tables alone: nothing of seqjax computes it."""
    storms, predicted = {}, {}
    with Path("data/storms-valid.csv").open() as file:
        for line in csv.DictReader(file):
            storms.setdefault(line["sequenceId"], []).append((int(line["itemPosition"]), line))
    with Path("outputs/predictions/sequifier-storms-best-16-predictions.csv").open() as file:
        for line in csv.DictReader(file):
            predicted[line["sequenceId"], int(line["itemPosition"])] = line
    figures = {}
    for column in ("lat", "long", "wind", "pressure"):
        period, squares = periods[column], {}
        for storm, lines in storms.items():
            values = [float(line[column]) for _, line in sorted(lines, key=lambda pair: pair[0])]
            positions = sorted(position for position, _ in lines)
            for at in range(1, len(values)):
                seen = values[max(at - LENGTH, 0) : at]
                last = seen[-1]
                guesses = {
                    "model": float(predicted[storm, positions[at]][column]),
                    "last value": last,
                    "velocity": 2 * last - seen[-2] if len(seen) > 1 else last,
                    "drift": last + (last - seen[0]) / (len(seen) - 1) if len(seen) > 1 else last,
                    "seasonal last value": seen[-period] if len(seen) >= period else last,
                }
                for name, guess in guesses.items():
                    squares.setdefault(name, []).append((guess - values[at]) ** 2)
        figures[column] = {name: math.sqrt(sum(row) / len(row)) for name, row in squares.items()}
    return figures
