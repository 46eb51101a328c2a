"""The demo reads its table from what the commands left behind, and ends near the optimum."""

import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from seqjax.cli import main as seqjax
from tools import demo, demo_data


@pytest.fixture
def project(tmp_path):
    """A preprocessed project with a training log of two epochs."""
    folder = tmp_path / "demo"
    for name in ("data", "configs", "logs"):
        (folder / name).mkdir(parents=True)
    shutil.copy(demo.RECIPE / "preprocess.yaml", folder / "configs")
    demo_data.write_csv(
        folder / "data" / "demo.csv", *demo_data.sample(demo_data.make_process(), 20, demo_data.ITEMS)
    )
    words = ["preprocess", "--config-path", str(folder / "configs" / "preprocess.yaml")]
    assert seqjax([*words, "--project-root", str(folder)]) == 0
    records = [
        {
            "event": "baselines",
            "marginal": losses(1.8, 1.0),
            "second-order Markov": {"losses": {"event": {"loss": 1.5}}},
        },
        {"event": "validation", "epoch": 0, **losses(2.0, 1.0)},
        {"event": "validation", "epoch": 1, **losses(1.3, 0.2)},
        {"event": "validation", "epoch": 2, **losses(1.4, 0.2)},
    ]
    log = folder / "logs" / "sequifier-demo-rank0.jsonl"
    log.write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def losses(event, level):
    by_column = {"event": {"loss": event, "weighted": event}, "level": {"loss": level, "weighted": level}}
    return {"loss": event + level, "losses": by_column}


def test_scores_are_the_best_epoch_the_baselines_and_the_optimum(project):
    process = demo_data.make_process()
    model, marginal, best = demo.read_scores(project, process)
    assert model == ("seqjax", {"event": 1.3, "level": 0.2})
    assert marginal == ("marginal", {"event": 1.8, "level": 1.0})
    # 20 sequences are few, so the windows' own optimum lies around the analytic rate, not on it.
    assert best.losses["event"] == pytest.approx(process.entropy_rate, rel=0.15)
    assert best.losses["level"] == pytest.approx(process.noise**2 / process.variance, rel=0.15)


def test_optimum_is_of_the_validation_rows(project):
    # Computed once more from the csv: each of the last 40 items of a sequence, from the 24 before it.
    process = demo_data.make_process()
    c, x = demo_data.sample(process, 20, demo_data.ITEMS)
    x = np.round(x, 6)
    c, x = (np.concatenate([part[:, end - 24 : end + 1] for end in range(160, 200)]) for part in (c, x))
    expected = demo_data.optimal_losses(process, c, x, np.zeros(len(c), dtype=np.int64))
    found = demo.optimum(project, process)
    assert found.losses["event"] == pytest.approx(float(expected.cross_entropy[:, -1].mean()), rel=1e-6)


def test_table_shows_the_excess():
    scores = [demo.Score("a", {"event": 1.0, "level": 0.1}), demo.Score("best", {"event": 0.9, "level": 0.1})]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(demo.comparison(scores))
    assert "10.00 %" in console.export_text()


def test_a_folder_that_is_no_demo_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(demo.StepError, match="no demo"):
        demo.create_project(tmp_path, sequences=2)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_failing_step_ends_the_demo(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "COMMAND", tmp_path / "seqjax")
    monkeypatch.setattr(sys, "argv", ["demo", "--project", str(tmp_path / "demo")])
    assert demo.main() == 1
    assert "is not installed" in capsys.readouterr().out


@pytest.mark.slow
def test_demo_ends_near_the_optimum(tmp_path):
    if not demo.COMMAND.is_file():
        pytest.skip("seqjax is not installed in this environment")
    command = [sys.executable, "-m", "tools.demo", "--project", str(tmp_path / "demo")]
    result = subprocess.run(command, cwd=demo.ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    model, *_, best = demo.read_scores(tmp_path / "demo", demo_data.make_process())
    assert model.total / best.total < 1.02
    assert "your own csv" in result.stdout
    for name in ("sequifier-demo-best-12.onnx", "sequifier-demo-best-12-predictions.csv"):
        assert str(tmp_path / "demo") in result.stdout
        assert name in result.stdout
