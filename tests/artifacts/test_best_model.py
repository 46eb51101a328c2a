"""`best` is the model of the lowest validation loss that can be compared, and the log says why."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import onnx
import pytest

from seqjax.artifacts.card import CARD_KEY, describe_run
from seqjax.artifacts.model_files import resolve_model_path
from seqjax.errors import ArtifactError
from seqjax.interop.onnx_session import stored_metadata
from seqjax.interop.torch_files import write_torch_file
from tests.artifacts.test_model_files import METADATA, SCHEMA, config


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def exported(
    folder: Path, name: str, loss: float | None, *, age: int, suffix: str = ".onnx", **changes: Any
) -> Path:
    """A model file that holds nothing but a card, so many seconds old."""
    values = config().model_dump(mode="json")
    values["training_spec"] |= changes.pop("training_spec", {})
    trained = config(**{**values, "model_name": name, **changes})
    text = describe_run(trained, SCHEMA, METADATA, validation_loss=loss).to_json()
    path = folder / f"sequifier-{name}-best-2{suffix}"
    if suffix == ".pt":
        write_torch_file(path, {CARD_KEY: text})
    else:
        graph = onnx.helper.make_graph([], "empty", [], [])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
        model.metadata_props.add(key="other", value="x" * 300)
        model.metadata_props.add(key=CARD_KEY, value=text)
        onnx.save(model, path)
    os.utime(path, (10_000 - age, 10_000 - age))
    return path


def best(models: Path, **options: Any) -> str:
    """The run whose model is the best."""
    name = resolve_model_path(models.parent, "best", **options).name
    return name.removeprefix("sequifier-").partition("-best-")[0]


def summary(models: Path, name: str, *runs: str, age: int = 0) -> None:
    """What a search wrote, the best run first."""
    folder = models.parent / "outputs" / "hyperparameter_search"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"rank": rank, "run": run} for rank, run in enumerate(runs, 1)]
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"runs": [*rows, {"rank": None, "run": "failed"}]}))
    os.utime(path, (10_000 - age, 10_000 - age))


def test_the_lowest_loss_is_best_whatever_is_newest(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    for age, (name, loss) in enumerate({"c": 0.5, "b": 0.25, "a": 0.75}.items()):
        exported(models, name, loss, age=age)
    with caplog.at_level(logging.INFO):
        assert best(models) == "b"
    assert "sequifier-b-best-2.onnx, of the lowest validation loss, 0.25, of 3 runs" in caplog.text
    assert "(next: c 0.5, a 0.75)" in caplog.text
    assert best(models, model_name="a") == "a"


def test_torch_files_say_their_loss_too(models: Path) -> None:
    exported(models, "a", 0.25, age=9, suffix=".pt")
    exported(models, "b", 0.5, age=0)
    assert best(models) == "a"


@pytest.mark.parametrize("winner_loss", [0.5, 0.9])
def test_a_search_is_represented_by_its_winner(
    models: Path, winner_loss: float, caplog: pytest.LogCaptureFixture
) -> None:
    """Its runs were compared by a score; the lowest loss may be of something else."""
    exported(models, "s-run-0", 0.05, age=1)
    exported(models, "s-run-1", winner_loss, age=2)
    exported(models, "solo", 0.7, age=0)
    summary(models, "s", "s-run-1", "s-run-0")
    with caplog.at_level(logging.INFO):
        assert best(models) == ("s-run-1" if winner_loss < 0.7 else "solo")
    assert ("which won the search s" in caplog.text) == (winner_loss < 0.7) or "next: s-run-1" in caplog.text


def test_a_winner_comes_first_where_losses_cannot_be_compared(
    models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exported(models, "s-run-1", 0.5, age=2)
    weights = {"loss_weights": {"price": 0.1, "item": 0.1}}
    exported(models, "solo", 0.05, age=0, training_spec=weights)
    summary(models, "s", "s-run-1")
    with caplog.at_level(logging.INFO):
        assert best(models) == "s-run-1"
    assert "not compared: solo (other loss_weights)" in caplog.text


def test_without_a_search_the_newest_run_says_what_is_compared(models: Path) -> None:
    weights = {"loss_weights": {"price": 0.1, "item": 0.1}}
    exported(models, "old", 0.05, age=5, training_spec=weights)
    exported(models, "a", 0.5, age=3)
    exported(models, "b", 0.6, age=2)
    assert best(models) == "a"
    exported(models, "newest", 0.06, age=0, training_spec=weights)
    assert best(models) == "old"


def test_the_newest_search_counts_where_there_are_several(models: Path) -> None:
    exported(models, "one-run-0", 0.5, age=3, seq_length=4)
    weights = {"loss_weights": {"price": 0.1, "item": 0.1}}
    exported(models, "two-run-0", 0.9, age=2, training_spec=weights)
    summary(models, "one", "one-run-0", age=8)
    summary(models, "two", "two-run-0", age=4)
    assert best(models) == "two-run-0"
    summary(models, "one", "one-run-0", age=1)
    assert best(models) == "one-run-0"


def test_runs_on_other_data_are_passed_over(models: Path) -> None:
    exported(models, "a", 0.25, age=1, metadata_config_path="configs/metadata_configs/y.json")
    exported(models, "b", 0.5, age=2)
    assert best(models, metadata="configs/metadata_configs/x.json") == "b"
    assert best(models, metadata="./configs/metadata_configs/y.json") == "a"
    assert best(models, metadata="configs/metadata_configs/moved.json") == "a"


def test_of_a_run_its_newest_file_counts(models: Path) -> None:
    exported(models, "a", 0.1, age=9).rename(models / "sequifier-a-best-9.onnx")
    exported(models, "a", 0.75, age=1)
    exported(models, "b", 0.5, age=5)
    assert best(models) == "b"


def test_files_that_say_no_loss_are_passed_over(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    exported(models, "a", 0.5, age=3)
    (models / "sequifier-foreign-best-1.onnx").write_bytes(b"\x80" * 40)
    (models / "sequifier-empty-best-1.pt").touch()
    exported(models, "silent", None, age=0)
    with caplog.at_level(logging.INFO):
        assert best(models) == "a"
    assert "silent (no loss in its file)" in caplog.text


@pytest.mark.parametrize("content", [b"", b"\xff" * 9, b"\x72\x05\x0a"])
def test_a_file_that_ends_early_has_no_metadata(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    assert CARD_KEY not in stored_metadata(path)


@pytest.mark.parametrize("content", [b"no model", b"\x72\xff\xff\xff\xff\x7f"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"x\.onnx: it is not an ONNX model"):
        stored_metadata(path)
