"""Arrow shards: nothing is lost, rows stay where they are, and damage is noticed."""

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from seqjax.config.schema import ColumnKind
from seqjax.data import shards
from seqjax.data.splits import sequences
from seqjax.errors import DataError
from seqjax.windows.spliced import parts_of
from seqjax.windows.windows import Windows, cut, joined

KINDS: dict[str, ColumnKind] = {"price": "real", "item": "categorical"}


@pytest.fixture
def windows() -> Windows:
    lengths = [7, 1, 30, 4, 12]
    n = sum(lengths)
    columns = {"item": (np.arange(n) % 9).astype(np.int8), "price": np.linspace(-1, 1, n, dtype=np.float32)}
    ids = np.repeat([-4, 2, 3, 9, 2**60], lengths)
    return cut(sequences(ids), columns, _positions(), seq_length=4, stride=3)


def _positions() -> np.ndarray:
    """Those of the third sequence are not consecutive."""
    return np.where((np.arange(54) >= 8) & (np.arange(54) < 38), np.arange(54) ** 2, np.arange(54) + 5)


def _assert_same(found: Windows, expected: Windows) -> None:
    for name in ("start", "length", "sequence_id", "subsequence_id", "start_item_position"):
        np.testing.assert_array_equal(getattr(found, name)(), getattr(expected, name)(), err_msg=name)
    numbers, slots = np.arange(len(expected)), np.arange(expected.seq_length + 1)
    np.testing.assert_array_equal(found.positions(numbers, slots), expected.positions(numbers, slots))
    for name, column in found.columns.items():
        np.testing.assert_array_equal(column, expected.columns[name])
        assert column.dtype == expected.columns[name].dtype


def _chunk(windows: Windows, sequences_of: range) -> Windows:
    """Some of the sequences alone."""
    ends = [*windows.runs.first_row, len(windows.columns["item"])]
    rows = slice(ends[sequences_of.start], ends[sequences_of.stop])
    columns = {name: np.asarray(column)[rows] for name, column in windows.columns.items()}
    ids = np.repeat(windows.runs.sequence_id, windows.runs.rows)[rows]
    return cut(sequences(ids), columns, _positions()[rows], seq_length=4, stride=3)


def _size(windows: Windows) -> shards.DataSize:
    types = {"item": "int8", "price": "float32"}
    return shards.DataSize(4, 3, types, rows=54, runs=len(windows.runs), positions=len(windows.item_position))


def test_round_trip(tmp_path: Path, windows: Windows) -> None:
    shards.write(tmp_path / "x", windows)
    found = shards.read(tmp_path / "x", KINDS)
    assert list(found.columns) == ["price", "item"]
    _assert_same(found, windows)


@pytest.mark.parametrize("cuts", [[0, 5], [0, 1, 5], [0, 1, 2, 3, 4, 5]])
def test_the_bytes_do_not_depend_on_how_they_came(tmp_path: Path, windows: Windows, cuts: list[int]) -> None:
    shards.write(tmp_path / "whole", windows)
    writer = shards.ShardWriter(tmp_path / "x", _size(windows))
    for begin, end in itertools.pairwise(cuts):
        writer.append(_chunk(windows, range(begin, end)))
    writer.finish()
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "x" / file.name).read_bytes() == file.read_bytes()


def test_a_writer_goes_on_where_another_stopped(tmp_path: Path, windows: Windows) -> None:
    shards.write(tmp_path / "whole", windows)
    writer = shards.ShardWriter(tmp_path / "x", _size(windows))
    writer.append(_chunk(windows, range(2)))
    done = writer.done
    writer.append(_chunk(windows, range(2, 4)))
    writer.close()
    writer = shards.ShardWriter(tmp_path / "x", _size(windows), done=done)
    writer.append(_chunk(windows, range(2, 5)))
    writer.finish()
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "x" / file.name).read_bytes() == file.read_bytes()


