"""The whole step: against the reference outputs, and what a user meets when something is wrong."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from seqjax.commands.preprocess import preprocess
from seqjax.config.base import validate
from seqjax.config.metadata import Metadata
from seqjax.config.preprocess import PreprocessConfig
from seqjax.config.resolve import load_metadata
from seqjax.config.schema import ColumnKind
from seqjax.data import shards
from seqjax.data.formats import FORMATS, load_windows
from seqjax.errors import ConfigError, DataError
from seqjax.interop.torch_files import read_torch_file
from seqjax.windows.windows import Windows

DOCUMENTED = ["n_classes", "id_maps", "split_paths", "column_types", "selected_columns_statistics"]
GOLDEN = [f"{name}{suffix}" for name in ("shop", "clicks", "sensors") for suffix in ("", "_csv", "_pt")]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _table(path: str = "data/t.csv", n: int = 20) -> str:
    rows = n * 3
    frame = pl.DataFrame(
        {
            "sequenceId": np.repeat([1, 2, 3], n),
            "itemPosition": np.tile(np.arange(n), 3),
            "item": [f"i{row * row % 7}" for row in range(rows)],
            "price": np.sin(np.arange(rows)),
        }
    )
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    frame.write_csv(path)
    return path


def _run(**changes: Any) -> Metadata:
    values = {
        "project_root": ".",
        "data_path": "data/t.csv",
        "seq_length": 4,
        "split_ratios": [0.6, 0.2, 0.2],
        "stride_by_split": [2, 1, 1],
        "history": False,
    }
    return preprocess(validate(PreprocessConfig, {**values, **changes}, "test"))


def _load(metadata: Metadata, split: int, root: Path = Path()) -> Windows:
    assert metadata.write_format is not None
    kinds: dict[str, ColumnKind] = {name: metadata.kind(name) for name in metadata.column_types}
    return load_windows(
        root / metadata.split_paths[split],
        metadata.write_format,
        column_kinds=kinds,
        padding=metadata.padding,
        n_classes=metadata.n_classes,
    )


def _assert_same(found: Windows, expected: Windows, tolerance: float = 0.0) -> None:
    assert found.seq_length == expected.seq_length
    assert found.sequence_id().tolist() == expected.sequence_id().tolist()
    assert found.subsequence_id().tolist() == expected.subsequence_id().tolist()
    one, other = found.gather(np.arange(len(found))), expected.gather(np.arange(len(expected)))
    assert one.padding.tolist() == other.padding.tolist()
    assert list(one.columns) == list(other.columns)
    for name, values in one.columns.items():
        np.testing.assert_allclose(values, other.columns[name], rtol=0, atol=tolerance, err_msg=name)


@pytest.fixture(params=GOLDEN)
def golden(request: pytest.FixtureRequest, shared: Path, project: Path) -> tuple[str, Path, dict[str, Any]]:
    """A dataset that sequifier 1.1 preprocessed: its name, its project, and the config."""
    name, source = request.param, shared / "golden" / "project"
    shutil.copy(source / "data" / f"{name}.csv", project / "data")
    config = yaml.safe_load((source / "configs" / f"preprocess_{name}.yaml").read_text())
    return name, source, {**config, "fit_on": "all", "history": False}


def test_reference_outputs_are_reproduced(golden: tuple[str, Path, dict[str, Any]]) -> None:
    name, source, config = golden
    metadata = _run(**config)
    text = Path(f"configs/metadata_configs/{name}.json").read_text()
    found = json.loads(text)
    expected = json.loads((source / f"configs/metadata_configs/{name}.json").read_text())
    assert "\n" not in text
    assert list(found)[:5] == list(expected) == DOCUMENTED
    statistics = expected.pop("selected_columns_statistics")
    assert {key: found[key] for key in expected} == expected
    assert list(found["selected_columns_statistics"]) == list(statistics)
    for column, numbers in statistics.items():
        # Their standard deviation differs in the last bits between versions of polars.
        assert found["selected_columns_statistics"][column] == pytest.approx(numbers, rel=1e-15)
        assert list(found["selected_columns_statistics"][column]) == ["std", "mean"]
    reference = metadata.model_copy(update={"padding": "zero"})
    for split in range(len(metadata.split_paths)):
        _assert_same(_load(metadata, split), _load(reference, split, source), tolerance=1e-6)


def test_reference_files_are_reproduced_cell_by_cell(golden: tuple[str, Path, dict[str, Any]]) -> None:
    _, source, config = golden
    metadata = _run(**config)
    if metadata.write_format == "pt":
        for folder in metadata.split_paths:
            _assert_same_shards(Path(folder), source / folder)
        return
    read = pl.read_csv if metadata.write_format == "csv" else pl.read_parquet
    for path in metadata.split_paths:
        found, expected = read(path), read(source / path)
        assert found.schema == expected.schema
        keys = ["sequenceId", "subsequenceId", "inputCol"]
        assert found.select(keys).equals(expected.select(keys))
        slots = expected.columns[4:]
        ours, theirs = found.select(slots).to_numpy().astype(float), expected.select(slots).to_numpy()
        assert (theirs[np.isnan(ours)] == 0).all()
        np.testing.assert_allclose(np.nan_to_num(ours), theirs, rtol=0, atol=1e-6)


def _assert_same_shards(found: Path, expected: Path) -> None:
    """The files have the same names, and hold the same but for positions, which are true ones here."""
    assert sorted(path.name for path in found.iterdir()) == sorted(path.name for path in expected.iterdir())
    index = json.loads((found / "metadata.json").read_text())
    index.pop("padding")
    assert index == json.loads((expected / "metadata.json").read_text())
    for path in expected.glob("*.pt"):
        ours, theirs = read_torch_file(found / path.name), read_torch_file(path)
        for part in range(2):
            assert ours[part].keys() == theirs[part].keys()
            for name, values in theirs[part].items():
                assert ours[part][name].dtype == values.dtype
                np.testing.assert_allclose(ours[part][name], values, rtol=0, atol=1e-6)
        for key in (2, 3):
            np.testing.assert_array_equal(ours[key], theirs[key], strict=True)
        assert ours[4].dtype == theirs[4].dtype


def test_sequifiers_shards_hold_the_windows_of_its_files(shared: Path) -> None:
    source = shared / "golden" / "project"
    for name in ("shop", "clicks", "sensors"):
        files = load_metadata(source / f"configs/metadata_configs/{name}.json")
        folders = load_metadata(source / f"configs/metadata_configs/{name}_pt.json")
        for split in range(len(files.split_paths)):
            parquet = _load(files.model_copy(update={"write_format": "parquet"}), split, source)
            shards = _load(folders.model_copy(update={"write_format": "pt"}), split, source)
            _assert_same(shards, parquet)
            assert shards.start_item_position().tolist() == parquet.start_item_position().tolist()


@pytest.mark.parametrize("write_format", FORMATS)
def test_every_format_holds_the_reference_windows(
    golden: tuple[str, Path, dict[str, Any]], write_format: str
) -> None:
    name, source, config = golden
    reference = load_metadata(source / f"configs/metadata_configs/{name}.json")
    reference = reference.model_copy(update={"write_format": config["write_format"]})
    metadata = _run(**{**config, "write_format": write_format, "merge_output": None})
    for split in range(len(metadata.split_paths)):
        _assert_same(_load(metadata, split), _load(reference, split, source), tolerance=1e-6)


@pytest.mark.parametrize("write_format", FORMATS)
def test_what_is_written(project: Path, write_format: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    _table()
    metadata = _run(write_format=write_format)
    names = [f"t-split{split}{FORMATS[write_format].suffix}" for split in range(3)]
    assert metadata.split_paths == [f"./data/{name}" for name in names]
    assert sorted(path.name for path in (project / "data").iterdir()) == sorted([*names, "t.csv"])
    written = (project / "configs/metadata_configs/t.json").read_text()
    assert Metadata.model_validate_json(written) == metadata
    assert list(json.loads(written))[:5] == DOCUMENTED
    assert (metadata.seq_length, metadata.fit_on, metadata.padding) == (4, "train", "null")
    assert "60 rows of 3 sequences" in caplog.text
    assert "Split 0: 36 rows of 3 sequences, 15 windows" in caplog.text
    windows = _load(metadata, 1)
    assert windows.positions(np.arange(len(windows)), np.array([0, 4])).tolist() == [[11, 15]] * 3


def test_pt_files_hold_so_many_sequences(project: Path) -> None:
    _table()
    metadata = _run(write_format="pt", merge_output=False, batches_per_file=2)
    folder = Path(metadata.split_paths[0])
    assert sorted(path.name for path in folder.iterdir()) == [
        "metadata.json",
        "t-split0-0-0.pt",
        "t-split0-0-1.pt",
    ]
    assert json.loads((folder / "metadata.json").read_text()) == {
        "total_samples": 15,
        "batch_files": [
            {"path": "t-split0-0-0.pt", "samples": 10},
            {"path": "t-split0-0-1.pt", "samples": 5},
        ],
        "padding": {},
    }
    _run(write_format="pt")
    assert sorted(path.name for path in folder.iterdir()) == ["metadata.json", "t-split0-0-0.pt"]


def test_parquet_can_be_a_folder_of_files(project: Path) -> None:
    _table()
    whole = _run()
    metadata = _run(merge_output=False, batches_per_file=2)
    assert metadata.split_paths[0] == "./data/t-split0"
    folder = Path(metadata.split_paths[0])
    assert sorted(path.name for path in folder.iterdir()) == [
        "t-split0-00000.parquet",
        "t-split0-00001.parquet",
    ]
    together = pl.concat([pl.read_parquet(file) for file in sorted(folder.iterdir())])
    assert together.equals(pl.read_parquet(whole.split_paths[0]))
    for split in range(3):
        _assert_same(_load(metadata, split), _load(whole, split))
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"t-split0 holds no \.parquet file"):
        _load(metadata, 0)


def test_fit_on_train_sees_the_first_split_alone() -> None:
    frame = pl.DataFrame(
        {
            "sequenceId": [1] * 10,
            "itemPosition": range(10),
            "item": ["a", None, "b", "a", "b", "c", "a", "d", "a", "b"],
            "price": [1.0, 2.0, 3.0, 4.0, 5.0, 100.0, 100.0, 100.0, 100.0, 100.0],
        }
    )
    frame.write_csv("data/t.csv")
    changes = {"split_ratios": [0.5, 0.5], "stride_by_split": [1, 1]}
    metadata = _run(**changes)
    assert metadata.id_maps == {"item": {"a": 2, "b": 3}}
    assert metadata.selected_columns_statistics["price"].mean == 3.0
    assert _load(metadata, 0).gather(np.array([0])).columns["item"].tolist() == [[2, 0, 3, 2, 3]]
    assert _load(metadata, 1).gather(np.array([0])).columns["item"].tolist() == [[1, 2, 1, 2, 3]]
    assert _run(**changes, fit_on="all").id_maps == {"item": {"a": 2, "b": 3, "c": 4, "d": 5}}


def test_prepared_maps_are_used(project: Path) -> None:
    _table()
    (project / "configs" / "id_maps").mkdir(parents=True)
    (project / "configs" / "id_maps" / "item.json").write_text('{"i1": 2, "i4": 5}')
    metadata = _run(use_precomputed_maps=["item"])
    assert metadata.id_maps == {"item": {"i1": 2, "i4": 5}}
    assert metadata.n_classes == {"item": 6}


@pytest.mark.parametrize(
    ("root", "data_path", "name"),
    [
        (".", "data/my.data.csv", "my.data"),
        ("proj", "data/a.csv", "a"),
        ("proj/", "in here.csv", "in here"),
        (".", "raw/folder/", "folder"),
    ],
)
def test_names_and_places(root: str, data_path: str, name: str) -> None:
    _table(f"{data_path}part.csv" if data_path.endswith("/") else f"{root}/{data_path}")
    metadata = _run(project_root=root, data_path=data_path)
    assert metadata.split_paths[0] == f"{root.rstrip('/')}/data/{name}-split0.parquet"
    assert all(Path(path).is_file() for path in metadata.split_paths)
    assert (Path(root) / f"configs/metadata_configs/{name}.json").is_file()


def test_a_path_relative_to_the_working_directory_is_accepted() -> None:
    _table("elsewhere/t.csv")
    _run(project_root="proj", data_path="elsewhere/t.csv")
    assert Path("proj/data/t-split0.parquet").is_file()


@pytest.mark.parametrize("write_format", ["parquet", "arrow", "pt"])
def test_the_same_bytes_every_time(write_format: str) -> None:
    def content() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(Path("data").rglob("*")) if path.is_file()}

    _table()
    _run(write_format=write_format)
    first = content()
    _run(write_format=write_format)
    assert content() == first


@pytest.mark.parametrize("write_format", FORMATS)
@pytest.mark.parametrize("step", ["lay out", "fill", "render"])
def test_a_full_disk_leaves_the_earlier_result(
    monkeypatch: pytest.MonkeyPatch, step: str, write_format: str
) -> None:
    _table()
    _run(write_format=write_format)
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()}
    calls = iter(range(100))

    def disk_full(*_: object, **__: object) -> None:
        if next(calls) == {"lay out": 3, "fill": 5, "render": 1}[step]:
            raise OSError(28, "No space left on device", "somewhere")

    row = FORMATS[write_format]
    if step == "lay out":
        lay_out = shards._lay_out
        monkeypatch.setattr(shards, "_lay_out", lambda *args: disk_full() or lay_out(*args))
    elif step == "fill":
        monkeypatch.setattr("os.pwrite", lambda _, view, __: disk_full() or len(view))
    elif write_format == "arrow":
        digest = shards._digest
        monkeypatch.setattr(shards, "_digest", lambda path: disk_full() or digest(path))
    else:
        changed = dataclasses.replace(row, write=lambda *args: disk_full() or row.write(*args))
        monkeypatch.setitem(FORMATS, write_format, changed)
    with pytest.raises(DataError, match=r"cannot be written to somewhere: No space left on device"):
        _run(write_format=write_format, seq_length=3)
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split_ratios": [0.98, 0.01, 0.01]}, "Split 1 gets no rows: its share is 0.01"),
        (
            {"subsequence_start_mode": "exact"},
            r"stride, 2, in split 0; sequence 1 has 12 rows there, 1 too many",
        ),
        ({"data_path": "data/no.csv"}, "no.csv does not exist"),
        ({"selected_columns": ["itemm"]}, "no column 'itemm'"),
    ],
)
def test_errors_leave_nothing_behind(changes: dict[str, Any], message: str) -> None:
    _table()
    with pytest.raises(DataError, match=message):
        _run(**changes)
    assert [path.name for path in Path().rglob("*") if path.is_file()] == ["t.csv"]


@pytest.mark.parametrize(
    ("write_format", "merge", "message"),
    [
        ("pt", True, "must be false with write_format: pt"),
        ("csv", False, "must be true with write_format: csv"),
    ],
)
def test_formats_that_cannot_be_merged(write_format: str, merge: bool, message: str) -> None:
    with pytest.raises(ConfigError, match=f"merge_output: {message}"):
        _run(write_format=write_format, merge_output=merge)


def test_results_do_not_become_input() -> None:
    _table()
    for data_path in ("data", "./data/", "."):
        with pytest.raises(DataError, match=r"holds data, where results are written.* such as data/events"):
            _run(data_path=data_path)
    Path("data/tables").mkdir()
    Path("data/t.csv").rename("data/tables/t.csv")
    _run(data_path="data/tables")


@pytest.mark.parametrize("write_format", FORMATS)
def test_folders_of_the_user_are_not_replaced(write_format: str) -> None:
    _table()
    metadata = _run(write_format=write_format)
    _run(write_format=write_format)
    place = Path(metadata.split_paths[1])
    if place.is_file():
        place.unlink()
        place.mkdir()
    (place / "notes.txt").touch()
    with pytest.raises(DataError, match=r"split1.* would be replaced, but holds 'notes.txt'"):
        _run(write_format=write_format)
    assert (place / "notes.txt").exists()
