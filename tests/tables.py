"""Raw tables that are whole in memory, what is learnt from them, and windows compared."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from seqjax.config.schema import ColumnKind, TableFormat
from seqjax.data.columns import Encoding
from seqjax.data.fitting import Learner
from seqjax.data.sorting import OrderedRows
from seqjax.data.tables import Selection, Table, TableReader, open_files
from seqjax.windows.windows import Windows


def read_table(
    path: Path, read_format: TableFormat, *, selected_columns: Sequence[str] | None = None, **chosen: Any
) -> Table:
    """All rows of a table, in order: what the steps see as a stream."""
    reader = TableReader(open_files(path, read_format), Selection(selected_columns, **chosen))
    with TemporaryDirectory() as folder:
        rows = OrderedRows(reader.typed(Path(folder) / "table"), Path(folder) / "sorted")
        chunks = list(rows.chunks())
        return Table(pl.concat([chunk.frame for chunk in chunks]), chunks[0].roles)


def learn(features: pl.DataFrame, kinds: Mapping[str, ColumnKind]) -> Encoding:
    """The id maps and statistics of a table's rows."""
    learner = Learner(kinds)
    learner.add(learner.look(features))
    return learner.encoding()


def assert_same_windows(found: Windows, expected: Windows) -> None:
    """The windows have the same keys and items, in the same order."""
    assert len(found) == len(expected)
    for one, other in zip(found.keys(), expected.keys(), strict=True):
        np.testing.assert_array_equal(one, other)
    every = np.arange(len(expected))
    batch, like = found.gather(every), expected.gather(every)
    np.testing.assert_array_equal(batch.padding, like.padding)
    assert batch.columns.keys() == like.columns.keys()
    for name, values in batch.columns.items():
        np.testing.assert_allclose(values, like.columns[name])