def _write_several(folder: Path, windows: Windows, parts: list[range]) -> None:
    """A shard for each part, as another program might write them."""
    manifest: dict = {}
    for number, part in enumerate(parts):
        shards.write(folder / "part", _chunk(windows, part))
        manifest = manifest or {**json.loads((folder / "part" / "manifest.json").read_text()), "shards": []}
        shard = json.loads((folder / "part" / "manifest.json").read_text())["shards"][0]
        for file in filter(None, shard.values()):
            name = file["path"].replace("00000", f"{number:05d}")
            (folder / "part" / file["path"]).rename(folder / name)
            file["path"] = name
        manifest["shards"].append(shard)
        shutil.rmtree(folder / "part")
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("cuts", [[0, 2, 3, 5], [0, 1, 2, 3, 4, 5], [0, 4, 5]])
def test_several_shards_are_read_as_one(tmp_path: Path, windows: Windows, cuts: list[int]) -> None:
    _write_several(tmp_path, windows, [range(begin, end) for begin, end in itertools.pairwise(cuts)])
    allocated = pa.total_allocated_bytes()
    found = shards.read(tmp_path, KINDS)
    assert pa.total_allocated_bytes() - allocated < 1024
    for name, column in found.columns.items():
        parts = parts_of(column)
        assert len(parts) == len(cuts) - 1
        assert not any(part.flags.owndata or part.flags.writeable for part in parts), name
    _assert_same(found, windows)
    rng = np.random.default_rng(0)
    for one, other in [(found, windows), (found.crop(2), windows.crop(2)), (found.in_ram(), windows)]:
        indices = rng.integers(-1, len(windows), 200)
        batch, expected = one.gather(indices), other.gather(indices)
        assert batch.padding.tolist() == expected.padding.tolist()
        for name in KINDS:
            np.testing.assert_array_equal(batch.columns[name], expected.columns[name])
        real = indices[indices >= 0]
        slots = np.arange(one.seq_length + 1)
        np.testing.assert_array_equal(one.positions(real, slots), other.positions(real, slots))


