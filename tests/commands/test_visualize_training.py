import json
import logging

import pytest

import seqjax
from seqjax.commands.visualize_training import visualize_training
from seqjax.config.visualize_training import VisualizeTrainingConfig
from seqjax.errors import ArtifactError, ConfigError
from tests.pages import figures, names, text_of

LOSSES = {"losses": {"a": {"loss": 2.0, "weighted": 2.0}}, "loss": 2.0}
VALIDATION = {"event": "validation", "epoch": 0, "learning_rate": 0.1, "seconds": 1.0, **LOSSES}
TEXT = (
    "2025-11-21 05:00:00 | INFO | [INFO] Validation | Epoch:   0 | Loss:  4.60e0 | Baseline Loss:  4.11e0 "
    "| Time:  0.00s | LR  3.00e-3\n"
)


@pytest.fixture
def root(tmp_path):
    """A project with runs, a search of three of them, and a run whose log is from sequifier."""
    (tmp_path / "logs").mkdir()
    for name in ("shop", "other", "try-run-0", "try-run-2", "try-run-10"):
        (tmp_path / f"logs/sequifier-{name}-rank0.jsonl").write_text(json.dumps(VALIDATION) + "\n")
        (tmp_path / f"logs/sequifier-{name}-rank0-3.txt").write_text("")
    for name in ("try", "text"):
        (tmp_path / f"logs/sequifier-{name}-rank0-3.txt").write_text(TEXT)
    (tmp_path / "logs/sequifier-shop-rank1-3.txt").write_text("")
    (tmp_path / "logs/sequifier-old-rank0-2.txt").write_text(TEXT)
    (tmp_path / "logs/sequifier-empty-rank0-3.txt").write_text("")
    return tmp_path


def page(root, *models, **options):
    path = visualize_training(VisualizeTrainingConfig(models=list(models), project_root=str(root), **options))
    return path.relative_to(root).as_posix(), path.read_text()


def test_one_run(root):
    path, text = page(root, "shop")
    assert path == "outputs/visualization/shop-training-visualization.html"
    assert "Training of shop" in text_of(text)
    assert names(figures(text, "Loss")[0]) == ["validation"]


@pytest.mark.parametrize(
    "models", [["shop,other"], ["shop", "other"], ["names.txt"], ["shop", "names.txt", "shop"]]
)
def test_several_runs(root, models, monkeypatch):
    (root / "names.txt").write_text("shop\n other ,\n\n")
    path, text = page(root, *models)
    assert path == "outputs/visualization/multi-model-training-visualization.html"
    assert sorted(names(figures(text, "Validation and training loss")[0])) == ["other", "shop"]


def test_a_search_is_all_of_its_runs(root):
    path, text = page(root, "try")
    assert path == "outputs/visualization/try-training-visualization.html"
    assert "Training of try: 3 runs" in text_of(text)
    shown = figures(text, "Validation and training loss")[0]
    assert names(shown) == ["try-run-10", "try-run-2", "try-run-0"]
    assert "Training of 4 runs" in text_of(page(root, "try", "shop", "try-run-2")[1])


@pytest.mark.parametrize("name", ["text", "old"])
def test_text_logs_are_read_where_there_is_no_json(root, name):
    shown = figures(page(root, name)[1], "Loss")[0]
    assert names(shown) == ["last value", "validation"]
    assert shown["data"][1]["y"] == [4.6]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("shpo", "Did you mean 'shop'?"),
        ("try-rnu-2", "'try-run-2'"),
        ("tyr", "'try'"),
        ("zzz", "Known: empty, old, "),
    ],
)
def test_no_such_run(root, name, said):
    with pytest.raises(ConfigError) as error:
        page(root, name)
    assert f"no run and no search called '{name}' has a log in {root / 'logs'}" in str(error.value)
    assert said in str(error.value)
    assert not (root / "outputs").exists()


def test_without_any_log_that_is_said(tmp_path):
    with pytest.raises(ConfigError, match="There are no logs at all"):
        page(tmp_path, "shop")


@pytest.mark.parametrize("models", [[], ["names.txt"], [","]])
def test_without_names_those_that_there_are_are_listed(root, models):
    (root / "names.txt").write_text(" \n")
    with pytest.raises(
        ConfigError, match=r"name at least one run or search\. Known: empty, old, other, shop, "
    ):
        page(root, *models)


def test_an_empty_log_is_named(root):
    with pytest.raises(ArtifactError, match=r"sequifier-empty-rank0-3\.txt is empty"):
        page(root, "empty")


def test_a_damaged_last_line_is_logged_and_on_the_page(root, caplog):
    path = root / "logs/sequifier-shop-rank0.jsonl"
    path.write_text(path.read_text() + '{"event": "val')
    with caplog.at_level(logging.WARNING, "seqjax"):
        text = page(root, "shop")[1]
    assert "line 2 could not be read" in caplog.text
    assert "line 2 could not be read" in text_of(text)


def test_options_reach_the_page(root):
    path = root / "logs/sequifier-shop-rank0.jsonl"
    batch = {
        "event": "batch",
        "epoch": 1,
        "batches": 8,
        "count": 1,
        "learning_rate": 0.1,
        "samples_per_second": 5,
    }
    lines = [json.dumps({**batch, **LOSSES, "batch": number}) for number in range(1, 9)]
    path.write_text("\n".join([json.dumps(VALIDATION), *lines]) + "\n")
    text = page(root, "shop", log_scale=True, bucket_training_batches=4)[1]
    assert figures(text, "Loss")[0]["data"][0]["x"] == [0.5, 1]
    assert " checked>log scale" in text


def test_from_python(root):
    path = seqjax.visualize_training("shop", project_root=root, log_scale=True)
    assert path.name == "shop-training-visualization.html"
    assert seqjax.visualize_training(["shop", "other"], project_root=root).exists()
    with pytest.raises(ConfigError, match="models"):
        seqjax.visualize_training([], project_root=root)
