"""Result files that are written a part at a time, so that results need not fit into memory.

Each file appears under its name when all of them are complete; an error leaves none.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Protocol

import polars as pl
import pyarrow.parquet as pq

from seqjax.artifacts.atomic import replacing
from seqjax.artifacts.layout import part_of
from seqjax.config.formats import TableFormat

logger = logging.getLogger(__name__)

Tables = Mapping[Path, pl.DataFrame]
"""Tables by the files that they belong in."""


class TableWriter(Protocol):
    """An open file that takes rows."""

    def append(self, table: pl.DataFrame) -> None:
        """Writes more rows, of the same columns as those before."""
        ...

    def close(self) -> None:
        """Ends the file."""
        ...


class _CsvWriter:
    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._empty = True

    def append(self, table: pl.DataFrame) -> None:
        table.write_csv(self._file, include_header=self._empty)
        self._empty = False

    def close(self) -> None:
        self._file.close()


class _ParquetWriter:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None

    def append(self, table: pl.DataFrame) -> None:
        rows = table.to_arrow()
        self._writer = self._writer or pq.ParquetWriter(self._path, rows.schema, compression="zstd")
        self._writer.write_table(rows)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


_WRITERS: Mapping[TableFormat, Callable[[Path], TableWriter]] = {"csv": _CsvWriter, "parquet": _ParquetWriter}


def write_whole(parts: Iterable[Tables], write_format: TableFormat) -> list[Path]:
    """Writes tables that come in parts, each to one file, and returns the files.

    Args:
      parts: The next rows of each file; every part holds the same files.
      write_format: Format of the files.
    """
    rows: dict[Path, int] = {}
    with ExitStack() as files:
        writers: dict[Path, TableWriter] = {}
        for tables in parts:
            for place, table in tables.items():
                if place not in writers:
                    writers[place] = files.enter_context(_writing(place, write_format))
                writers[place].append(table)
                rows[place] = rows.get(place, 0) + len(table)
    for place, count in rows.items():
        logger.info("wrote %s (%d rows)", place, count)
    return list(rows)


def write_files(parts: Iterable[Tables], write_format: TableFormat, model_id: str) -> list[Path]:
    """Writes each part to a file of its own, in a folder that is replaced as a whole; returns the files.

    Args:
      parts: By the file that would hold all parts, the part's rows.
      write_format: Format of the files.
      model_id: The model's id.
    """
    written = []
    with ExitStack() as renamed_together:
        folders: dict[Path, Path] = {}
        for number, tables in enumerate(parts):
            for whole, table in tables.items():
                place = part_of(whole, model_id, number)
                if whole not in folders:
                    folders[whole] = renamed_together.enter_context(replacing(place.parent))
                    folders[whole].mkdir()
                with closing(_WRITERS[write_format](folders[whole] / place.name)) as writer:
                    writer.append(table)
                written.append(place)
    for place in dict.fromkeys(path.parent for path in written):
        logger.info("wrote %s (%d files)", place, sum(path.parent == place for path in written))
    return written


@contextmanager
def _writing(place: Path, write_format: TableFormat) -> Iterator[TableWriter]:
    with replacing(place) as temporary, closing(_WRITERS[write_format](temporary)) as writer:
        yield writer
