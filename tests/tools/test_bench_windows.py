"""What a window costs, on a small table: nothing; what is counted are bytes, not seconds."""

import json
from pathlib import Path

from tools import bench_windows


def test_items_cost_their_columns_and_windows_nothing(tmp_path: Path) -> None:
    bench_windows.main(["--items", "300000", "--out", str(tmp_path / "x.json")])
    result = json.loads((tmp_path / "x.json").read_text())["result"]
    assert result["windows"] == 270_000 - bench_windows.LENGTH
    assert result["bytes_per_item"] <= 2.2
    assert result["manifest_bytes"] < 2000
    assert result["order_peak_bytes"] < 10**6