def test_numbers_of_many_shards_may_be_larger_than_those_of_each(tmp_path: Path) -> None:
    item = np.arange(500, dtype=np.int16)
    whole = cut(sequences(np.arange(500) // 100), {"item": item}, np.arange(500) * 2, seq_length=4, stride=1)
    for number in range(5):
        rows, ids = item[number * 100 :][:100], np.full(100, number)
        some = cut(sequences(ids), {"item": rows}, rows.astype(np.int64) * 2, seq_length=4, stride=1)
        shards.write(tmp_path / str(number), some)
    found = joined([shards.read(tmp_path / str(number), {"item": "categorical"}) for number in range(5)])
    assert (found.start() == whole.start()).all()
    assert (found.subsequence_id() == whole.subsequence_id()).all()
    numbers, slots = np.arange(len(whole)), np.arange(5)
    assert (found.positions(numbers, slots) == whole.positions(numbers, slots)).all()
    assert (found.gather(numbers).columns["item"] == whole.gather(numbers).columns["item"]).all()


def test_a_shard_holds_each_row_once_and_says_what_it_is(tmp_path: Path, windows: Windows) -> None:
    shards.write(tmp_path / "x", windows)
    with pa.ipc.open_file(tmp_path / "x" / "rows-00000.arrow") as reader:
        table = reader.read_all()
    assert table.schema.names == ["item", "price"]
    assert [str(kind) for kind in table.schema.types] == ["int8", "float"]
    with pa.ipc.open_file(tmp_path / "x" / "runs-00000.arrow") as reader:
        runs = reader.read_all().to_pydict()
    assert runs == {
        "sequenceId": [-4, 2, 3, 9, 2**60],
        "firstSubsequence": [0] * 5,
        "firstRow": [0, 7, 8, 38, 42],
        "rows": [7, 1, 30, 4, 12],
        "firstPosition": [5, 12, 64, 43, 47],
        "positionsAt": [-1, -1, 0, -1, -1],
        "firstTarget": [0] * 5,
        "firstWindow": [0, 2, 3, 13, 14],
    }
    with pa.ipc.open_file(tmp_path / "x" / "positions-00000.arrow") as reader:
        positions = reader.read_all().to_pydict()
    assert positions == {"itemPosition": [place**2 for place in range(8, 38)]}


def test_data_stays_on_disk(tmp_path: Path, windows: Windows) -> None:
    shards.write(tmp_path / "x", windows)
    allocated = pa.total_allocated_bytes()
    found = shards.read(tmp_path / "x", KINDS)
    assert pa.total_allocated_bytes() - allocated < 1024
    (only,) = {len(parts_of(column)) for column in found.columns.values()}
    assert only == 1
    assert not any(
        part.flags.owndata or part.flags.writeable for part in map(np.asarray, found.columns.values())
    )


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux tells what is mapped")
def test_memory_of_mapped_files_is_given_back(tmp_path: Path, windows: Windows) -> None:
    shards.write(tmp_path / "x", windows)
    found = shards.read(tmp_path / "x", KINDS)

    def resident() -> int:
        maps = Path("/proc/self/smaps").read_text(encoding="utf-8").split(str(tmp_path))[1:]
        return sum(int(text.split("Rss:")[1].split()[0]) for text in maps if "rows-" in text.split("\n")[0])

    rows = np.asarray(found.columns["item"]).tolist()
    assert resident() > 0
    found.release()
    assert resident() == 0
    assert np.asarray(found.columns["item"]).tolist() == rows


def _edit_manifest(folder: Path, change: Callable[[dict], None]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _flip_a_byte(folder: Path) -> None:
    path = folder / "rows-00000.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "has no manifest.json"),
    "broken manifest": (
        lambda folder: (folder / "manifest.json").write_text("{"),
        "manifest.json is no manifest",
    ),
    "list": (
        lambda folder: (folder / "manifest.json").write_text("[]"),
        "must be a section of keys and values",
    ),
    "earlier version": (
        lambda folder: _edit_manifest(folder, lambda manifest: manifest.update(version=1)),
        "is of version 1 of the format, and this is 2. Run preprocess again",
    ),
    "later version": (
        lambda folder: _edit_manifest(folder, lambda manifest: manifest.update(version=3)),
        "version: must be 2",
    ),
    "path elsewhere": (
        lambda folder: _edit_manifest(
            folder, lambda manifest: manifest["shards"][0]["rows"].update(path="../x/y")
        ),
        "shards.0.rows.path",
    ),
    "missing": (lambda folder: (folder / "rows-00000.arrow").unlink(), "rows-00000.arrow is missing"),
    "truncated": (
        lambda folder: (folder / "runs-00000.arrow").write_bytes(b"ARROW1"),
        "has 6 bytes, but was",
    ),
    "changed": (_flip_a_byte, "rows-00000.arrow is not what was written"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_noticed(tmp_path: Path, windows: Windows, case: str) -> None:
    damage, message = DAMAGE[case]
    shards.write(tmp_path / "x", windows)
    damage(tmp_path / "x")
    with pytest.raises(DataError, match=message):
        shards.read(tmp_path / "x", KINDS)


def _rewrite(folder: Path, name: str, arrays: dict[str, np.ndarray]) -> None:
    """Another program's file: everything in the manifest fits it."""
    part = name.split("-")[0]
    batch = pa.record_batch([pa.array(array) for array in arrays.values()], names=list(arrays))
    with pa.ipc.new_file(folder / name, batch.schema) as writer:
        writer.write_batch(batch)
    content = (folder / name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    written = {"path": name, "records": len(batch), "bytes": len(content), "sha256": digest}
    _edit_manifest(folder, lambda manifest: manifest["shards"][0].update({part: written}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"firstRow": [0, 40]}, r"run 1 \(firstRow 40, rows 15, .* is not within 54 rows"),
        ({"firstRow": [-1, 39]}, r"firstRow -1.* is not within 54 rows"),
        ({"rows": [39, 0]}, "rows 0.* is not within 54 rows"),
        ({"positionsAt": [0, -1]}, "positionsAt 0.* is not within 30 positions"),
        ({"positionsAt": [-2, -1]}, "positionsAt -2.* is not within 30 positions"),
        ({"firstTarget": [0, 15]}, "firstTarget 15.* has no target"),
        ({"firstWindow": [0, 12]}, "firstWindow 12.* does not begin with the window that follows"),
        ({"firstWindow": [1, 14]}, "firstWindow 1.* does not begin with the window that follows"),
        ({"firstRow": [0.0, 39.0]}, "'firstRow' must be a signed integer type without nulls .found double"),
        ({"sequenceId": None}, "no column 'sequenceId'"),
    ],
)
def test_runs_that_cannot_be_are_refused(
    tmp_path: Path, windows: Windows, change: dict[str, list | None], message: str
) -> None:
    shards.write(tmp_path / "x", windows)
    runs = {
        "sequenceId": [1, 2],
        "firstSubsequence": [0, 0],
        "firstRow": [0, 39],
        "rows": [39, 15],
        "firstPosition": [0, 0],
        "positionsAt": [-1, -1],
        "firstTarget": [0, 0],
        "firstWindow": [0, 13],
    }
    arrays = {name: np.array(values) for name, values in (runs | change).items() if values is not None}
    _rewrite(tmp_path / "x", "runs-00000.arrow", arrays)
    with pytest.raises(DataError, match=message):
        shards.read(tmp_path / "x", KINDS)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({"other": "real"}, r"no column 'other' \(columns: item, price\)"),
        ({"price": "categorical"}, "'price' is of type float32, but expected to be categorical"),
        ({"item": "real"}, "'item' is of type int8, but expected to be real"),
    ],
)
def test_columns_must_be_there_and_of_their_kind(
    tmp_path: Path, windows: Windows, kinds: dict[str, ColumnKind], message: str
) -> None:
    shards.write(tmp_path / "x", windows)
    with pytest.raises(DataError, match=message):
        shards.read(tmp_path / "x", kinds)


def test_the_documented_program_writes_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    programs = [block.split("```")[0] for block in text.split("```python\n")[1:]]
    (program,) = [program for program in programs if "mine-split0" in program]
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    windows = shards.read(tmp_path / "data" / "mine-split0", KINDS)
    assert windows.gather(np.arange(2)).columns["item"].tolist() == [[2, 3, 2, 4], [2, 4, 0, 2]]
