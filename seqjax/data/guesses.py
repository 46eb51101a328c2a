"""The type of a csv column, which its cells decide together, and what of that the user is told.

Where all that is known of a column is its cells, some columns are refused: those that seem to be of numbers,
but hold a number in a writing of its own or a few texts. Taken for labels, such a column would have a class
for every number, and no one would notice.
"""

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import polars as pl

from seqjax.data.cells import READABLE, Cell, Counts, Dtype, Reading, look, settled
from seqjax.data.table_files import Piece
from seqjax.errors import DataError

logger = logging.getLogger(__name__)

EXAMPLES = 3
"""Cells of a kind that a message names."""
FEW = 0.1
"""The share of cells below which they are exceptions."""
WORDS = (Cell.TEXT, Cell.BOOLEAN, Cell.CODE)
OWN_WAY = (Cell.SPELLED, Cell.SIGNED)
"""Numbers in a writing of their own."""


class Example(NamedTuple):
    """A cell and its place."""

    file: Path
    row: int
    text: str


@dataclass
class Guess:
    """A column as far as it was read."""

    name: str
    how: Reading
    counts: Counts = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    """The number of cells of each text that means a missing value."""
    examples: dict[Cell, list[Example]] = field(default_factory=dict)
    """The first cells of each kind that may need a word."""

    def look(self, piece: Piece, cells: pl.Series) -> pl.Series:
        """Counts some cells; returns them without those that mean a missing value, see `cells.look`."""
        looked = look(cells, self.how)
        self.counts += looked.counts
        if self.how.role == "guess":
            for text, count in looked.texts.filter(cell=Cell.MISSING).select("text", "count").rows():
                self.missing[text] += count
            for cell in (*WORDS, *OWN_WAY):
                self._note(cell, piece, cells, looked.texts.filter(cell=cell)["text"])
        return looked.cells

    def _note(self, cell: Cell, piece: Piece, cells: pl.Series, texts: pl.Series) -> None:
        examples = self.examples.setdefault(cell, [])
        if len(texts) and len(examples) < EXAMPLES:
            rows = cells.is_in(texts.implode()).arg_true()[: EXAMPLES - len(examples)].to_list()
            examples += [Example(piece.file, piece.first_row + row + 1, cells[row]) for row in rows]

    def dtype(self) -> Dtype:
        """The type of the column, after the last row.

        Raises:
          DataError: The column seems to be of numbers, but some of its cells are none.
        """
        dtype = settled(self.counts, self.how.role)
        if self.how.role == "guess" and isinstance(dtype, pl.String):
            self._check_numbers()
            self._tell()
        return dtype

    def _check_numbers(self) -> None:
        words, own_way = self._count(WORDS), self._count(OWN_WAY)
        if own_way and not words:
            points = "" if self.how.decimal == "," or not self._has_commas() else ', or say decimal: ","'
            raise DataError(
                f"{self._shown(OWN_WAY)}. It is a number, but not as programs write it. Write numbers like "
                f"-1234.5, without marks for thousands, units and plus signs{points}. If they are labels "
                f"rather than numbers, say column_roles: {{{self.name}: text}}."
            )
        if words and 2 * (self.counts[Cell.DECIMAL] + own_way) >= self._present:
            first = self._first(WORDS).text
            raise DataError(
                f"{self._shown(WORDS)}, but most cells of this column are numbers. If such a cell means a "
                f"missing value, say missing_values: [{first!r}]; if the column holds labels rather than "
                f"numbers, column_roles: {{{self.name}: text}}; else correct it."
            )

    def _tell(self) -> None:
        """Logs what was chosen for the user in a column of text."""
        words = self._count(WORDS)
        remedy = f"column_roles: {{{self.name}: text}}"
        texts = [text for text, _ in self.missing.most_common() if text.strip()]
        if texts and self._present:
            count = sum(self.missing[text] for text in texts)
            logger.warning(
                "Column %r: %d cells (%s) are taken for missing values. If they are labels, say %s.",
                self.name,
                count,
                ", ".join(map(repr, texts[:EXAMPLES])),
                remedy,
            )
        if self.counts[Cell.CODE] == words and self._count(READABLE) == self._present and words:
            logger.info(
                "Column %r is text, since some numbers begin with a zero (row %d: %r).",
                self.name,
                *self._first(WORDS)[1:],
            )
        elif 0 < words < FEW * self._present:
            logger.warning("%s; so its values are text, its numbers too.", self._shown(WORDS))

    def _shown(self, cells: tuple[Cell, ...]) -> str:
        """The first of some cells, and where others are."""
        first, count = self._first(cells), self._count(cells)
        rows = [str(example.row) for example in self._examples(cells) if example.file == first.file]
        more = f" ({count} of {self._present} cells are alike, first in rows {', '.join(rows)})"
        place = f"{first.file}: column {self.name!r}, row {first.row} holds {first.text!r}"
        return place + (more if count > 1 else "")

    def _examples(self, cells: tuple[Cell, ...]) -> list[Example]:
        """The first examples, in the order of rows."""
        examples = [example for cell in cells for example in self.examples.get(cell, ())]
        files = list(dict.fromkeys(example.file for example in examples))
        return sorted(examples, key=lambda example: (files.index(example.file), example.row))[:EXAMPLES]

    def _first(self, cells: tuple[Cell, ...]) -> Example:
        return self._examples(cells)[0]

    def _count(self, cells: tuple[Cell, ...]) -> int:
        return sum(self.counts[cell] for cell in cells)

    def _has_commas(self) -> bool:
        return any("," in example.text for example in self._examples(OWN_WAY))

    @property
    def _present(self) -> int:
        return self.counts.total() - self.counts[Cell.MISSING]
