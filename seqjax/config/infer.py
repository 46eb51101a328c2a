"""The configuration of `seqjax infer`."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, ValidationInfo, field_validator

from seqjax.config.base import PositiveShare
from seqjax.config.keys import KeyColumns
from seqjax.config.schema import (
    ColumnKind,
    ColumnType,
    DecimalMark,
    FileName,
    MissingReal,
    Stride,
    TableFormat,
    WindowFormat,
)


class ModelOnData(KeyColumns):
    """A trained model and data to run it on: the keys that infer and evaluate share."""

    project_root: str
    """Root folder of the project; relative paths start here. Usually '.'."""
    metadata_config_path: str | None = None
    """The JSON file that preprocess wrote; null uses what the model file holds."""
    read_format: WindowFormat | None = None
    """Format of the data; null takes the metadata's, parquet where it says none."""
    missing_real: MissingReal | None = None
    """Of a raw table: refuse empty cells of real columns (error), or let the model see the mean there (mean),
    and that they are empty if it was trained to (mask); null does as the model's own data was read."""
    missing_values: list[str] | None = None
    """Of a raw table: values that mean a missing one, besides the usual ones (empty, NaN, NA, null,
    ...); null takes those of the model's own data."""
    decimal: DecimalMark | None = None
    """Of raw csv: what stands before the decimals of a number; null is as in the model's own data."""
    inference_batch_size: PositiveInt = 128
    """Windows per batch."""
    device: str = "cpu"
    """cpu, cuda, cuda:N or auto."""


