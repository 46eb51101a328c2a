"""Ids and times of any kind: every prediction lies beside its row, found by a join that knows no numbers."""

import datetime as dt
import itertools
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.commands.preprocess import preprocess
from seqjax.config.base import validate
from seqjax.config.keys import KeyColumns
from seqjax.config.metadata import Metadata, Statistics
from seqjax.config.preprocess import PreprocessConfig
from seqjax.config.schema import WindowFormat
from seqjax.data import keys as keys_module
from seqjax.data import sorting, table_files
from seqjax.errors import ConfigError, DataError
from seqjax.inference.model import Model
from tests.engines import FakeEngine, fake_card

LENGTH = 3
ZONE = dt.timezone(dt.timedelta(hours=-5))
IDS: dict[str, st.SearchStrategy] = {
    "text": st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=5),
    "numerals": st.sampled_from(["007", "7", "07", "1e3", "1000", "true", "-0"]),
    "integer": st.integers(-(2**62), 2**62),
    "unsigned": st.integers(0, 2**64 - 1),
    "uuid": st.uuids().map(str),
    "bytes": st.binary(min_size=1, max_size=4),
    "date": st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1)),
    "decimal": st.floats(-1e6, 1e6, width=32),
    "boolean": st.booleans(),
}
TIMES: dict[str, st.SearchStrategy] = {
    "integer": st.integers(-(2**60), 2**60),
    "decimal": st.integers(-(10**6), 10**6).map(lambda eighths: eighths / 8),
    "date": st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1)),
    "datetime": st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1)),
    "zoned": st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1), timezones=st.just(dt.UTC)),
    "text of dates": st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1)).map(str),
    "text of times": st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1)).map(str),
    "text with zones": st.datetimes(
        dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1), timezones=st.sampled_from([dt.UTC, ZONE])
    ).map(lambda time: time.isoformat()),
}
TYPES: dict[str, Any] = {"unsigned": pl.UInt64}


def order_of(time: Any) -> Any:
    """The order of a time, computed by Python's own reading of text."""
    return dt.datetime.fromisoformat(time) if isinstance(time, str) else time


@st.composite
def tables(draw: st.DrawFn) -> pl.DataFrame:
    """Rows of a few sequences, in any order, numbered."""
    id_kind, time_kind = draw(st.sampled_from(sorted(IDS))), draw(st.sampled_from(sorted(TIMES)))
    ids = draw(st.lists(IDS[id_kind], min_size=1, max_size=4, unique=True))
    rows = []
    for id_ in ids:
        times = draw(st.lists(TIMES[time_kind], min_size=2, max_size=9, unique_by=order_of))
        rows += [(id_, time) for time in times]
    rows = draw(st.permutations(rows))
    columns = {
        "who": pl.Series([id_ for id_, _ in rows], dtype=TYPES.get(id_kind)),
        "when": pl.Series([time for _, time in rows]),
        "row": np.arange(len(rows), dtype=np.float64),
        "sequenceId": ["of no meaning"] * len(rows),
    }
    return pl.DataFrame(columns)


def previous(table: pl.DataFrame) -> dict[tuple[object, object], float]:
    """By id and time of a row that is not the first of its sequence, the number of the row before it."""
    found, rows = {}, table.select("who", "when", "row").rows()
    for who in {row[0] for row in rows}:
        own = sorted((row for row in rows if row[0] == who), key=lambda row: order_of(row[1]))
        found |= {(who, row[1]): before[2] for before, row in itertools.pairwise(own)}
    return found


def model(keys: KeyColumns, statistics: Statistics | None = None) -> Model:
    """Predicts the newest row number that it sees."""
    card = fake_card({}, {"row": statistics or Statistics(mean=0.0, std=1.0)}, {"row": "real"})
    engine = FakeEngine(
        card.model_copy(update={"keys": keys}), lambda inputs, _: {"row": inputs["row"][:, -1:, None]}
    )
    return Model(engine, "fake.onnx")


OWN = KeyColumns(id_column="who", time_column="when")


@settings(deadline=None, max_examples=60)
@given(tables(), st.integers(1, 8))
def test_predictions_lie_beside_their_rows(table: pl.DataFrame, rows_per_piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_files, "ROWS_PER_PIECE", rows_per_piece)
        patch.setattr(sorting, "ROWS_PER_BUCKET", 5)
        patch.setattr(sorting, "ROWS_PER_CHUNK", 4)
        patch.setattr(keys_module, "LINES", 3)
        found = model(OWN).predict(table, stride=1)
        latest = model(OWN).predict(table, forecast_from="latest")
    assert found.columns == ["who", "when", "row"]
    assert found.select("who", "when").schema == table.select("who", "when").schema
    assert {row[:2]: round(row[2]) for row in found.rows()} == previous(table)
    assert len(found) == len(previous(table))
    newest = {row[0]: max(map(order_of, _times_of(table, row[0]))) for row in latest.rows()}
    assert len(latest) == table["who"].n_unique()
    for who, when, number in latest.rows():
        assert order_of(when) > newest[who]
        assert order_of(table["when"][round(number)]) == newest[who]
        assert table["who"][round(number)] == who


