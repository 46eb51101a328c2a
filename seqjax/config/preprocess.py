"""The configuration of `seqjax preprocess`."""

import math
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, ValidationInfo, field_validator

from seqjax.config.base import PositiveShare
from seqjax.config.keys import KeyColumns
from seqjax.config.schema import (
    ColumnRole,
    DecimalMark,
    MissingReal,
    SeqLength,
    Stride,
    TableFormat,
    WindowFormat,
)

CutOff = int | float | str
Value = TypeVar("Value")


def _ascending(values: list[CutOff]) -> list[CutOff]:
    texts = [value for value in values if isinstance(value, str)]
    numbers = [value for value in values if not isinstance(value, str)]
    if texts and numbers:
        raise ValueError("must be all numbers or all text.")
    if sorted(set(texts)) != texts or sorted(set(numbers)) != numbers:
        raise ValueError(f"must be in ascending order, each once (found {values}).")
    return values


class PreprocessConfig(KeyColumns):
    """Turns a table of event sequences into windows of fixed length."""

    makes_project: ClassVar[bool] = True
    project_root: str
    """Root folder of the project; relative paths start here. Usually '.'."""
    data_path: str
    """Input table: a file, or a folder of files."""
    read_format: TableFormat = "csv"
    """Format of the input table."""
    write_format: WindowFormat = "parquet"
    """Format of the output: one file of windows per split (csv, parquet), or a folder of shards, compact ones
    (arrow) or torch files (pt)."""
    padding: Literal["zeros"] | None = None
    """Mark of padded slots in csv and parquet: zeros, which sequifier reads; null is none."""
    merge_output: bool | None = None
    """One file a split, or a folder: must be true for csv and false for pt; null is one file, or what the
    format needs."""
    continue_preprocessing: bool = False
    """Take up a run that was interrupted, if there is one; the config and the input must be the same."""
    selected_columns: list[str] | None = None
    """Feature columns to use; null takes every column but those of ids and times."""
    max_rows: NonNegativeInt | None = None
    """Use only the first rows of the input, for a quick try; null or 0 uses all."""
    metadata_config_path: str | None = None
    """The metadata JSON of an earlier run whose id maps and statistics are applied; nothing is learnt."""
    use_precomputed_maps: list[str] | None = None
    """Columns that must have an id map in configs/id_maps/[COLUMN].json; maps that are there are used
    anyway."""
    column_roles: dict[str, ColumnRole] | None = None
    """Columns that have another kind than their type gives, such as {year: real, grade: categorical}; text is
    a category that is taken as it is written (007, NA)."""
    max_categories: dict[str, PositiveInt] | None = None
    """Number of values of a column that get an id, the most frequent ones; the rest become other."""
    missing_real: MissingReal = "error"
    """Meaning of an empty cell or NaN in a real column: an error, or no value, so that it is neither
    predicted nor scored and the model sees the mean (mean), or the mean and that it is missing (mask)."""
    missing_values: list[str] | None = None
    """Values that mean a missing one, such as ["-999", "?"], besides an empty cell of csv, NaN, nan, NA, N/A,
    null, None and #N/A."""
    decimal: DecimalMark | None = None
    """Of csv: what stands before the decimals of a number, "." or ","; null is a point, or as
    metadata_config_path says."""
    seq_length: SeqLength
    """Length of the context window."""
    split_method: Literal["within_sequence", "between_sequences", "by_value"] = "within_sequence"
    """Unit of division: the rows of each sequence, whole sequences at random, or rows by a column's value."""
    split_column: str | None = None
    """The column whose value says the split of a row (split_method: by_value)."""
    split_values: Annotated[list[CutOff], Field(min_length=1), AfterValidator(_ascending)] | None = None
    """Ascending cut-offs of split_column: rows below the first are in split 0, and so on."""
    split_ratios: Annotated[list[PositiveShare], Field(min_length=1)] | None = None
    """Share of each split, such as [0.8, 0.1, 0.1]; sums to 1. Required, unless split_method is by_value."""
    stride_by_split: list[Stride] | None = None
    """Step between windows, one per split; null uses seq_length."""
    subsequence_start_mode: Literal["distribute", "exact"] = "distribute"
    """Spread window starts evenly over a sequence, or insist on exact strides."""
    history: bool = True
    """Let the windows of a split begin with rows from before it, as context that is never a target; false
    pads them instead, as sequifier does."""
    fit_on: Literal["train", "all"] = "train"
    """Rows from which id maps and statistics are taken: the first split, or every split."""
    seed: NonNegativeInt = 1010
    """Random seed, for split_method: between_sequences."""
    n_cores: NonNegativeInt | None = None
    """Threads that encode; null or 0 uses all cores. The result does not depend on it."""
    process_by_file: bool = True
    """Accepted and without effect: input is always read in pieces, whatever files it is cut into."""
    batches_per_file: PositiveInt = 1024
    """Sequences per file of write_format: pt, and of parquet with merge_output: false."""

    @property
    def strides(self) -> list[int]:
        """The step between windows of each split."""
        return self.stride_by_split or [self.seq_length] * self.n_splits

    @property
    def n_splits(self) -> int:
        """Number of splits."""
        return len(self.split_ratios or ()) or len(self.split_values or ()) + 1

    @field_validator("padding")
    @classmethod
    def _format_has_marks(cls, padding: str | None, info: ValidationInfo) -> str | None:
        write_format = info.data.get("write_format")
        if padding == "zeros" and write_format == "arrow":
            raise ValueError("is of csv and parquet; arrow says which slots are padded.")
        return padding

    @field_validator("merge_output")
    @classmethod
    def _format_can_be_merged(cls, merge: bool | None, info: ValidationInfo) -> bool | None:
        write_format = info.data.get("write_format")
        if merge is False and write_format == "csv":
            raise ValueError(
                "must be true with write_format: csv, which writes one file a split; use write_format: "
                "parquet for a folder of files."
            )
        if merge and write_format == "pt":
            raise ValueError(
                "must be false with write_format: pt, which writes a folder of torch files a split; set "
                "merge_output: false, or leave it out."
            )
        return merge

    @field_validator("use_precomputed_maps", "column_roles", "max_categories", "fit_on")
    @classmethod
    def _nothing_is_learnt_twice(cls, value: Value, info: ValidationInfo) -> Value:
        if info.data.get("metadata_config_path") is not None and value not in (None, "train"):
            raise ValueError(
                "must be left out where metadata_config_path is given: that file says the kind, id map and "
                "statistics of every column."
            )
        return value

    @field_validator("max_categories")
    @classmethod
    def _most_frequent_of_a_category(
        cls, most: dict[str, int] | None, info: ValidationInfo
    ) -> dict[str, int] | None:
        real = [name for name in most or () if (info.data.get("column_roles") or {}).get(name) == "real"]
        if real:
            raise ValueError(f"names {real[0]!r}, which column_roles makes real; only categories have ids.")
        return most

    @field_validator("split_column", "split_values")
    @classmethod
    def _cut_offs_where_they_count(cls, value: Value, info: ValidationInfo) -> Value:
        method = info.data.get("split_method", "by_value" if value else None)
        by_value = method == "by_value"
        if value is not None and not by_value:
            raise ValueError("is used by split_method: by_value alone; set that, or leave this key out.")
        if value is None and by_value:
            raise ValueError("is required by split_method: by_value.")
        return value

    @field_validator("split_ratios")
    @classmethod
    def _ratios_sum_to_one(cls, ratios: list[float] | None, info: ValidationInfo) -> list[float] | None:
        by_value = info.data.get("split_method") == "by_value"
        if ratios is None and not by_value:
            raise ValueError("is required.")
        if ratios is not None and by_value:
            raise ValueError(
                "must be left out with split_method: by_value, where split_values say how rows are divided."
            )
        if ratios is not None and not math.isclose(math.fsum(ratios), 1.0, abs_tol=1e-5):
            raise ValueError(f"must sum to 1 ({' + '.join(map(str, ratios))} is {math.fsum(ratios):g}).")
        # Rounded shares, such as [0.33333, 0.33333, 0.33334], leave no row out.
        return ratios and [ratio / math.fsum(ratios) for ratio in ratios]

    @field_validator("stride_by_split")
    @classmethod
    def _one_stride_a_split(cls, strides: list[int] | None, info: ValidationInfo) -> list[int] | None:
        ratios, values = info.data.get("split_ratios"), info.data.get("split_values")
        n_splits = len(ratios) if ratios else len(values) + 1 if values else None
        if strides is not None and n_splits is not None and len(strides) != n_splits:
            raise ValueError(f"needs one stride a split: {n_splits} (found {len(strides)}).")
        return strides