class InferConfig(ModelOnData):
    """Predicts, or embeds, with a trained model.

    The model file knows its own columns, maps and statistics: the keys that repeat them are optional
    assertions, and a contradiction is an error.
    """

    model_path: str | list[str]
    """Model file, or a list of them; best is the one of the lowest validation loss in models/ (a search's
    winner first), last that of the newest run."""
    model_type: Literal["generative", "embedding"] = "generative"
    """Predict the next item, or return the hidden state."""
    model_name: str | None = None
    """Of best and last: the run that the model is of; null is any."""
    data_path: str | None = None
    """Preprocessed data, or a raw table; null is the last of the first three splits of the metadata, or else
    of the metadata that the model was trained with."""
    training_config_path: str = "configs/train.yaml"
    """The configuration that a .pt model was trained with."""
    write_format: TableFormat = "csv"
    """Format of the results."""
    input_columns: list[str] | None = None
    """Columns that the model sees; null takes the model's."""
    target_columns: list[str] | None = None
    """Columns to predict; null takes the model's."""
    column_types: dict[str, ColumnType] | None = None
    """Type of each column; null takes the model's."""
    target_column_types: dict[str, ColumnKind] | None = None
    """Kind of each target column; null takes the model's."""
    seq_length: PositiveInt | None = None
    """Length of the context window; null takes the model's."""
    prediction_length: PositiveInt | None = None
    """Trailing positions to predict; null takes the model's."""
    forecast_from: Literal["held_out", "latest"] = "held_out"
    """Predict each window's newest item from those before it, or feed it and predict beyond the data."""
    stride: Stride | None = None
    """Of a raw table: the largest step between the windows of a sequence; null takes its newest alone."""
    output_probabilities: bool = False
    """Write the probability of every class too."""
    predict_unknown: bool = False
    """Let unknown, which stands for a missing category, be predicted and drawn, as models of sequifier do."""
    result_ids: bool | None = None
    """Let the rows of probabilities begin with id and time; null does so where the table names its own
    columns of these."""
    output_name: FileName | None = None
    """Name of the results' files; null takes the model file's. Of several models, it comes before theirs."""
    map_to_id: bool = True
    """Write the original values of categorical columns rather than their ids."""
    sample_from_distribution_columns: list[str] | None = None
    """Columns whose value is drawn from the predicted distribution rather than its mode."""
    temperature: PositiveFloat = 1.0
    """Of drawn columns: what log-probabilities are divided by; below 1 sharper, above 1 flatter."""
    top_k: PositiveInt | None = None
    """Of drawn columns: draw among the k most probable classes only."""
    top_p: PositiveShare | None = None
    """Of drawn columns: draw among the fewest most probable classes that hold this probability together."""
    infer_with_dropout: bool = False
    """Keep dropout active (an ONNX model must have been exported with it)."""
    dropout_samples: PositiveInt | None = None
    """Of inference with dropout: average so many passes, and write their mean and standard deviation."""
    autoregression: bool = False
    """Feed predictions back to predict further ahead."""
    autoregression_extra_steps: NonNegativeInt | None = None
    """Number of further steps to predict."""
    autoregression_samples: PositiveInt | None = None
    """Continue each sequence so many times, and summarise the values drawn; null continues it once."""
    generation_cache: Literal["exact", "rolling"] = "exact"
    """Compute each window again at every step, or keep keys and values (rotary .pt models); see the docs."""
    seed: NonNegativeInt = 1010
    """Random seed of sampling."""
    enforce_determinism: bool = False
    """Has no effect: read so that sequifier's files are accepted."""
    distributed: bool = False
    """Share each batch among all local devices (.pt models)."""
    world_size: PositiveInt = 1
    """Has no effect: read so that sequifier's files are accepted."""
    num_workers: NonNegativeInt = 0
    """Has no effect: read so that sequifier's files are accepted."""
    load_full_data_to_ram: bool = True
    """Has no effect: read so that sequifier's files are accepted."""

    @field_validator("autoregression", "output_probabilities")
    @classmethod
    def _model_predicts(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("model_type") == "embedding":
            raise ValueError("needs model_type: generative.")
        return value

    @field_validator("autoregression")
    @classmethod
    def _predictions_can_be_fed_back(cls, autoregression: bool, info: ValidationInfo) -> bool:
        if autoregression and (info.data.get("prediction_length") or 1) > 1:
            raise ValueError("needs prediction_length: 1.")
        return autoregression

    @field_validator("result_ids")
    @classmethod
    def _probabilities_are_written(cls, value: bool | None, info: ValidationInfo) -> bool | None:
        if value and info.data.get("output_probabilities") is False:
            raise ValueError("needs output_probabilities: true; all other results have ids anyway.")
        return value

    @field_validator("autoregression_extra_steps", "autoregression_samples")
    @classmethod
    def _predictions_are_fed_back(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value and info.data.get("autoregression") is False:
            raise ValueError("needs autoregression: true.")
        return value

    @field_validator("temperature", "top_k", "top_p")
    @classmethod
    def _something_is_drawn(cls, value: float | None, info: ValidationInfo) -> float | None:
        drawn = info.data.get("sample_from_distribution_columns", True)
        given = value is not None and (info.field_name, value) != ("temperature", 1.0)
        if given and not drawn:
            raise ValueError("needs sample_from_distribution_columns: nothing is drawn otherwise.")
        return value

    @field_validator("dropout_samples")
    @classmethod
    def _passes_differ(cls, passes: int | None, info: ValidationInfo) -> int | None:
        if passes is not None and info.data.get("infer_with_dropout") is False:
            raise ValueError("needs infer_with_dropout: true.")
        return passes

    @field_validator("autoregression_samples")
    @classmethod
    def _samples_differ(cls, samples: int | None, info: ValidationInfo) -> int | None:
        drawn = info.data.get("sample_from_distribution_columns", True)
        if samples is not None and not drawn and not info.data.get("infer_with_dropout"):
            raise ValueError(
                "needs sample_from_distribution_columns or infer_with_dropout: samples are alike otherwise."
            )
        return samples

    @field_validator("generation_cache")
    @classmethod
    def _cache_is_of_use(cls, cache: str, info: ValidationInfo) -> str:
        if cache == "rolling" and info.data.get("autoregression") is False:
            raise ValueError("rolling needs autoregression: true.")
        if cache == "rolling" and info.data.get("infer_with_dropout"):
            raise ValueError("rolling cannot be combined with infer_with_dropout. Use exact.")
        return cache
