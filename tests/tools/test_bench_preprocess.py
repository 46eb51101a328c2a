"""The benchmark of preprocess runs, on a small table."""

import json
import sys
from pathlib import Path

import pytest

from tools import bench_preprocess
from tools.bench_preprocess import Case, main, measure


@pytest.mark.parametrize("in_order", [True, False])
def test_a_small_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_order: bool) -> None:
    case = Case(30, 20, "csv", 4, (4, 4, 1), ("arrow",), in_order=in_order)
    monkeypatch.setitem(bench_preprocess.CASES, "2m", case)
    main(["--cases", "2m", "--out", str(tmp_path / "x.json")])
    written = json.loads((tmp_path / "x.json").read_text())
    (row,) = written["results"]
    assert row["rows"] == 600
    assert row["cpu_seconds"] > 0.05
    assert row["peak_mb"] > 20
    assert row["windows_read_per_cpu_second"] > 0
    assert set(written) == {"date", "machine", "versions", "results"}


def test_children_are_measured_too(tmp_path: Path) -> None:
    waste = "sum(i * i for i in range(3_000_000)); x = bytearray(200 << 20); import time; time.sleep(0.3)"
    command = [
        sys.executable,
        "-c",
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {waste!r}])",
    ]
    found = measure(command, tmp_path, {})
    assert found.peak_mb >= 200
    assert found.cpu_seconds > 0.1
    with pytest.raises(SystemExit, match="failed"):
        measure([sys.executable, "-c", "1/0"], tmp_path, {})


def test_memory_stays_bounded(tmp_path: Path) -> None:
    (row,) = bench_preprocess.measure_case("2m-parquet", tmp_path, None)
    assert row["peak_mb"] < 600
