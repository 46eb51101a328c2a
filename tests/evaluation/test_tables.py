"""What a reader finds in the tables, and how numbers are written."""

from dataclasses import replace

import pytest

from seqjax.evaluation.pieces import Estimate
from seqjax.evaluation.tables import (
    classes_table,
    example_table,
    figure,
    metrics_table,
    number,
    places_of,
    positions_table,
    ranks_table,
    titled_tables,
    verdict_table,
)
from seqjax.metrics import METRICS
from tests.evaluation.reports import figures, item, model, price, report


def test_the_verdict_of_each_target_is_a_row():
    assert verdict_table(model("m")).rows == [
        ["item", "better", "NLL (nats)", "0.500", "0.750 (last value)", "0.250 [0.200, 0.300], 33%"],
        ["price", "no better", "RMSE", "0.500", "0.550 (last value)", "0.050 [-0.100, 0.200], 9%"],
    ]


def test_a_target_that_is_not_judged_has_empty_cells():
    target = item()
    unjudged = replace(target, verdict=replace(target.verdict, outcome="not judged", baseline=None))
    table = verdict_table(replace(model("m"), targets={"item": unjudged}))
    assert table.rows == [["item", "not judged", "NLL (nats)", "0.500", "", ""]]


def test_metrics_are_rows_and_predictors_columns():
    table = metrics_table(item(), intervals_of=["model"])
    assert list(table.columns) == ["", "model", "last value"]
    assert [row[0] for row in table.rows] == [
        *(metric.label for metric in METRICS["categorical"].values()),
        "ECE",
    ]
    assert table.rows[0][1:] == ["50.0% [40.0%, 60.0%]", "75.0%"]
    assert table.rows[3][1:] == ["0.500 [0.400, 0.600]", "0.750"]
    assert table.rows[-1][1:] == ["4.0%", "–"]
    assert metrics_table(price()).rows[1][3] == "90.000 [89.900, 90.100]"


def test_positions_show_the_best_baseline_too():
    table = positions_table(item())
    assert table.columns[:3] == ["Position", "Items seen", "Items"]
    assert table.columns[-1] == "NLL (nats), last value"
    assert [list(row[:3]) for row in table.rows] == [[1, 2, 9], [2, 3, 11]]
    assert table.rows[0][-1] == "0.750"


def test_classes_are_counted_and_their_mistakes_named():
    confusion = item().confusion
    assert confusion is not None
    assert classes_table(confusion).rows == [
        ["<apple>", 10, "50.0%", "90.0%", "81.8%", "fig (1)"],
        ["fig", 10, "50.0%", "80.0%", "88.9%", "<apple> (2)"],
    ]


def test_an_example_ends_with_what_came_and_what_was_predicted():
    table = example_table(model("m").examples[0], {"item": item(), "price": price()})
    assert list(table.columns) == ["Item", "item", "price", "shop"]
    assert table.rows == [
        ["2 before", "fig", "1", "a"],
        ["1 before", "<apple>", "2.5", "b"],
        ["actual", "fig", "3", ""],
        ["predicted", "fig", "2.75", ""],
        ["most likely", "fig 80.0%, <apple> 15.0%, other 5.0%", "", ""],
    ]


def test_a_terminal_shows_verdicts_metrics_and_for_several_models_their_ranks():
    titles = [title for title, _ in titled_tables(report("a"))]
    assert titles == [f"a: {model('a').verdict}", "item", "price"]
    titles = [title for title, _ in titled_tables(report("a", "b"))]
    assert titles[0] == "The models side by side"
    assert titles[2:4] == ["a: item", "a: price"]


def test_ranks():
    assert ranks_table(report("a", "b", "c")).rows == [
        ["item", "NLL (nats)", "a", "0.500 [0.400, 2.000]", "the best"],
        ["item", "NLL (nats)", "b", "1.500 [1.400, 1.600]", "+1.000 [0.900, 1.100]"],
        ["item", "NLL (nats)", "c", "2.500 [0.400, 2.000]", "other items were scored"],
    ]


@pytest.mark.parametrize(
    ("error", "places", "text"),
    [
        (0.0123, 4, "0.0123"),
        (0.5, 3, "0.500"),
        (12.0, 1, "12.0"),
        (123456.0, 0, "123,456"),
        (1e-9, None, "1e-09"),
        (None, 2, "–"),
    ],
)
def test_decimal_places_follow_the_units_of_the_target(error, places, text):
    metrics = {"model": figures(("mae",), error)} if error else {"model": {"mae": Estimate(None)}}
    assert places_of(replace(price(), metrics=metrics)) == places
    assert number(error, places) == text


@pytest.mark.parametrize(("value", "text"), [(-0.0004, "0.000"), (0.0, "0.000"), (-0.0006, "-0.001")])
def test_what_rounds_to_zero_has_no_sign(value, text):
    assert number(value, 3) == text


def test_a_figure_without_an_interval():
    metric = METRICS["categorical"]["nll"]
    assert figure(metric, Estimate(0.5), places=None, with_interval=True) == "0.500"
    assert figure(metric, Estimate(None), places=None, with_interval=True) == "–"
