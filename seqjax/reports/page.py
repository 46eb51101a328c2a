"""One HTML file that shows a report: text, tables and plotly figures, with all that they need inside.

A page loads nothing: plotly.js is copied into it (once, and only if there is a figure), and a content
security policy forbids the browser to ask anybody. All text is escaped. Colours, those of figures too, follow
the reader's light or dark scheme by the variables in page.css; page.js draws the figures, switches their
toggles and sorts tables.
"""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np

from seqjax.errors import MissingPackageError

PALETTE = (
    "#3b82f6",
    "#f0831e",
    "#22a06b",
    "#d6498f",
    "#8b6be0",
    "#12a5b5",
    "#c79a0a",
    "#e5534b",
    "#6f9c3d",
    "#a8653a",
)
"""Colours of a figure's traces, in turn; each is legible on a light and on a dark ground."""

# Unsafe evaluation is what plotly compiles its WebGL traces with.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "img-src data: blob:"
)

_LONG = 40
"""Characters from which on the text of a cell is broken into lines."""

Cell: TypeAlias = str | int | float | None


@dataclass(frozen=True)
class Text:
    """Paragraphs, with an empty line between them; line breaks stay."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows under headings; the reader can sort them. A column of numbers is aligned right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    """A cell for each column; None is an empty one."""
    note: str = ""


@dataclass(frozen=True)
class Toggle:
    """A check box over a figure."""

    label: str
    on: Mapping[str, object]
    """Changes of the layout while it is checked, such as `{"yaxis.type": "log"}`."""
    off: Mapping[str, object]
    traces: Sequence[int] = ()
    """Numbers of the traces that are shown only while it is checked."""
    checked: bool = False


@dataclass(frozen=True)
class Figure:
    """A plotly figure. Leave colours of ground, text and lines out: they follow the page.

    Names of traces and titles are read by plotly as its own markup: pass users' words through `plain`.
    """

    data: Sequence[Mapping[str, Any]]
    """Traces; arrays may be numpy's."""
    layout: Mapping[str, Any]
    caption: str = ""
    """A sentence below the figure, read out to those who cannot see it."""
    height: int = 380
    """Pixels."""
    toggles: Sequence[Toggle] = ()


@dataclass(frozen=True)
class Row:
    """Figures side by side, where the page is wide enough."""

    figures: Sequence[Figure]


Block: TypeAlias = Text | Table | Figure | Row


@dataclass(frozen=True)
class Section:
    """Blocks under a heading."""

    title: str
    blocks: Sequence[Block]
    folded: bool = False


def page(
    title: str, sections: Sequence[Section], *, lead: str = "", facts: Mapping[str, Cell] | None = None
) -> str:
    """The text of an HTML file.

    Args:
      title: The heading.
      sections: What is shown, in order.
      lead: A sentence or two below the heading.
      facts: The main results, by name; shown on top.

    Raises:
      MissingPackageError: There is a figure, and plotly is not installed.
    """
    figures = any(isinstance(block, Figure | Row) for section in sections for block in section.blocks)
    body = [
        f"<h1>{_text(title)}</h1>",
        f'<p class="lead">{_text(lead)}</p>' if lead else "",
        _contents(sections) if len(sections) > 2 else "",
        _facts(facts) if facts else "",
        *(_section(section, number) for number, section in enumerate(sections, 1)),
    ]
    scripts = [
        f"<script>{_plotly()}</script>" if figures else "",
        f'<script type="application/json" id="palette">{_json(PALETTE)}</script>',
        f"<script>{_resource('page.js')}</script>",
    ]
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(title)}</title>",
        f"<style>{_resource('page.css')}</style>",
    ]
    parts = ["<!doctype html>", '<html lang="en"><head>', *head, "</head><body><main>", *body, "</main>"]
    return "\n".join(line for line in [*parts, *scripts, "</body></html>", ""] if line) + "\n"


def plain(words: str) -> str:
    """Words as plotly shows them literally, in a title or in the name of a trace."""
    return html.escape(words, quote=False)