def _times_of(table: pl.DataFrame, who: object) -> list[object]:
    return [when for other, when in table.select("who", "when").rows() if other == who]


def prepared(folder: Path, table: pl.DataFrame, write_format: WindowFormat, **changes: Any) -> Metadata:
    """Preprocesses a table, as parquet where csv has no such types."""
    values = {
        "project_root": str(folder),
        "data_path": str(folder / "t.parquet"),
        "read_format": "parquet",
        "write_format": write_format,
        "selected_columns": ["row"],
        "seq_length": LENGTH,
        "split_ratios": [0.5, 0.5],
        "stride_by_split": [1, 1],
        "id_column": "who",
        "time_column": "when",
        "fit_on": "all",
        **changes,
    }
    table.write_parquet(folder / "t.parquet")
    return preprocess(validate(PreprocessConfig, values, "the test"))


@settings(deadline=None, max_examples=20)
@given(tables(), st.sampled_from(["csv", "parquet", "pt", "arrow"]))
def test_preprocessed_data_keeps_ids_and_times(
    tmp_path_factory: pytest.TempPathFactory, table: pl.DataFrame, write_format: WindowFormat
) -> None:
    folder = tmp_path_factory.mktemp("own")
    metadata = prepared(folder, table, write_format)
    assert (metadata.id_column, metadata.time_column) == ("who", "when")
    predictor = model(OWN, metadata.selected_columns_statistics["row"])
    expected = previous(table)
    found = pl.DataFrame()
    for path in metadata.split_paths:
        found = predictor.predict(path, read_format=write_format)
        assert found.select("who", "when").schema == table.select("who", "when").schema
        # Of a sequence's first row nothing is known: a window of padding and that row alone.
        known = {row[:2]: round(row[2]) for row in found.rows() if row[:2] in expected}
        assert known == {key: expected[key] for key in known}
        assert set(found.select("who", "when").rows()) <= set(table.select("who", "when").rows())
    # The last split ends with the newest row of every sequence.
    newest = {who: max(_times_of(table, who), key=order_of) for who in table["who"].unique()}
    assert (
        newest.items()
        <= dict(row[:2] for row in sorted(found.rows(), key=lambda row: order_of(row[1]))).items()
    )


STEPS = [
    (["2024-01-31", "2024-02-29", "2024-03-31"], ["2024-04-30", "2024-05-31"]),
    (["2023-11-15", "2023-12-15"], ["2024-01-15", "2024-02-15"]),
    (["2024-05", "2024-06", "2024-07"], ["2024-08", "2024-09"]),
    (["2024-02-27", "2024-02-28"], ["2024-02-29", "2024-03-01"]),
    (
        ["2013-01-01T06:00:00Z", "2013-01-01T07:00:00Z", "2013-01-01T09:00:00Z", "2013-01-01T10:00:00Z"],
        ["2013-01-01T11:00:00Z", "2013-01-01T12:00:00Z"],
    ),
    (
        ["2024-03-30T00:00+01:00", "2024-03-31T00:00+01:00", "2024-04-01T00:00+02:00"],
        ["2024-04-02T00:00+02:00", "2024-04-03T00:00+02:00"],
    ),
    (
        ["2024-01-01 23:59:59.50", "2024-01-01 23:59:59.75"],
        ["2024-01-02 00:00:00.00", "2024-01-02 00:00:00.25"],
    ),
    ([20240130, 20240131], [20240201, 20240202]),
    ([0.1, 0.2], [0.3, 0.4]),
    ([2, 4, 6, 9, 11], [13, 15]),
    ([dt.date(2023, 1, 1), dt.date(2024, 1, 1)], [dt.date(2025, 1, 1), dt.date(2026, 1, 1)]),
    ([5], [6, 7]),
    (["2024-01-05"], ["2024-01-06", "2024-01-07"]),
]


@pytest.mark.parametrize(("times", "expected"), STEPS)
def test_times_go_on_by_the_usual_step(times: list, expected: list) -> None:
    table = pl.DataFrame(
        {"who": ["a"] * len(times), "when": times, "row": np.arange(len(times), dtype=float)}
    )
    found = model(OWN).generate(table, steps=2, forecast_from="latest")
    assert found["when"].to_list() == expected


