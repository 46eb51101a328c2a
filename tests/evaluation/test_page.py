"""The page: what it says first, that it escapes what users write, and that its plots can be drawn."""

import json
import re

import plotly.graph_objects as go
import pytest

from seqjax.evaluation.page import report_page
from tests.evaluation.reports import model, report


@pytest.fixture(scope="module")
def single() -> str:
    return report_page(report("a"))


def figures_of(text):
    return [
        json.loads(found) for found in re.findall(r'<script type="application/json">(.*?)</script>', text)
    ]


def test_the_verdict_comes_first(single):
    assert "<h1>a on held-out.csv</h1>" in single
    assert f'<p class="lead">{model("a").verdict}</p>' in single
    heads = re.findall(r"<h2[^>]*>(.*?)</h2>", single)
    assert heads == ["Verdict", "item", "price", "Examples", "How to read this"]
    assert "2026-01-02 03:04 UTC" in single


def test_what_a_reader_should_know_is_said(single):
    assert "item: 1 items without a value." in single
    assert "20 items scored; not scored: 2 padding, 1 unknown." in single
    assert "1,000 times, sequences were drawn with replacement" in single


def test_words_of_the_data_are_escaped(single):
    assert "<apple>" not in single
    assert "&lt;apple&gt;" in single


def test_every_figure_has_a_caption_and_is_valid(single):
    figures = figures_of(single)
    assert len(figures) == len(re.findall("<figcaption>", single)) == 8
    for figure in figures:
        go.Figure(figure)


def test_a_hopeless_baseline_gives_a_logarithmic_scale(single):
    axes = [figure["layout"]["xaxis"] for figure in figures_of(single) if "layout" in figure]
    scales = {axis["title"]["text"]: axis.get("type") for axis in axes}
    assert scales["RMSE"] == "log"
    assert scales["NLL (nats)"] is None


def test_several_models_stand_side_by_side():
    text = report_page(report("a", "b"))
    heads = re.findall(r"<h2[^>]*>(.*?)</h2>", text)
    assert heads[:3] == ["The models side by side", "a: Verdict", "a: item"]
    assert "<h1>2 models on held-out.csv</h1>" in text
    assert "+1.000 [0.900,\xa01.100]" in text
