"""A slice of the fuzz run, and the files that once made a reader fail."""

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seqjax.config.resolve import load_metadata
from seqjax.data import table_files
from seqjax.data.fitting import read_id_map
from seqjax.data.formats import load_windows
from seqjax.errors import DataError, SeqjaxError
from tests.tables import read_table
from tools import fuzz_readers
from tools.fuzz_mutations import Nested, json_of, mutated_bytes, mutated_tree
from tools.fuzz_readers import FUZZERS, main, run_apart, run_case

CASES = 60


@pytest.mark.parametrize("reader", FUZZERS)
def test_a_reader_returns_or_refuses(tmp_path: Path, reader: str) -> None:
    ends = {number: run_case(reader, number, tmp_path) for number in range(CASES)}
    wrong = {number: end for number, end in ends.items() if end not in ("read", "refused")}
    assert not wrong, f"python -m tools.fuzz_readers --readers {reader} --first {min(wrong)} --cases 1"
    assert set(ends.values()) == {"read", "refused"}, "some cases are harmless, and most are not"


def test_a_case_is_known_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    def keep(rng: random.Random, folder: Path) -> None:
        del folder
        seen.append(mutated_bytes(rng, b"abc" * 20))

    monkeypatch.setitem(FUZZERS, "csv", keep)
    for number in (1, 2, 1):
        run_case("csv", number, tmp_path)
    run_case("csv", 1, tmp_path, seed=1)
    assert seen[0] == seen[2]
    assert len(set(seen)) == 3


def test_what_should_not_happen_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(rng: random.Random, folder: Path) -> None:
        del rng
        (folder / "left over").mkdir()
        raise KeyError("a mistake")

    monkeypatch.setitem(FUZZERS, "csv", fail)
    assert "KeyError: 'a mistake'" in run_case("csv", 0, tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(fuzz_readers, "SECONDS_A_CASE", -1)
    assert run_case("id-map", 0, tmp_path).startswith("took 0.")


def test_cases_run_in_a_process_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ends, findings = run_apart("id-map", range(5, 9), seed=0)
    assert (sum(ends.values()), findings) == (4, {})
    main(["--readers", "id-map", "--cases", "3", "--out", str(tmp_path / "counts.json")])
    assert capsys.readouterr().out.startswith("id-map: {'read': ")
    assert sum(json.loads((tmp_path / "counts.json").read_text())["readers"]["id-map"].values()) == 3


def test_mutations_change_one_thing_and_nested_values_are_json() -> None:
    rng = random.Random(0)
    value = {"a": [1, 2, {"b": 3}], "c": "d"}
    assert sum(mutated_tree(rng, value) != value for _ in range(100)) > 80
    assert json.loads(json_of({"a": Nested(3, "[]"), "b": [Nested(1, "{}")]})) == {
        "a": [[[0]]],
        "b": [{"a": 0}],
    }


# What the fuzz run has found
# ------------------------------------------------------------------------------------


def test_deeply_nested_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text("[" * 100_000)
    for read in (load_metadata, read_id_map):
        with pytest.raises(DataError, match=r"m\.json"):
            read(path)


def test_damaged_gzip_is_refused(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(b"sequenceId,itemPosition,item\n" + b"0,1,a\n" * 500))
    content[20:30] = b"\xff" * 10
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"t\.csv cannot be read as csv"):
        read_table(tmp_path / "t.csv", "csv")


def test_a_quote_that_is_not_closed_does_not_fill_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_files, "BYTES_PER_BLOCK", 1 << 10)
    monkeypatch.setattr(table_files, "LONGEST_RECORD", 1 << 12)
    (tmp_path / "t.csv").write_text('sequenceId,itemPosition,item\n0,1,a\n0,2,"b\n' + "0,3,c\n" * 2000)
    with pytest.raises(DataError, match=r"probably a quote is opened and not closed\. It begins with b'0,2,"):
        read_table(tmp_path / "t.csv", "csv")


def test_a_csv_that_polars_panics_over_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('"sequenceId","itemPosition","number"\n"0","1","2"\n"0","2","')
    with pytest.raises(SeqjaxError):
        read_table(tmp_path / "t.csv", "csv")


@pytest.mark.parametrize("name", ["item", "inputCol"])
def test_text_that_is_not_utf8_is_refused(tmp_path: Path, name: str) -> None:
    keys = ["sequenceId", "subsequenceId", "startItemPosition", "itemPosition", "1", "0"]
    columns = dict.fromkeys(keys, pa.array(np.arange(2)))
    columns[name] = pa.array([b"\xff\xfe", b"b"], pa.binary()).view(pa.string())
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(DataError, match=r"cannot be read as parquet: .*UTF"):
        load_windows(path, "parquet", column_kinds={})
    with pytest.raises(DataError, match=r"cannot be read as parquet: .*UTF"):
        read_table(path, "parquet", selected_columns=[name])


def test_windows_of_absurd_length_are_refused(tmp_path: Path) -> None:
    path = fuzz_readers._copied("arrow", tmp_path)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "seq_length": 2**63}))
    with pytest.raises(DataError, match=r"seq_length: must be at most 1e\+06"):
        load_windows(path, "arrow", column_kinds={"item": "categorical"})