@pytest.mark.parametrize(
    ("dtype", "times", "expected"),
    [
        (pl.Decimal(10, 2), ["1.50", "1.75"], ["2.00", "2.25"]),
        (pl.Duration("ms"), [1000, 2500], [4000, 5500]),
        (pl.UInt8, [250, 252], [254, None]),
        (pl.Int128, [1, 2], [3, 4]),
        (pl.Float32, [0.5, 1.0], [1.5, 2.0]),
        (pl.Datetime("ms"), [0, 1], [2, 3]),
        (pl.Datetime("ns", "UTC"), [0, 1], [2, 3]),
        (pl.Categorical, ["2024-01-01", "2024-01-02"], ["2024-01-03", "2024-01-04"]),
    ],
)
def test_times_keep_their_type(dtype: Any, times: list, expected: list) -> None:
    given = pl.Series(times).cast(dtype)
    table = pl.DataFrame({"who": ["a", "a"], "when": given, "row": [0.0, 1.0]})
    found = model(OWN).generate(table, steps=2, forecast_from="latest")["when"]
    stored = {pl.Categorical: pl.String, pl.Int128: pl.Int64}.get(dtype, dtype)
    assert found.dtype == stored
    assert found.equals(pl.Series(expected).cast(stored))


def test_times_in_a_place_follow_its_clock() -> None:
    zone = "America/New_York"
    days = pl.Series([dt.datetime(2024, 3, 8), dt.datetime(2024, 3, 9)]).dt.replace_time_zone(zone)
    hours = pl.Series([dt.datetime(2024, 3, 10, 0), dt.datetime(2024, 3, 10, 1)]).dt.replace_time_zone(zone)
    for times, expected in ((days, [(10, 0), (11, 0)]), (hours, [(10, 3), (10, 4)])):
        table = pl.DataFrame({"who": [1, 1], "when": times, "row": [0.0, 1.0]})
        found = model(OWN).generate(table, steps=2, forecast_from="latest")
        assert found["when"].dtype == times.dtype
        assert [(time.day, time.hour) for time in found["when"]] == expected


def test_irregular_times_are_said_to_be_estimates(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "seqjax")
    table = pl.DataFrame({"who": ["a"] * 4, "when": [1, 3, 8, 18], "row": [0.0, 1, 2, 3]})
    assert model(OWN).predict(table, forecast_from="latest")["when"].to_list() == [23]
    assert "who 'a' has no usual step between its times" in caplog.text


def test_rows_at_one_time() -> None:
    table = pl.DataFrame(
        {"who": ["a", "b", "a", "a"], "when": ["2024-01-01", "2024-01-01", "2024-01-01", "2023-01-01"]}
    ).with_columns(row=pl.Series([0.0, 1, 2, 3]))
    message = "who a has when 2024-01-01 twice: in row 1 of the table and in row 3 of .* ties: order takes"
    with pytest.raises(DataError, match=message):
        model(OWN).predict(table)
    found = model(OWN).predict(table, stride=1, ties="order")
    assert found.rows() == [("a", "2024-01-01", 3.0), ("a", "2024-01-01", 0.0)]
    numbers = table.rename({"who": "sequenceId", "when": "itemPosition"})
    numbers = numbers.with_columns(sequenceId=pl.Series([1, 2, 1, 1]), itemPosition=pl.Series([5, 5, 5, 4]))
    with pytest.raises(DataError, match="sequenceId 1 has itemPosition 5 twice"):
        model(KeyColumns()).predict(numbers)
    found = model(KeyColumns()).predict(numbers, stride=1, ties="order")
    assert found.rows() == [(1, 5, 3.0), (1, 5, 0.0)]


