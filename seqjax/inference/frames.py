"""Tables of other libraries: taken as polars frames, and results given back in the caller's kind."""

from typing import Any

import polars as pl
import polars.selectors as cs
from pyarrow import interchange

FRAMES = (
    "a table of polars, pandas or pyarrow, or any with the data-frame interchange protocol or Arrow's C "
    "interface"
)


def frame_of(table: object) -> pl.DataFrame | None:
    """A table in memory as a polars frame, categories as text; None where it is no such table.

    Args:
      table: A polars or pandas frame, or an object with `__arrow_c_stream__`, `__arrow_c_array__` or
        `__dataframe__`.
    """
    frame = _polars(table)
    return None if frame is None else frame.with_columns(cs.by_dtype(pl.Categorical, pl.Enum).cast(pl.String))


def in_kind(frame: pl.DataFrame, table: object) -> Any:  # noqa: ANN401
    """A result in the kind of the table that it was computed from.

    Args:
      frame: The result.
      table: What the caller gave. One of a library that is not known here, and that cannot be made of Arrow
        data, gets a polars frame, which has both protocols.
    """
    library = type(table).__module__.partition(".")[0]
    if library == "pandas":
        return frame.to_pandas()
    if library == "pyarrow":
        arrow = frame.to_arrow()
        return arrow if hasattr(table, "to_batches") else arrow.combine_chunks().to_batches()[0]
    make = getattr(type(table), "from_arrow", None)
    return frame if make is None or isinstance(table, pl.DataFrame) else make(frame.to_arrow())


def _polars(table: Any) -> pl.DataFrame | None:  # noqa: ANN401
    if isinstance(table, pl.DataFrame):
        return table
    if type(table).__module__.partition(".")[0] == "pandas" and hasattr(table, "columns"):
        return pl.from_pandas(table)  # NaN is null, and the index is left out.
    if hasattr(table, "__arrow_c_stream__") or hasattr(table, "__arrow_c_array__"):
        return pl.DataFrame(table)
    if hasattr(table, "__dataframe__"):
        return pl.DataFrame(interchange.from_dataframe(table))
    return None
