"""Axes of the page of a search: each on the scale on which its numbers lie."""

import math

import numpy as np
import pytest

from seqjax.commands.search_page import _dimension


def test_numbers_that_span_powers_of_ten_are_on_a_logarithmic_axis():
    values = [float(value) for value in np.geomspace(1.1e-4, 9e-3, 30)]
    axis = _dimension("learning_rate", values)
    assert axis["ticktext"] == ["0.0002", "0.0005", "0.001", "0.002", "0.005"]
    assert axis["tickvals"] == pytest.approx([math.log10(float(text)) for text in axis["ticktext"]])
    assert axis["values"] == pytest.approx(np.log10(values))


def test_numbers_that_begin_near_zero_are_not():
    values = [float(value) for value in np.linspace(0.0004, 0.3, 30)]
    assert _dimension("dropout", values) == {"label": "dropout", "values": values}


@pytest.mark.parametrize("values", [[4, 1, 2, 2, 1], [0.0, 0.25, 0.1]])
def test_a_few_numbers_are_marked_each(values):
    axis = _dimension("num_layers", values)
    assert axis["values"] == values
    assert axis["tickvals"] == sorted(set(values))
    assert axis["ticktext"] == [f"{value:g}" for value in sorted(set(values))]


def test_what_is_no_number_has_a_place():
    axis = _dimension("kinds", ["relu", True, None, [1, 2], "relu"])
    assert axis["ticktext"] == ["[1, 2]", "null", "relu", "true"]
    assert axis["values"] == [2, 3, 1, 0, 2]
