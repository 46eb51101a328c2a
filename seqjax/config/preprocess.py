"""The configuration of `seqjax preprocess`."""

import math
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from seqjax.config.base import ConfigModel

PositiveInt = Annotated[int, Field(gt=0)]


class PreprocessConfig(ConfigModel):
    """Turns a table of event sequences into windows of fixed length."""

    project_root: str
    """Root folder of the project; relative paths start here. Usually '.'."""
    data_path: str
    """Input table: a file, or a folder of files."""
    read_format: Literal["csv", "parquet"] = "csv"
    """Format of the input table."""
    write_format: Literal["csv", "parquet", "pt", "arrow"] = "parquet"
    """Format of the output: one file of windows a split (csv, parquet), or a folder of shards, compact ones
    (arrow) or torch files (pt)."""
    merge_output: bool | None = None
    """One file a split: must be true for csv and parquet, and false for pt; null is what the format needs."""
    continue_preprocessing: bool = False
    """Accepted: a run that was interrupted left nothing half-written, and simply starts again."""
    selected_columns: list[str] | None = None
    """Feature columns to use; null takes every column but sequenceId and itemPosition."""
    max_rows: Annotated[int, Field(ge=0)] | None = None
    """Use only the first rows of the input, for a quick try; null or 0 uses all."""
    use_precomputed_maps: list[str] | None = None
    """Columns that must have an id map in configs/id_maps/[COLUMN].json; maps that are there are used
    anyway."""
    seq_length: PositiveInt
    """Length of the context window."""
    split_ratios: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)]
    """Share of each split, such as [0.8, 0.1, 0.1]; sums to 1."""
    stride_by_split: list[PositiveInt] | None = Field(default=None)
    """Step between windows, one a split; null uses seq_length."""
    subsequence_start_mode: Literal["distribute", "exact"] = "distribute"
    """Spread window starts evenly over a sequence, or insist on exact strides."""
    fit_on: Literal["train", "all"] = "train"
    """Rows from which id maps and statistics are taken: the first split, or every split."""
    seed: int = 1010
    """Random seed; nothing in preprocess is random so far."""
    n_cores: Annotated[int, Field(ge=0)] | None = None
    """Accepted; reading and encoding use all cores."""
    process_by_file: bool = True
    """Accepted; how the input is cut into files makes no difference to the result."""
    batches_per_file: PositiveInt = 1024
    """Sequences a file of write_format: pt; other formats have no use for it."""

    @property
    def strides(self) -> list[int]:
        """The step between windows of each split."""
        return self.stride_by_split or [self.seq_length] * len(self.split_ratios)

    @field_validator("merge_output")
    @classmethod
    def _format_can_be_merged(cls, merge: bool | None, info: ValidationInfo) -> bool | None:
        write_format = info.data.get("write_format")
        if merge is False and write_format in {"csv", "parquet"}:
            raise ValueError(
                f"must be true with write_format: {write_format}, which writes one file a split; use "
                "write_format: arrow for a folder of shards."
            )
        if merge and write_format == "pt":
            raise ValueError(
                "must be false with write_format: pt, which writes a folder of torch files a split; set "
                "merge_output: false, or leave it out."
            )
        return merge

    @field_validator("split_ratios")
    @classmethod
    def _ratios_sum_to_one(cls, ratios: list[float]) -> list[float]:
        if not math.isclose(math.fsum(ratios), 1.0, abs_tol=1e-9):
            raise ValueError(f"must sum to 1 ({' + '.join(map(str, ratios))} is {math.fsum(ratios):g}).")
        return ratios

    @field_validator("stride_by_split")
    @classmethod
    def _one_stride_a_split(cls, strides: list[int] | None, info: ValidationInfo) -> list[int] | None:
        ratios = info.data.get("split_ratios")
        if strides is not None and ratios is not None and len(strides) != len(ratios):
            raise ValueError(f"needs one stride a split: {len(ratios)} (found {len(strides)}).")
        return strides
