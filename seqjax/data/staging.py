"""csv on its way to typed columns: read once, as text, into Arrow files in a folder.

The types of csv are those of all its cells together, so they are known at the end of the table alone. `look`
counts the cells of some rows by what they can be read as, `settled` decides by the counts of all rows, and
`typed` applies the decision when pieces are read from the folder. Until then cells are stored in a form that
loses nothing: as numbers where these write the very same text, as text otherwise.
"""

import json
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl
import pyarrow as pa

from seqjax.console import progress
from seqjax.data.table_files import CsvFiles, Piece, TableFiles, first_rows

TYPES_AND_PLACES = "table.json"
"""Written last: the type of each column; by Arrow file, the csv file and the first row of each batch."""
Dtype: TypeAlias = Any
"""A polars type."""
TYPES: dict[str, Dtype] = {
    str(dtype): dtype for dtype in (pl.Int64(), pl.Int128(), pl.Float64(), pl.Boolean(), pl.String())
}
"""The types that a csv column can have, by name."""
FEW = 64
"""Cells that are tried before all are."""
WHOLE = r"^-?[0-9]+$"
DECIMAL = r"^[-+]?([0-9]*\.[0-9]+([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|[0-9]+\.|inf|NaN)$"

# The type of a column
# ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counts:
    """Numbers of cells by the narrowest type that reads them; empty cells are in none."""

    boolean: int = 0
    integer: int = 0
    """Whole numbers of at most 64 bits."""
    wide: int = 0
    """Whole numbers of at most 128 bits."""
    decimal: int = 0
    text: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*map(sum, zip(astuple(self), astuple(other), strict=True)))


def look(cells: pl.Series) -> tuple[Counts, pl.Series]:
    """Counts the cells of some rows by type.

    Args:
      cells: (N,) text; empty cells are missing.

    Returns:
      The counts, and the cells as numbers if these write the same texts, else as they are.
    """
    n = len(cells) - cells.null_count()
    integers = _numbers(cells, pl.Int64())
    if integers is not None:
        return Counts(integer=n), integers
    decimals = _numbers(cells, pl.Float64())
    if decimals is not None:
        return Counts(decimal=n), decimals
    return _counts(cells, n), cells


def settled(counts: Counts) -> Dtype:
    """The type of a column with these cells: the narrowest that reads all, text where there are none."""
    numbers = counts.integer + counts.wide + counts.decimal
    if counts.text or (counts.boolean and numbers):
        return TYPES["String"]
    if counts.boolean:
        return TYPES["Boolean"]
    if counts.decimal:
        return TYPES["Float64"]
    return TYPES["Int128" if counts.wide else "Int64" if counts.integer else "String"]


def typed(cells: pl.Series, dtype: Dtype) -> pl.Series:
    """Cells, as `look` returned them, as the type of their column."""
    if isinstance(dtype, pl.Boolean) and isinstance(cells.dtype, pl.String):
        return cells.str.to_lowercase() == "true"
    return cells.cast(dtype)


def _numbers(cells: pl.Series, dtype: Dtype) -> pl.Series | None:
    """The cells as numbers of a type, if these write the same texts."""
    if len(cells) > FEW and _numbers(cells.head(FEW), dtype) is None:
        return None
    numbers = cells.cast(dtype, strict=False)
    same = numbers.null_count() == cells.null_count() and (numbers.cast(pl.String) == cells).all()
    return numbers if same else None


def _counts(cells: pl.Series, n: int) -> Counts:
    if cells.cast(pl.Float64, strict=False).count() == 0:
        boolean = int(cells.str.to_lowercase().is_in(["true", "false"]).sum())
        return Counts(boolean=boolean, text=n - boolean)
    decimal = int(cells.str.contains(DECIMAL).sum())
    if decimal == n:
        return Counts(decimal=n)
    whole = cells.filter(cells.str.contains(WHOLE))
    integer, up_to_wide = (whole.cast(dtype, strict=False).count() for dtype in (pl.Int64, pl.Int128))
    # Among numbers a boolean is a text like any other.
    return Counts(integer=integer, wide=up_to_wide - integer, decimal=decimal, text=n - up_to_wide - decimal)


