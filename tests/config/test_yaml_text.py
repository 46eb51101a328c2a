"""YAML is read as plain data, with the scalars of YAML 1.2, and mistakes have a line and a column."""

import json
import math
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.config.yaml_text import parse_scalar, parse_yaml, to_yaml
from seqjax.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("1e-3", 0.001), ("0.001", 0.001), ("1E5", 1e5), ("5.", 5.0), (".5", 0.5), ("-2.5e+1", -25.0)],
        *[("12", 12), ("-3", -3), ("+4", 4), ("012", 12), ("0x1F", 31), ("0o17", 15)],
        *[("true", True), ("False", False), ("null", None), ("~", None), ("", None)],
        *[("-.inf", -math.inf), (".inf", math.inf)],
        *[
            (word, word)
            for word in ["no", "Yes", "on", "off", "y", "2024-01-01", "12:30", "1_000", "=", ".", "e5", "1e"]
        ],
    ],
)
def test_an_unquoted_word_is_read_by_the_core_schema(text, value):
    assert parse_yaml(f"key: {text}", "x.yaml") == {"key": value}
    assert type(parse_scalar(text)) is type(value)


def test_quotes_make_text():
    assert parse_yaml("a: '1'\nb: \"null\"\nc: |\n  1\n", "x.yaml") == {"a": "1", "b": "null", "c": "1\n"}


def test_anchors_and_merge_keys_are_kept():
    text = "base: &base {a: 1, b: 2}\nlist: &list [1]\nnext: {<<: *base, b: 3}\nsame: *list"
    assert parse_yaml(text, "x.yaml") == {
        "base": {"a": 1, "b": 2},
        "list": [1],
        "next": {"a": 1, "b": 3},
        "same": [1],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "line 3, column 1: the key 'a' is already in line 1; keep one of them."),
        ("s:\n  a: 1\n  a: 1", "line 3, column 3: the key 'a' is already in line 2; keep one of them."),
        (
            "a: !!python/object/apply:os.system [ls]",
            "line 1, column 4: the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not",
        ),
        ("a: !mine 3", "line 1, column 4: the tag '!mine' is not allowed"),
        ("a: [1, 2\nb: 3", "line 2, column"),
        ("a: b: c", "line 1, column 5: mapping values are not allowed here."),
        ("\ta: 1", "line 1, column 1: found character"),
        ("a: 1\n---\nb: 2", "line 2, column 1: expected a single document"),
        ("a: &x [*x]", "line 1, column 4: an alias stands for something that contains it."),
        ("a: *x", "line 1, column 4: found undefined alias 'x'."),
        ("{[1]: 2}", "line 1, column 2: a key must be text or a number."),
        ("true: 2", "line 1, column 1: a key must be text or a number."),
        ("a:\n- \x01", "line 2: the character U+0001 cannot stand in YAML."),
        ("[" * 5 * sys.getrecursionlimit(), "is nested too deeply."),
    ],
)
def test_a_mistake_has_a_place(text, message):
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "x.yaml")
    assert str(caught.value).startswith(f"x.yaml has 1 problem:\n  {message}")


text = st.text(st.characters(min_codepoint=32, max_codepoint=126) | st.sampled_from("äß→"), max_size=8)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=10,
)


@settings(deadline=None, max_examples=100)
@given(plain)
def test_json_is_yaml(value):
    assert parse_yaml(json.dumps(value, ensure_ascii=False), "x.yaml") == value


# Everything that JSON can hold, with the characters that YAML takes for line breaks or not at all.
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    ["\x7f", "\x85", "\u2028 \u2029", "\ufeff", "\U0001f600", "null", "1e-3", "<<", "a: b", "# c", "-", ""]
)
any_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(any_text, any_value, max_size=4))
def test_what_is_written_is_read_back(values):
    assert parse_yaml(to_yaml(values), "x.yaml") == values


def test_yaml_is_written_a_line_a_key():
    values = {
        "root": ".",
        "spec": {"name": "a b", "dims": {"x": 1}, "rate": 1e-05},
        "none": None,
        "on": [True],
    }
    assert to_yaml(values) == (
        'root: "."\nspec:\n  name: "a b"\n  dims: {"x": 1}\n  rate: 1e-05\nnone: null\non: [true]\n'
    )
