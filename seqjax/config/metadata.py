"""The metadata JSON that `preprocess` writes and every later command reads.

The documented keys come first and in the documented order; what seqjax adds follows them.
"""

from typing import Literal

from pydantic import Field, NonNegativeFloat

from seqjax.config.base import ConfigModel
from seqjax.config.schema import (
    ColumnKind,
    ColumnRole,
    DecimalMark,
    MissingReal,
    SeqLength,
    WindowFormat,
    kind_of,
)


class Statistics(ConfigModel):
    """Mean and sample standard deviation of a real column, over the rows that it was fitted on."""

    std: NonNegativeFloat
    mean: float


class Metadata(ConfigModel):
    """A preprocessed data set: columns, id maps, statistics, where the splits lie."""

    n_classes: dict[str, int]
    """Number of classes of each categorical column: the largest id + 1."""
    id_maps: dict[str, dict[str, int]]
    """Value to id of each categorical column, from 2 up; 0 is unknown (null, padding), 1 other (unseen)."""
    split_paths: list[str]
    """Path of each split: the project root as preprocess was given it, then data/[NAME]-split[i]."""
    column_types: dict[str, str]
    """Type of each column as stored: Int64 for categorical ones, Float64 or Float32 for real ones."""
    selected_columns_statistics: dict[str, Statistics]

    # How the data was preprocessed, by the keys of `PreprocessConfig`.
    seq_length: SeqLength | None = None
    split_method: Literal["within_sequence", "between_sequences", "by_value"] | None = None
    split_column: str | None = None
    split_values: list[int | float | str] | None = None
    split_ratios: list[float] | None = None
    stride_by_split: list[int] | None = None
    subsequence_start_mode: Literal["distribute", "exact"] | None = None
    history: bool = False
    fit_on: Literal["train", "all"] = "all"
    missing_real: MissingReal = "error"
    missing: dict[str, int] = Field(default_factory=dict)
    """Number of rows without a value, of each column that has any."""
    column_roles: dict[str, ColumnRole] | None = None
    missing_values: list[str] | None = None
    decimal: DecimalMark | None = None
    write_format: WindowFormat | None = None
    padding: Literal["null", "zero"] = "zero"
    """The form of padding in the long format; sequifier's own files hold zeros."""
    seqjax_version: str | None = None

    def kind(self, column: str) -> ColumnKind:
        """The kind of a column: categorical or real."""
        return kind_of(self.column_types[column])