# Files in a folder
# ------------------------------------------------------------------------------------


class StagedFiles(TableFiles):
    """csv files as they were stored in a folder."""

    def __init__(self, source: CsvFiles, folder: Path) -> None:
        super().__init__(source.files, source.headers)
        self._folder = folder
        content = json.loads((folder / TYPES_AND_PLACES).read_text(encoding="utf-8"))
        self._types: dict[str, str] = content["types"]
        self._places: list[list[tuple[str, int]]] = content["places"]

    def pieces(self, columns: Sequence[str]) -> Iterator[Piece]:
        """Reads the rows; as `TableFiles.pieces`."""
        number = {name: number for number, name in enumerate(self._types)}
        options = pa.ipc.IpcReadOptions(included_fields=sorted(number[name] for name in columns))
        for shard, places in enumerate(self._places):
            with pa.OSFile(_place(self._folder, shard)) as file:
                reader = pa.ipc.open_file(file, options=options)
                for batch, (source, row) in enumerate(places):
                    frame = pl.DataFrame(reader.get_batch(batch))
                    cells = {
                        name: typed(frame[str(number[name])], TYPES[self._types[name]]) for name in columns
                    }
                    yield Piece(Path(source), row, pl.DataFrame(cells))


@dataclass
class _Column:
    """A column on its way: the counts of its cells, and the form that the newest rows were stored in."""

    counts: Counts = field(default_factory=Counts)
    form: Dtype = field(default_factory=pl.Null)

    def stored(self, cells: pl.Series) -> pl.Series:
        """Counts cells and gives them the form to store: numbers as long as all before were, else text."""
        if self.counts.text:
            return cells  # Text, whatever follows.
        counts, narrow = look(cells)
        if counts == Counts():
            return cells.cast(self.form)
        self.counts += counts
        if self.form not in (pl.Null(), narrow.dtype):
            narrow = cells
        self.form = narrow.dtype
        return narrow


def staged(
    source: CsvFiles,
    columns: Sequence[str],
    folder: Path,
    *,
    texts: Collection[str] = (),
    max_rows: int | None = None,
) -> StagedFiles:
    """Stores csv in a folder, unless it has been.

    Args:
      source: The files.
      columns: The columns to store.
      folder: Where; what an interrupted call left there is replaced.
      texts: Columns that are text whatever their cells look like.
      max_rows: Rows to store, the first ones; None stores all.

    Raises:
      DataError: A file cannot be read.
    """
    if not (folder / TYPES_AND_PLACES).is_file():
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        state = [_Column(Counts(text=1)) if name in texts else _Column() for name in columns]
        places = _store(first_rows(source.pieces(columns), max_rows), state, folder)
        types = {name: str(settled(column.counts)) for name, column in zip(columns, state, strict=True)}
        text = json.dumps({"types": types, "places": places})
        (folder / TYPES_AND_PLACES).write_text(text, encoding="utf-8")
    return StagedFiles(source, folder)


def _store(pieces: Iterable[Piece], state: Sequence[_Column], folder: Path) -> list[list[tuple[str, int]]]:
    """Writes the rows; returns the file and first row that each batch comes from, by Arrow file."""
    places: list[list[tuple[str, int]]] = []
    schema = writer = None
    with ExitStack() as files, progress("Reading", None, "rows") as bar:
        for piece in pieces:
            # Named by number, since a csv column may have no name.
            text = piece.frame.rechunk().get_columns()
            stored = [
                column.stored(cells.alias(str(n)))
                for n, (column, cells) in enumerate(zip(state, text, strict=True))
            ]
            table = pl.DataFrame(stored).to_arrow(compat_level=pl.CompatLevel.oldest())
            if writer is None or table.schema != schema:
                files.close()
                schema = table.schema
                writer = files.enter_context(pa.ipc.new_file(_place(folder, len(places)), schema))
                places.append([])
            row = piece.first_row
            for batch in table.to_batches():
                writer.write_batch(batch)
                places[-1].append((str(piece.file), row))
                row += batch.num_rows
            bar.advance(table.num_rows)
    return places


def _place(folder: Path, number: int) -> str:
    return str(folder / f"{number:05d}.arrow")