def _contents(sections: Sequence[Section]) -> str:
    links = (
        f'<a href="#section-{number}">{_text(section.title)}</a>'
        for number, section in enumerate(sections, 1)
    )
    return f"<nav>{' '.join(links)}</nav>"


def _facts(facts: Mapping[str, Cell]) -> str:
    rows = (
        f"<div><dt>{_text(name)}</dt><dd>{_text(_shown(value))}</dd></div>" for name, value in facts.items()
    )
    return f"<dl>{''.join(rows)}</dl>"


def _section(section: Section, number: int) -> str:
    blocks = "\n".join(_block(block) for block in section.blocks)
    heading = f'<h2 id="section-{number}">{_text(section.title)}</h2>'
    if section.folded:
        return f"<section><details><summary>{heading}</summary>\n{blocks}\n</details></section>"
    return f"<section>{heading}\n{blocks}\n</section>"


def _block(block: Block) -> str:
    match block:
        case Text():
            return "\n".join(f"<p>{_text(words)}</p>" for words in block.text.split("\n\n") if words.strip())
        case Table():
            return _table(block)
        case Figure():
            return _figure(block)
        case Row():
            return f'<div class="row">{"".join(map(_figure, block.figures))}</div>'


def _table(table: Table) -> str:
    number = [
        all(not isinstance(row[column], str) for row in table.rows) for column in range(len(table.columns))
    ]
    css = [' class="number"' if numeric else "" for numeric in number]
    heads = (
        f'<th scope="col"{kind}><button type="button">{_text(name)}</button></th>'
        for name, kind in zip(table.columns, css, strict=True)
    )
    rows = (
        "<tr>" + "".join(_cell(cell, kind) for cell, kind in zip(row, css, strict=True)) + "</tr>"
        for row in table.rows
    )
    note = f'<p class="note">{_text(table.note)}</p>' if table.note else ""
    lines = ["<table><thead><tr>", *heads, "</tr></thead><tbody>", *rows, "</tbody></table>"]
    return '<div class="table"><div class="scroll">' + "\n".join(lines) + f"</div>{note}</div>"


def _cell(value: Cell, css: str) -> str:
    if isinstance(value, str):
        long = ' class="long"' if len(value) > _LONG else ""
        return f"<td{long}>{_text(value)}</td>"
    exact = "" if value is None else value
    return f'<td{css} data-value="{exact}">{_text(_shown(value))}</td>'


def _figure(block: Figure) -> str:
    content = {"data": block.data, "layout": block.layout}
    boxes = "".join(_toggle(toggle) for toggle in block.toggles)
    toggles = f'<div class="toggles">{boxes}</div>' if boxes else ""
    caption = f"<figcaption>{_text(block.caption)}</figcaption>" if block.caption else ""
    return (
        f'<figure>{toggles}<div class="plot" style="height:{block.height}px"></div>{caption}'
        f'<script type="application/json">{_json(content)}</script></figure>'
    )


def _toggle(toggle: Toggle) -> str:
    change = _text(_json({"on": toggle.on, "off": toggle.off, "traces": list(toggle.traces)}))
    checked = " checked" if toggle.checked else ""
    return f'<label><input type="checkbox" data-change="{change}"{checked}>{_text(toggle.label)}</label>'


def _shown(value: Cell) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _text(words: object) -> str:
    return html.escape(str(words))


def _json(value: object) -> str:
    """JSON that can stand inside a script element (it holds no `<`), with gaps for what is not finite."""
    text = json.dumps(value, default=lambda array: np.asarray(array).tolist())
    finite = json.loads(text, parse_constant=lambda _: None)
    return json.dumps(finite, separators=(",", ":")).replace("<", "\\u003c")


def _resource(name: str) -> str:
    return resources.files("seqjax.reports").joinpath(name).read_text(encoding="utf-8").strip()


def _plotly() -> str:
    if find_spec("plotly") is None:
        raise MissingPackageError("A page with figures", package="plotly", extra="plots")
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()
