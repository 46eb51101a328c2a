"""Results in parts are those in one piece, and appear whole or not at all."""

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from seqjax.inference.results import write_files, write_whole

TABLE = pl.DataFrame({"sequenceId": [1, 2, 3], "item": ["a,b", None, "c"], "x": [0.5, 1.0, float("nan")]})


@pytest.mark.parametrize("write_format", ["csv", "parquet"])
def test_parts_make_one_table(tmp_path: Path, write_format) -> None:
    one, other = tmp_path / f"one.{write_format}", tmp_path / "out" / f"other.{write_format}"
    parts = [{one: TABLE[n : n + 1], other: TABLE[n : n + 1].select("x")} for n in range(3)]
    assert write_whole(parts, write_format) == [one, other]
    read = pl.read_csv if write_format == "csv" else pl.read_parquet
    assert_frame_equal(read(one), TABLE)
    assert_frame_equal(read(other), TABLE.select("x"))


def test_each_part_has_a_file(tmp_path: Path) -> None:
    whole = tmp_path / "predictions" / "m-predictions.csv"
    written = write_files(({whole: TABLE[n : n + 1]} for n in range(2)), "csv", "m")
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        "predictions/m-predictions/m-0-predictions.csv",
        "predictions/m-predictions/m-1-predictions.csv",
    ]
    assert pl.read_csv(written[1])["sequenceId"].to_list() == [2]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text("earlier")

    def parts():
        yield {path: TABLE}
        raise ValueError("later part")

    with pytest.raises(ValueError, match="later part"):
        write_whole(parts(), "csv")
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]
