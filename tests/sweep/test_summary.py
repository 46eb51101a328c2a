"""Runs are ranked by their loss, and their settings survive the trip through csv."""

import csv
import io
import json

import numpy as np

from seqjax.sweep.summary import LOSS, budgets, csv_text, importance, kept, ranked, table_lines

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


def test_rounds_grow_until_the_last_epoch():
    assert budgets(1, 3, 27) == [1, 3, 9, 27]
    assert budgets(2, 2, 9) == [2, 4, 8, 9]
    assert budgets(5, 3, 4) == [4]


def test_the_best_are_kept_in_order():
    losses = {0: 3.0, 1: 1.0, 2: 2.0, 3: 1.0, 4: 9.0, 5: 8.0, 6: 7.0}
    assert kept(losses, 3) == [1, 2, 3]
    assert kept(losses, 7) == [1]
    assert kept({4: 2.0}, 3) == [4]


def varied(count, seed=0):
    """Runs whose loss depends on the rate a lot, on the layers a little, and on the colour not at all."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        rate, layers, colour = 10 ** rng.uniform(-4, -1), int(rng.integers(1, 4)), str(rng.choice(["r", "g"]))
        loss = abs(np.log10(rate) + 4) + 0.3 * layers + 0.01 * rng.normal()
        made.append({"rate": float(rate), "layers": layers, "colour": colour, LOSS: float(loss)})
    return made


def test_settings_are_ranked_by_what_they_explain():
    found = importance(varied(200), ["colour", "layers", "rate"])
    assert list(found) == ["rate", "layers", "colour"]
    assert 0.7 < found["rate"] <= 1
    assert 0.01 < found["layers"] < 0.3
    assert found["colour"] < 0.03


def test_one_wild_run_does_not_decide():
    some = varied(60)
    before = importance(some, ["rate"])["rate"]
    some[3][LOSS] = 1e12
    assert abs(importance(some, ["rate"])["rate"] - before) < 0.15


def test_what_cannot_be_told_is_not():
    assert importance(varied(2), ["rate"]) == {}
    constant = [{"a": [1, 2], LOSS: 1.0}, {"a": None, LOSS: 1.0}, {"a": [1, 2], LOSS: 1.0}]
    assert importance(constant, ["a"]) == {"a": 0.0}
    failed = [{"a": place, LOSS: None} for place in range(5)]
    assert importance(failed, ["a"]) == {}
