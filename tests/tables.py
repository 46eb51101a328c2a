"""Raw tables that are whole in memory, and what is learnt from them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from seqjax.config.formats import TableFormat
from seqjax.config.schema import ColumnKind
from seqjax.data.chunks import Unsorted, in_order, sort_on_disk, sorted_tables
from seqjax.data.columns import Encoding
from seqjax.data.fitting import Learner
from seqjax.data.table_files import TypesWidened
from seqjax.data.tables import Table, TableReader, Wanted, joined, open_files


def read_table(
    path: Path,
    read_format: TableFormat,
    *,
    selected_columns: Sequence[str] | None = None,
    max_rows: int | None = None,
) -> Table:
    """All rows of a table, in order: what the steps see as a stream."""
    files = open_files(path, read_format, max_rows=max_rows)
    reader = TableReader(files, Wanted(selected_columns, max_rows=max_rows))
    while True:
        try:
            return joined(_in_order(reader))
        except TypesWidened:
            continue


def _in_order(reader: TableReader) -> list[Table]:
    try:
        return list(in_order(reader.pieces()))
    except Unsorted:
        with TemporaryDirectory() as folder:
            sorted_rows = Path(folder) / "sorted"
            sort_on_disk(reader.pieces, reader.pieces(keys_only=True), sorted_rows)
            return list(sorted_tables(sorted_rows, {}))


def learn(features: pl.DataFrame, kinds: Mapping[str, ColumnKind]) -> Encoding:
    """The id maps and statistics of a table's rows."""
    learner = Learner(kinds)
    learner.add(learner.look(features))
    return learner.encoding()
