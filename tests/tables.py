"""Raw tables that are whole in memory, and what is learnt from them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from seqjax.config.formats import TableFormat
from seqjax.config.schema import ColumnKind
from seqjax.data.columns import Encoding
from seqjax.data.fitting import Learner
from seqjax.data.sorting import OrderedRows
from seqjax.data.tables import Table, TableReader, Wanted, joined, open_files


def read_table(
    path: Path,
    read_format: TableFormat,
    *,
    selected_columns: Sequence[str] | None = None,
    max_rows: int | None = None,
) -> Table:
    """All rows of a table, in order: what the steps see as a stream."""
    reader = TableReader(
        open_files(path, read_format, max_rows=max_rows), Wanted(selected_columns, max_rows=max_rows)
    )
    with TemporaryDirectory() as folder:
        rows = OrderedRows(reader.typed(Path(folder) / "table", {}), Path(folder) / "sorted")
        return joined(list(rows.tables()))


def learn(features: pl.DataFrame, kinds: Mapping[str, ColumnKind]) -> Encoding:
    """The id maps and statistics of a table's rows."""
    learner = Learner(kinds)
    learner.add(learner.look(features))
    return learner.encoding()
