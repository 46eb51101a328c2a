"""Held-out windows show the rows before their split, and no row is a target of two splits."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from seqjax.commands.preprocess import preprocess
from seqjax.config.base import validate
from seqjax.config.preprocess import PreprocessConfig
from seqjax.config.schema import ColumnKind
from seqjax.data import sorting
from seqjax.data.formats import load_windows
from seqjax.errors import DataError
from seqjax.windows.windows import Windows, targets_once

LENGTHS = [1, 2, 3, 5, 9, 10, 23, 64, 200]
SEQ_LENGTH = 6
FIRST_ID = 2


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sequence = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    position = np.concatenate([np.arange(length) for length in LENGTHS])
    row = np.arange(len(sequence))
    share = position / np.repeat(LENGTHS, LENGTHS)
    frame = pl.DataFrame({"sequenceId": sequence, "itemPosition": position + 3, "row": row, "share": share})
    Path("data").mkdir()
    frame.write_csv("data/t.csv")


def splits(write_format: str = "arrow", **changes: Any) -> list[Windows]:
    """The windows of each split, whose column `row` says which row of the table an item is."""
    values = {
        "project_root": ".",
        "data_path": "data/t.csv",
        "selected_columns": ["row", "share"],
        "seq_length": SEQ_LENGTH,
        "split_ratios": [0.7, 0.2, 0.1],
        "stride_by_split": [2, 3, 1],
        "fit_on": "all",
        "write_format": write_format,
        **changes,
    }
    values = {key: value for key, value in values.items() if value is not None}
    metadata = preprocess(validate(PreprocessConfig, values, "the test"))
    kinds: dict[str, ColumnKind] = {"row": "categorical", "share": "real"}
    return [
        load_windows(Path(path), write_format, column_kinds=kinds, padding="null")
        for path in metadata.split_paths
    ]


def targets(windows: Windows) -> list[int]:
    """The rows of the table that are targets, once for each window in which they are."""
    batch = windows.gather(np.arange(len(windows)))
    slots = np.arange(windows.seq_length + 1)
    mask = (slots >= batch.first_target[:, None]) & (slots > 0)
    return (batch.columns["row"][mask] - FIRST_ID).tolist()


def own_rows() -> list[set[int]]:
    """The rows of each split, by the definition of the ratios."""
    first = np.cumsum(LENGTHS) - LENGTHS
    own: list[set[int]] = [set(), set(), set()]
    for begin, length in zip(first.tolist(), LENGTHS, strict=True):
        cuts = [0, length * 7 // 10, length * 9 // 10, length]
        for split in range(3):
            own[split] |= set(range(begin + cuts[split], begin + cuts[split + 1]))
    return own


BY_VALUE = {
    "split_method": "by_value",
    "split_ratios": None,
    "split_column": "share",
    # The first item of a split is where its number is at least the rounded-down cumulated share.
    "split_values": [0.65, 0.85],
}


@pytest.mark.parametrize("write_format", ["arrow", "parquet", "csv", "pt"])
def test_targets_are_the_rows_of_the_split_and_earlier_rows_are_shown(write_format: str) -> None:
    first = np.cumsum(LENGTHS) - LENGTHS
    for split, (windows, own) in enumerate(zip(splits(write_format), own_rows(), strict=True)):
        if split:  # The first item of a sequence has no window in which it is predicted from an item.
            assert set(targets(windows)) == own - (set(first.tolist()) - set(targets(windows)))
        batch = windows.gather(np.arange(len(windows)))
        assert not batch.columns["row"][np.arange(SEQ_LENGTH + 1) < batch.padding[:, None]].any()
        for rows, padding in zip(batch.columns["row"].tolist(), batch.padding.tolist(), strict=True):
            assert rows[padding:] == list(range(rows[padding], rows[-1] + 1))
            begin = first[np.searchsorted(first, rows[-1] - FIRST_ID, side="right") - 1]
            # Padded only where the sequence itself begins.
            assert padding == 0 or rows[padding] - FIRST_ID == begin or split == 0


@pytest.mark.parametrize(
    "changes", [{}, BY_VALUE, {"subsequence_start_mode": "exact", "stride_by_split": [1] * 3}]
)
def test_the_cut_of_the_table_into_chunks_changes_nothing(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [(windows.gather(np.arange(len(windows))), windows.keys()) for windows in splits(**changes)]
    monkeypatch.setattr(sorting, "ROWS_PER_CHUNK", 7)
    monkeypatch.setattr(sorting, "MOST_ROWS_PER_CHUNK", 11)
    for windows, (batch, keys) in zip(splits(**changes), expected, strict=True):
        again = windows.gather(np.arange(len(windows)))
        np.testing.assert_array_equal(again.padding, batch.padding)
        np.testing.assert_array_equal(again.first_target, batch.first_target)
        np.testing.assert_array_equal(again.columns["row"], batch.columns["row"])
        np.testing.assert_array_equal(windows.keys(), keys)


def test_a_column_that_decides_the_split_gives_history_too() -> None:
    table = pl.read_csv("data/t.csv")
    split = (table["share"] >= 0.65).cast(int) + (table["share"] >= 0.85).cast(int)
    parts = splits(**BY_VALUE)
    for number, windows in enumerate(parts):
        own = set(table["row"].filter(split == number).to_list())
        begins = set((np.cumsum(LENGTHS) - LENGTHS).tolist())
        assert own - begins <= set(targets(windows)) <= own
    assert (parts[-1].gather(np.arange(len(parts[-1]))).padding == 0).any()


def test_without_history_no_row_of_another_split_is_shown() -> None:
    for windows, own in zip(splits(history=False), own_rows(), strict=True):
        batch = windows.gather(np.arange(len(windows)))
        real = np.arange(SEQ_LENGTH + 1) >= batch.padding[:, None]
        assert set((batch.columns["row"][real] - FIRST_ID).tolist()) == own
        np.testing.assert_array_equal(batch.first_target, batch.padding)


@pytest.mark.parametrize("write_format", ["arrow", "parquet", "csv", "pt"])
@pytest.mark.parametrize("newest", [1, 2, 5])
@pytest.mark.parametrize("history", [True, False])
def test_each_held_out_row_is_among_the_newest_of_one_window(
    write_format: str, newest: int, history: bool
) -> None:
    begins = set((np.cumsum(LENGTHS) - LENGTHS).tolist())
    for windows, own in list(zip(splits(write_format, history=history), own_rows(), strict=True))[1:]:
        once = windows if write_format == "arrow" else targets_once(windows, newest)
        recut = once.ending_at_targets(newest)
        batch = recut.gather(np.arange(len(recut)))
        slots = np.arange(SEQ_LENGTH + 1)
        mask = (slots >= batch.first_target[:, None]) & (slots > SEQ_LENGTH - newest)
        scored = (batch.columns["row"][mask] - FIRST_ID).tolist()
        assert len(scored) == len(set(scored))
        assert set(scored) == own
        if history and write_format == "arrow":
            # As much of the past as there is.
            seen = SEQ_LENGTH + 1 - batch.padding
            newest_row = batch.columns["row"][:, -1] - FIRST_ID
            at = np.asarray([newest_row - begin for begin in sorted(begins)])
            position = np.where(at >= 0, at, 10**6).min(axis=0)
            np.testing.assert_array_equal(seen, np.minimum(position + 1, SEQ_LENGTH + 1))


def test_a_minimal_history_takes_targets_away() -> None:
    windows = splits()[2]
    strict = replace(windows, min_history=2)
    assert set(targets(strict)) < set(targets(windows))
    recut = strict.ending_at_targets(1)
    lost = set(targets(windows)) | own_rows()[2]
    batch = recut.gather(np.arange(len(recut)))
    assert (batch.padding <= SEQ_LENGTH - 2).all()
    assert recut.runs.without_history == len(lost) - len(recut)


def test_exact_windows_still_end_their_slices() -> None:
    with pytest.raises(DataError, match="subsequence_start_mode: exact"):
        splits(subsequence_start_mode="exact", stride_by_split=[7, 7, 7])
