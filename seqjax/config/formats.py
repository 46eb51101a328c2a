"""The names of file formats, as configurations and metadata write them."""

from typing import Literal

TableFormat = Literal["csv", "parquet"]
"""Of tables: raw ones, and results."""
WindowFormat = Literal[TableFormat, "pt", "arrow"]
"""Of preprocessed data: windows in a table, torch shards, or Arrow shards."""