WRONG = [
    ({"when": ["2024-01-01", "soon"]}, r"column 'when', row 2 holds 'soon', which is no time.*time_format"),
    ({"when": ["2024-01-01", "2024-02-30"]}, "row 2 holds '2024-02-30', which is no time"),
    ({"when": ["2024-01-01T05:00Z", "2024-01-01T06:00"]}, "row 2 holds a time without a zone"),
    ({"when": ["2024-01-01 05:00:00.1234567", "2024-01-02"]}, "row 1 holds .* to the microsecond"),
    ({"when": ["2024-01-01", None]}, "column 'when', row 2 is empty"),
    ({"when": [1.0, float("nan")]}, "column 'when', row 2 is no finite number"),
    ({"when": [True, False]}, "column 'when' is of type Boolean, which says no time"),
    ({"when": pl.Series([1, 2**64 - 1], dtype=pl.UInt64)}, "row 2 is a number of more than 64 bits"),
    ({"who": ["a", None]}, "column 'who', row 2 is empty. Every row needs an id"),
    ({"who": [["a"], ["b"]]}, "column 'who' is of type List.*names no sequence"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_what_is_no_id_or_time_is_named(changes: dict, message: str) -> None:
    table = pl.DataFrame({"who": ["a", "b"], "when": [1, 2], "row": [0.0, 1.0]} | changes, strict=False)
    with pytest.raises(DataError, match=message):
        model(OWN).predict(table)


def test_a_form_of_times_is_said() -> None:
    table = pl.DataFrame({"who": [1, 1], "when": ["31.12.2023 22:00", "31.12.2023 23:00"], "row": [0.0, 1]})
    with pytest.raises(DataError, match="which is no time"):
        model(OWN).predict(table)
    found = model(OWN).predict(table, forecast_from="latest", time_format="%d.%m.%Y %H:%M")
    assert found["when"].to_list() == ["01.01.2024 00:00"]


def test_columns_of_another_table() -> None:
    table = pl.DataFrame({"client": ["x", "x"], "day": [1, 2], "row": [0.0, 1.0]})
    with pytest.raises(DataError, match=r"no column 'who'.*Name the column that says this by id_column"):
        model(OWN).predict(table)
    found = model(OWN).predict(table, id_column="client", time_column="day")
    assert found.rows() == [("x", 2, 0.0)]
    with pytest.raises(ConfigError, match="must be another column than id_column"):
        model(OWN).predict(table, id_column="day", time_column="day")


def test_a_later_run_of_preprocess_takes_old_ids_away(tmp_path: Path) -> None:
    table = pl.DataFrame({"who": ["b", "a", "a"], "when": [1, 2, 3], "row": [0.0, 1, 2]})
    changes = {"split_ratios": [1.0], "stride_by_split": [1]}
    prepared(tmp_path, table, "arrow", **changes)
    assert (tmp_path / "data" / "t-keys" / "keys.json").is_file()
    numbers = table.rename({"who": "sequenceId", "when": "itemPosition"}).with_columns(sequenceId=pl.lit(4))
    metadata = prepared(tmp_path, numbers, "arrow", **changes, id_column=None, time_column=None)
    assert not (tmp_path / "data" / "t-keys").exists()
    assert metadata.id_column is None
    text = next((tmp_path / "configs" / "metadata_configs").iterdir()).read_text()
    assert "id_column" not in text
    assert "ties" not in text


def test_ids_that_preprocess_kept_are_needed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = pl.DataFrame({"who": ["b", "a", "a"], "when": [1, 2, 3], "row": [0.0, 1, 2]})
    (path,) = prepared(tmp_path, table, "arrow", split_ratios=[1.0], stride_by_split=[1]).split_paths
    assert model(OWN).predict(path)["who"].to_list() == ["a", "b"]
    with pytest.raises(ConfigError, match=r"time_column: is of raw tables, but .* is preprocessed"):
        model(OWN).predict(path, time_column="day")
    (tmp_path / "data" / "t-keys").rename(tmp_path / "away")
    found = model(OWN).predict(path)
    assert found.columns == ["sequenceId", "itemPosition", "row"]
    assert "t-keys, where preprocess keeps who and when, is not there" in caplog.text
    (tmp_path / "away").rename(tmp_path / "data" / "t-keys")
    (tmp_path / "data" / "t-keys" / "sequences.arrow").write_bytes(b"")
    with pytest.raises(DataError, match=r"sequences.arrow cannot be read"):
        model(OWN).predict(path)


def test_probabilities_and_samples_have_ids_beside_labels_of_any_name() -> None:
    ids = {"item": {"who": 2, "when": 3, "when_": 4}}
    card = fake_card(ids, {}, {"item": "categorical"}).model_copy(update={"keys": OWN})
    engine = FakeEngine(card, lambda inputs, _: {"item": np.log(np.full((len(inputs["item"]), 1, 5), 0.2))})
    table = pl.DataFrame({"who": ["a", "a"], "when": [1.5, 2.5], "item": ["who", "when"]})
    found = Model(engine, "m").probabilities(table)["item"]
    assert found.columns == ["who", "when", "unknown", "other", "who_", "when__", "when_"]
    assert found.row(0)[:2] == ("a", 2.5)


def test_sequences_beyond_one_batch_of_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "LINES", 7)
    ids = [str(uuid.UUID(int=number * 7919 % 1000)) for number in range(100)]
    table = pl.DataFrame(
        {"who": ids * 3, "when": np.repeat([3, 1, 2], 100), "row": np.arange(300, dtype=float)}
    )
    found = model(OWN).predict(table)
    assert found["who"].to_list() == sorted(ids)
    assert found["when"].to_list() == [3] * 100
    expected = {who: float(200 + number) for number, who in enumerate(ids)}
    assert dict(zip(found["who"], found["row"], strict=True)) == expected
