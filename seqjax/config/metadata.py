"""The metadata JSON that `preprocess` writes and every later command reads.

The documented keys come first and in the documented order; what seqjax adds follows them.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, model_validator

from seqjax.config.base import ConfigModel
from seqjax.config.keys import KeyColumns
from seqjax.config.schema import (
    ColumnKind,
    ColumnRole,
    DecimalMark,
    MissingReal,
    SeqLength,
    WindowFormat,
    kind_of,
)

SEQUIFIERS_EPSILON = 1e-9


class Statistics(ConfigModel):
    """Mean and sample standard deviation of a real column, over the rows that it was fitted on.

    A value x of the table is standardised to v = (x - mean) / s, and x = v s + mean. The scale s is the
    standard deviation, and 1 where that is 0: where the column is constant.
    """

    std: NonNegativeFloat
    mean: float
    formula: Literal["sequifier"] | None = None
    """Of what sequifier made: v = (x - mean) / (std + 1e-9), and x = v (std - 1e-9) + mean."""

    @property
    def divisor(self) -> float:
        """The number by which a distance from the mean is divided."""
        return self.std + SEQUIFIERS_EPSILON if self.formula else self.std or 1.0

    @property
    def factor(self) -> float:
        """The number that a standardised value is multiplied by on its way back."""
        return self.std - SEQUIFIERS_EPSILON if self.formula else self.std or 1.0

    @property
    def unit(self) -> float:
        """The distance in the table between two standardised values that are 1 apart."""
        return abs(self.factor)


class Metadata(KeyColumns):
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
    """Mean and standard deviation of each real column; a file without `seqjax_version` has sequifier's."""

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
    value_types: dict[str, str] = Field(default_factory=dict)
    """Type of each categorical column's values in the table, by polars' name; text where it is not named."""
    seqjax_version: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _sequifiers_formula(cls, values: Any) -> Any:  # noqa: ANN401 (what pydantic hands over)
        """Marks the statistics of a file that sequifier wrote."""
        if not isinstance(values, Mapping) or values.get("seqjax_version"):
            return values
        key, rows = "selected_columns_statistics", values.get("selected_columns_statistics")
        if not isinstance(rows, Mapping):
            return values
        marked = {
            name: {"formula": "sequifier", **row} if isinstance(row, Mapping) else row
            for name, row in rows.items()
        }
        return {**values, key: marked}

    def kind(self, column: str) -> ColumnKind:
        """The kind of a column: categorical or real."""
        return kind_of(self.column_types[column])
