"""Inputs from public reports that once went wrong, with the right results; see ../shared/cases."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import seqjax
from seqjax.config.metadata import Metadata
from tests.conftest import SHARED


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the case that the test names."""
    source = SHARED / "cases" / request.param
    if not source.is_dir():
        pytest.skip("the cases are not part of this repository (no ../shared/cases)")
    project = tmp_path / "case"
    shutil.copytree(source, project, symlinks=True)
    monkeypatch.chdir(project)
    return project


def _case(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [name], indirect=True)


def _preprocess(**changes: Any) -> Metadata:
    return seqjax.preprocess("configs/preprocess.yaml", changes)


def _infer(**changes: Any) -> list[Path]:
    return seqjax.infer("configs/infer.yaml", changes)


@_case("03-types-guessed-anew")
@pytest.mark.parametrize("given", ["metadata", "id maps"])
def test_types_are_not_guessed_anew(case: Path, given: str) -> None:
    maps = _preprocess().id_maps
    if given == "metadata":
        metadata = seqjax.preprocess("configs/again.yaml")
    else:
        (case / "configs" / "id_maps").mkdir()
        for name, id_map in maps.items():
            (case / "configs" / "id_maps" / f"{name}.json").write_text(json.dumps(id_map))
        metadata = seqjax.preprocess("configs/again.yaml", {"metadata_config_path": None})
    assert metadata.id_maps == maps
    table = pl.read_csv("data/new-split0.csv")
    rows = {name: table.filter(inputCol=name).select("3", "2", "1", "0").row(-1) for name in maps}
    assert rows == {"code": (2, 4, 3, 2), "flag": (3, 2, 3, 2), "qty": (2, 3, 0, 4)}


@_case("04-one-unseen-label")
def test_one_unseen_label_changes_no_other_row(case: Path, caplog: pytest.LogCaptureFixture) -> None:
    _preprocess()
    seqjax.train("configs/train.yaml")
    probabilities = {}
    for name in ("clean", "one_new", "one_new_qty", "na"):
        caplog.clear()
        caplog.set_level(logging.INFO, "seqjax")
        files = _infer(data_path=f"data/{name}.csv")
        probabilities[name] = [pl.read_csv(file).row(0) for file in sorted(files) if "probab" in str(file)]
        unknown = [line for line in caplog.messages if "does not know" in line]
        assert [line[-2:] for line in unknown] == (["1."] if name.startswith("one") else [])
    assert all(rows == probabilities["clean"] for rows in probabilities.values())
    frame = pl.read_csv("data/clean.csv", schema_overrides={"flag": pl.String, "qty": pl.String})
    model = seqjax.load_model("last")
    for flags in (pl.col("flag"), pl.col("flag").str.to_titlecase(), pl.col("flag") == "true"):
        tables = model.probabilities(frame.with_columns(flags), forecast_from="latest")
        for name, expected in zip(("flag", "qty"), probabilities["clean"], strict=True):
            # Ids and times may come before the classes.
            assert tables[name].row(0)[-len(expected) :] == pytest.approx(expected, abs=1e-6)


@_case("05-leading-zeros")
def test_leading_zeros_are_text(case: Path) -> None:
    assert _preprocess().id_maps == {"item": {"007": 2, "0123": 3, "123": 4, "7": 5}}


@_case("06-spellings-of-missing")
@pytest.mark.parametrize("spelling", ["nan", "NaN", "NA", "N/A", "null", "None", "#N/A", "", '""'])
def test_any_usual_spelling_is_a_missing_value(case: Path, spelling: str) -> None:
    table = case / "data" / "t.csv"
    table.write_text(table.read_text().replace("nan", spelling))
    metadata = _preprocess()
    assert metadata.column_types == {"temp": "Float64"}
    values = pl.read_csv("data/t.csv", null_values=[spelling.strip('"')])["temp"]
    assert values.null_count() == metadata.missing["temp"] > 0


@_case("07-pandas-index")
@pytest.mark.parametrize("described", [True, False])
def test_the_index_of_pandas_is_passed_over(case: Path, described: bool) -> None:
    n = 48
    table = pa.table(
        {
            "sequenceId": [row // 12 for row in range(n)],
            "itemPosition": [row % 12 for row in range(n)],
            "item": ["abc"[row % 3] for row in range(n)],
            "__index_level_0__": [3 * row for row in range(n)],
        }
    )
    if described:
        pandas = {"index_columns": ["__index_level_0__"], "column_indexes": [], "columns": []}
        table = table.replace_schema_metadata({"pandas": json.dumps(pandas)})
    (case / "data").mkdir(exist_ok=True)
    pq.write_table(table, "data/t.parquet")
    assert _preprocess().column_types == {"item": "Int64"}


@_case("08-folder-members")
def test_a_folder_gives_all_of_its_files(case: Path, caplog: pytest.LogCaptureFixture) -> None:
    (case / "in" / "linked").symlink_to("../elsewhere")
    caplog.set_level(logging.INFO, "seqjax")
    _preprocess()
    assert any("30 rows of 5 sequences" in line for line in caplog.messages)


@_case("09-result-names-clash")
def test_columns_of_results_are_kept_apart(case: Path) -> None:
    _preprocess()
    seqjax.train("configs/train.yaml")
    (file,) = _infer()
    expected = ["price", "price_mean_", "price_std", "price_mean", "price_mean_mean", "price_mean_std"]
    assert pl.read_csv(file).columns == ["sequenceId", "itemPosition", *expected]


@_case("10-file-names-clash")
def test_files_of_results_are_kept_apart(case: Path) -> None:
    _preprocess()
    seqjax.train("configs/train.yaml")
    start, end = "sequifier-m-last-1-", "-probabilities.csv"
    classes = {
        file.name.removeprefix(start).removesuffix(end): pl.read_csv(file).columns[2:]
        for file in _infer()
        if file.name.endswith(end)
    }
    assert classes == {"a_b_": ["left", "right"], "a_b": ["p", "q", "r"], "sample": ["s1", "s2"]}
    samples = {
        "autoregression": True,
        "autoregression_extra_steps": 2,
        "autoregression_samples": 3,
        "sample_from_distribution_columns": ["a_b"],
        "output_probabilities": False,
    }
    predictions = next(file for file in _infer(**samples) if "predictions" in file.name)
    assert pl.read_csv(predictions).columns == [
        "sequenceId",
        "itemPosition",
        "sample_",
        "a/b",
        "a_b",
        "sample",
    ]
