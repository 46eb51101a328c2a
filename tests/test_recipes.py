"""The recipes run as their README says; the demo's is run in tests/tools/test_demo.py."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STORMS = ROOT / "configs" / "recipes" / "storms"


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
    assert (found["windows"], found["sequences"], found["resampled"]) == (742, 35, "sequences")
    assert found["baselines"]["fitted_on"] == "data/storms-train-split0"
    assert set(found["targets"]) == {"status", "lat", "long", "wind", "pressure"}
    for column, target in found["targets"].items():
        assert target["verdict"]["outcome"] == "better", column
    page = Path("outputs/evaluations/sequifier-storms-best-16-evaluation.html").read_text()
    assert page.count("<figcaption>") == 3 + 4 * 4


def rows(name):
    lines = (Path("outputs/predictions") / name).read_text().splitlines()
    assert lines[0] == "sequenceId,itemPosition,status,lat,long,wind,pressure"
    return len(lines) - 1
