"""A page is one file that asks nobody for anything, and shows users' words as they are."""

import html.parser
import json
import re

import numpy as np
import pytest

from seqjax.errors import MissingPackageError
from seqjax.reports import page as module
from seqjax.reports.page import Figure, Row, Section, Table, Text, Toggle, page, plain

WORDS = "<b>a & b</b></script><img src=x onerror=alert(1)> \"q\" 'é'"
TRACE = {"type": "scatter", "x": [0, 1], "y": np.asarray([1.5, np.nan], np.float32), "name": plain(WORDS)}
FIGURE = {"data": [TRACE], "layout": {"title": {"text": plain(WORDS)}}}
TOGGLE = Toggle(WORDS, {"yaxis.type": "log"}, {"yaxis.type": "linear"}, traces=[0], checked=True)


class Elements(html.parser.HTMLParser):
    """Start tags with their attributes, and the text of each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append((self.tags[-1][0] if self.tags else "", data))

    def named(self, tag):
        """Attributes of the elements of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def full():
    table = Table([WORDS, "n", "loss"], [[WORDS, 1, 0.123456789], ["b", 2, None]], note=WORDS)
    parts = [Text(f"{WORDS}\n\nsecond"), table, Figure(**FIGURE, caption=WORDS, height=300, toggles=[TOGGLE])]
    sections = [Section(WORDS, parts), Section("two", [Figure(**FIGURE)]), Section("three", [])]
    return page(WORDS, sections, lead=WORDS, facts={WORDS: WORDS, "loss": 1.0})


def figures(text):
    """What the figures of a page hold."""
    found = re.findall(r'<script type="application/json">(.*?)</script></figure>', text)
    return [json.loads(content) for content in found]


def test_all_text_is_shown_as_it_is(full):
    elements = Elements(full)
    shown = {tag for tag, text in elements.texts if text == WORDS}
    assert shown == {"h1", "p", "a", "dt", "dd", "h2", "button", "td", "input", "figcaption", "title"}
    assert not elements.named("img")
    assert not elements.named("b")


def test_nothing_is_loaded(full):
    elements = Elements(full)
    assert not elements.named("link")
    assert not [attributes for _, attributes in elements.tags if "src" in attributes]
    assert all((link["href"] or "").startswith("#section-") for link in elements.named("a"))
    policy = next(meta["content"] for meta in elements.named("meta") if "http-equiv" in meta)
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    css = full[full.index("<style>") : full.index("</style>")]
    assert "url(" not in css
    assert "@import" not in css


def test_plotly_is_inside_once_and_only_for_figures(full):
    from plotly.offline import get_plotlyjs

    source = get_plotlyjs()
    assert full.count(source) == 1
    without = page("t", [Section("s", [Text("words")])])
    assert source not in without
    assert len(without) < 20_000


def test_figures_are_json_with_gaps_for_what_is_not_finite(full):
    first, second = figures(full)
    assert first == second
    assert first["data"][0]["y"] == [1.5, None]
    assert first["data"][0]["name"] == plain(WORDS)
    assert set(first["layout"]) == {"title"}


def test_figures_in_a_row_are_figures():
    text = page("t", [Section("s", [Row([Figure(**FIGURE), Figure(**FIGURE)])])])
    assert len(figures(text)) == 2
    assert '<div class="row"><figure>' in text


def test_a_folded_section_has_to_be_opened():
    elements = Elements(page("t", [Section("s", [Text("a")], folded=True), Section("u", [])]))
    names = [name for name, _ in elements.tags]
    assert names.count("details") == 1
    assert names.index("details") < names.index("summary") < names.index("h2") < names.index("p")


def test_toggles_hold_their_changes(full):
    (box,) = Elements(full).named("input")
    assert "checked" in box
    change = json.loads(box["data-change"] or "")
    assert change == {"on": {"yaxis.type": "log"}, "off": {"yaxis.type": "linear"}, "traces": [0]}


def test_numbers_are_short_to_read_and_exact_to_sort(full):
    cells = [cell for cell in Elements(full).named("td") if cell.get("class") == "number"]
    assert [cell["data-value"] for cell in cells] == ["1", "0.123456789", "2", ""]
    assert ">0.12346</td>" in full


def test_a_row_has_a_cell_for_each_column():
    with pytest.raises(ValueError, match="zip"):
        page("t", [Section("s", [Table(["a", "b"], [[1, 2, 3]])])])


def test_without_plotly_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r'plotly.*pip install "seqjax\[plots\]"'):
        page("t", [Section("s", [Figure(**FIGURE)])])
    assert "<h1>t</h1>" in page("t", [Section("s", [])])
