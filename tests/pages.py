"""Reads HTML pages back: their words, tables and figures, by section."""

import html
import json
import re
from typing import Any


def text_of(page: str) -> str:
    """The words that a reader sees, with one space between them."""
    body = re.sub(
        r"<script.*?</script>", " ", page[page.index("<main>") : page.index("</main>")], flags=re.DOTALL
    )
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", body)))


def section(page: str, title: str) -> str:
    """The HTML of a section."""
    (found,) = [part for part in page.split("<section>")[1:] if f">{html.escape(title)}</h2>" in part]
    return found


def figures(page: str, title: str) -> list[dict[str, Any]]:
    """The figures of a section."""
    found = re.findall(r'<script type="application/json">(.*?)</script></figure>', section(page, title))
    return [json.loads(text) for text in found]


def figures_titled(page: str, title: str) -> dict[str, dict[str, Any]]:
    """The figures of a section, by the title of their y axis."""
    return {found["layout"]["yaxis"]["title"]["text"]: found for found in figures(page, title)}


def names(figure: dict[str, Any]) -> list[str]:
    """The names of a figure's traces."""
    return [trace["name"] for trace in figure["data"]]


def table(page: str, title: str) -> list[list[str]]:
    """The rows of a section's table, without the heading."""
    body = re.search(r"<tbody>(.*?)</tbody>", section(page, title), flags=re.DOTALL)
    assert body is not None
    rows = re.findall(r"<tr>(.*?)</tr>", body[1], flags=re.DOTALL)
    return [[html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)] for row in rows]
