"""Result files that are written a part at a time, so that results need not fit into memory.

Each file appears under its name when all of them are complete; an error leaves none.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from itertools import chain, repeat
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from seqjax.artifacts.atomic import replacing
from seqjax.artifacts.layout import part_of
from seqjax.config.schema import TableFormat

logger = logging.getLogger(__name__)

Tables = Mapping[Path, pl.DataFrame]
"""Tables by the files that they belong in."""


@contextmanager
def _appending(path: Path, write_format: TableFormat) -> Iterator[Callable[[pl.DataFrame], None]]:
    """Yields a function that writes more rows, of the same columns as those before, to a file."""
    with ExitStack() as files:
        if write_format == "csv":
            file = files.enter_context(path.open("wb"))
            is_first = chain([True], repeat(False))
            yield lambda table: table.write_csv(file, include_header=next(is_first))
            return
        writers: list[pq.ParquetWriter] = []

        def append(table: pl.DataFrame) -> None:
            rows = table.to_arrow()
            if not writers:
                writer = pq.ParquetWriter(path, rows.schema, compression="zstd")
                writers.append(files.enter_context(writer))
            writers[0].write_table(rows)

        yield append


def write_whole(parts: Iterable[Tables], write_format: TableFormat) -> list[Path]:
    """Writes tables that come in parts, each to one file, and returns the files.

    Args:
      parts: The next rows of each file; every part holds the same files.
      write_format: Format of the files.
    """
    rows: dict[Path, int] = {}
    before: dict[Path, str] = {}
    with ExitStack() as files:
        append: dict[Path, Callable[[pl.DataFrame], None]] = {}
        for tables in parts:
            for place, table in tables.items():
                if place not in append:
                    before[place] = _replaced(place)
                    temporary = files.enter_context(replacing(place))
                    append[place] = files.enter_context(_appending(temporary, write_format))
                append[place](table)
                rows[place] = rows.get(place, 0) + len(table)
    for place, count in rows.items():
        logger.info("wrote %s (%d rows)%s", place, count, before[place])
    return list(rows)


def write_files(parts: Iterable[Tables], write_format: TableFormat, model_id: str) -> list[Path]:
    """Writes each part to a file of its own, in a folder that is replaced as a whole; returns the files.

    Args:
      parts: By the file that would hold all parts, the part's rows.
      write_format: Format of the files.
      model_id: The model's id.
    """
    written = []
    before: dict[Path, str] = {}
    with ExitStack() as renamed_together:
        folders: dict[Path, Path] = {}
        for number, tables in enumerate(parts):
            for whole, table in tables.items():
                place = part_of(whole, model_id, number)
                if whole not in folders:
                    before[place.parent] = _replaced(place.parent)
                    folders[whole] = renamed_together.enter_context(replacing(place.parent))
                    folders[whole].mkdir()
                with _appending(folders[whole] / place.name, write_format) as append:
                    append(table)
                written.append(place)
    for place in dict.fromkeys(path.parent for path in written):
        count = sum(path.parent == place for path in written)
        logger.info("wrote %s (%d files)%s", place, count, before[place])
    return written


def _replaced(place: Path) -> str:
    """The end of a line about results in whose place others were, of whatever run."""
    if not place.exists():
        return ""
    written = datetime.fromtimestamp(place.stat().st_mtime).astimezone()
    return f", in place of those of {written:%Y-%m-%d %H:%M}: give a run an output_name to keep both"
