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


@pytest.mark.slow
def test_storms_beat_the_baselines(shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seqjax("make", "storms")
    monkeypatch.chdir(tmp_path / "storms")
    shutil.copy(shared / "data" / "storms-train.csv", "data")
    for config in STORMS.glob("*.yaml"):
        shutil.copy(config, "configs")
    for command in ("preprocess", "train", "infer"):
        seqjax(command)
    records = [
        json.loads(line) for line in Path("logs/sequifier-storms-rank0.jsonl").read_text().splitlines()
    ]
    model = min(record["loss"] for record in records if record["event"] == "validation")
    (baselines,) = (record for record in records if record["event"] == "baselines")
    assert model < 0.9 * min(baselines[name]["loss"] for name in ("last value", "first-order Markov"))
    lines = Path("outputs/predictions/sequifier-storms-best-16-predictions.csv").read_text().splitlines()
    assert lines[0] == "sequenceId,itemPosition,status,lat,long,wind,pressure"
    assert len(lines) > 2000
