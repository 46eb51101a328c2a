"""csv on its way to typed columns: read once, as text, into Arrow files in a folder.

The types of csv are those of all its cells together (see `cells.py` and `guesses.py`), so they are known at
the end of the table alone. Until then cells are stored in a form that loses nothing: as numbers where these
write the very same text, as text otherwise.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pyarrow as pa

from seqjax.console import progress
from seqjax.data.cells import TYPES, Dtype, Reading, typed
from seqjax.data.guesses import Guess
from seqjax.data.table_files import CsvFiles, Piece, TableFiles, first_rows

TYPES_AND_PLACES = "table.json"
"""Written last: the type of each column; by Arrow file, the csv file and the first row of each batch."""


class StagedFiles(TableFiles):
    """csv files as they were stored in a folder."""

    def __init__(self, source: CsvFiles, columns: Mapping[str, Reading], folder: Path) -> None:
        super().__init__(source.files, source.headers)
        self._columns = columns
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
                        name: typed(frame[str(number[name])], TYPES[self._types[name]], self._columns[name])
                        for name in columns
                    }
                    yield Piece(Path(source), row, pl.DataFrame(cells))


@dataclass
class _Column:
    """A column on its way: what its cells are, and the form that the newest rows were stored in."""

    guess: Guess
    form: Dtype = field(default_factory=pl.Null)

    def stored(self, piece: Piece, cells: pl.Series) -> pl.Series:
        """Counts cells and gives them the form to store: numbers as long as all before were, else text."""
        present = self.guess.look(piece, cells)
        if present.null_count() == len(present):
            return present.cast(self.form)
        if self.form not in (pl.Null(), present.dtype):
            present = present.cast(pl.String)
        self.form = present.dtype
        return present


def staged(
    source: CsvFiles, columns: Mapping[str, Reading], folder: Path, *, max_rows: int | None = None
) -> StagedFiles:
    """Stores csv in a folder, unless it has been.

    Args:
      source: The files.
      columns: The columns to store, and what is known of them.
      folder: Where; what an interrupted call left there is replaced.
      max_rows: Rows to store, the first ones; None stores all.

    Raises:
      DataError: A file cannot be read, or a column has no type (see `guesses.py`).
    """
    if not (folder / TYPES_AND_PLACES).is_file():
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        state = [_Column(Guess(name, how)) for name, how in columns.items()]
        places = _store(first_rows(source.pieces(list(columns)), max_rows), state, folder)
        types = {column.guess.name: str(column.guess.dtype()) for column in state}
        text = json.dumps({"types": types, "places": places})
        (folder / TYPES_AND_PLACES).write_text(text, encoding="utf-8")
    return StagedFiles(source, columns, folder)


def _store(pieces: Iterable[Piece], state: Sequence[_Column], folder: Path) -> list[list[tuple[str, int]]]:
    """Writes the rows; returns the file and first row that each batch comes from, by Arrow file."""
    places: list[list[tuple[str, int]]] = []
    schema = writer = None
    with ExitStack() as files, progress("Reading", None, "rows") as bar:
        for piece in pieces:
            # Named by number, since a csv column may have no name.
            text = piece.frame.rechunk().get_columns()
            stored = [
                column.stored(piece, cells.alias(str(n)))
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
