"""Runs are ranked by their loss, and their settings survive the trip through csv."""

import csv
import io
import json

from seqjax.sweep.summary import csv_text, ranked, table_lines

ROWS = [
    {"run": "a", "best_validation_loss": 0.5, "optimizer": {"name": "Adam"}, "reason": None},
    {
        "run": "b",
        "best_validation_loss": None,
        "optimizer": {"name": "SGD"},
        "reason": "not finite, \n at all",
    },
    {"run": "c", "best_validation_loss": 0.25, "optimizer": {"name": "Adam"}, "reason": None},
]


def test_the_lowest_loss_is_first_and_failures_are_last():
    rows = ranked(ROWS)
    assert [(row["rank"], row["run"]) for row in rows] == [(1, "c"), (2, "a"), (None, "b")]
    assert next(iter(rows[0])) == "rank"


def test_csv_holds_every_value():
    read = list(csv.DictReader(io.StringIO(csv_text(ranked(ROWS)), newline="")))
    assert [row["run"] for row in read] == ["c", "a", "b"]
    assert json.loads(read[0]["optimizer"]) == {"name": "Adam"}
    assert (read[2]["rank"], read[2]["best_validation_loss"]) == ("", "")
    assert read[2]["reason"] == "not finite, \n at all"


def test_the_table_is_aligned_and_says_what_it_leaves_out():
    assert table_lines(ranked(ROWS), ["rank", "run", "best_validation_loss"], limit=2) == [
        "rank  run  best_validation_loss",
        "1     c    0.25",
        "2     a    0.5",
        "... and 1 more",
    ]
