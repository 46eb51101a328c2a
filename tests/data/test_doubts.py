"""Categories that look like quantities, times or numbers of rows are told, others are not."""

import logging
import random
from pathlib import Path
from typing import Any

import pytest

import seqjax

CHANCE = random.Random(7)
N, LENGTH = 20, 60
ROWS = [(sequence, item) for sequence in range(N) for item in range(LENGTH)]
COLUMNS: dict[str, tuple[list[Any], str | None]] = {
    "row number": ([*range(len(ROWS))], "nearly all of them in one row only"),
    "item number": ([item for _, item in ROWS], "which only go up within sequences"),
    "count down": ([LENGTH - item for _, item in ROWS], "which only go down within sequences"),
    "date": ([f"2024-{1 + item // 28:02d}-{1 + item % 28:02d}" for _, item in ROWS], "which only go up"),
    "uuid": ([f"{CHANCE.getrandbits(64):016x}g" for _ in ROWS], "nearly all of them in one row only"),
    "cents": ([CHANCE.randrange(10**6) for _ in ROWS], "nearly all of them in one row only"),
    "level": ([50 + sequence + item % 40 // 2 for sequence, item in ROWS], "which change little from item"),
    "product": ([CHANCE.randrange(50) for _ in ROWS], "50 whole numbers are labels"),
    "digit": ([item % 10 for _, item in ROWS], None),
    "half hour": ([item % 30 for _, item in ROWS], None),
    "word": ([f"w{CHANCE.randrange(200)}" for _ in ROWS], None),
    "year": ([str(sequence) for sequence, _ in ROWS], None),
    "price": ([CHANCE.random() for _ in ROWS], None),
}


def _told(folder: Path, caplog: pytest.LogCaptureFixture, values: list[Any], **changes: Any) -> list[str]:
    rows = "".join(
        f"{sequence},{item},{value}\n" for (sequence, item), value in zip(ROWS, values, strict=True)
    )
    (folder / "t.csv").write_text("sequenceId,itemPosition,x\n" + rows)
    caplog.clear()
    caplog.set_level(logging.INFO, "seqjax")
    config = {
        "project_root": str(folder),
        "data_path": "t.csv",
        "seq_length": 4,
        "split_ratios": [0.8, 0.2],
        "n_cores": 1,
    }
    seqjax.preprocess(config | changes)
    told = [line for line in caplog.messages if line.startswith("Column 'x'")]
    return [line for line in told if "its id map lacks" not in line]


@pytest.mark.parametrize("name", COLUMNS)
def test_what_looks_like_something_else_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    values, why = COLUMNS[name]
    told = _told(tmp_path, caplog, values)
    if why is None:
        assert told == []
        return
    (line,) = told
    assert why in line
    assert ("column_roles: {x: real}" in line) == isinstance(values[0], int)
    # Whoever has decided is not told again.
    assert not _told(tmp_path, caplog, values, column_roles={"x": "categorical"})
    assert not _told(tmp_path, caplog, values, column_roles={"x": "text"})
