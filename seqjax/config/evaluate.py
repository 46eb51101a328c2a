"""The configuration of `seqjax evaluate`."""

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from seqjax.config.infer import ModelOnData
from seqjax.config.schema import FileName, Stride


class EvaluateConfig(ModelOnData):
    """Measures how well trained models predict held-out data, beside simple baselines.

    The model file knows its own columns, maps and statistics. The baselines are fitted on the training data.
    """

    model_path: str | Annotated[list[str], Field(min_length=1)]
    """Model file, or a list of them to compare; best is the one of the lowest validation loss in models/ (a
    search's winner first), last that of the newest run."""
    data_path: str | None = None
    """Held-out data, preprocessed or a raw table; null is the last of the first three splits of the metadata,
    or else of the metadata that the model was trained with."""
    training_data_path: str | None = None
    """Training data of the baselines, of either sort; null is the metadata's first split, or the model's."""
    baseline_period: PositiveInt | dict[str, PositiveInt] | None = None
    """Items after which real targets repeat themselves, for the seasonal baseline: of all, or of each; null
    takes the model's, or else looks for it in the training data."""
    training_config_path: str = "configs/train.yaml"
    """The configuration that a model of sequifier was trained with."""
    stride: Stride | None = None
    """Of a raw table: the largest step between the windows of a sequence; null is 1, every window."""
    target_columns: list[str] | None = None
    """Targets to evaluate; null takes all of the model's."""
    score_reserved: bool = False
    """Score items whose category is missing (unknown) or was never seen in training (other), too."""
    bootstrap_samples: Annotated[int, Field(ge=100)] = 1000
    """Resamples of the sequences that the confidence intervals are read from."""
    confidence_level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Coverage of the confidence intervals."""
    calibration_bins: PositiveInt = 15
    """Bins of equal width over the confidence, for calibration."""
    confusion_classes: Annotated[int, Field(ge=2)] = 10
    """Number of the commonest classes that are shown in the confusion table."""
    examples: NonNegativeInt = 6
    """Windows, drawn at random, that are shown with their predictions."""
    html: bool = True
    """Write the HTML page too (its plots need plotly: the extra 'plots')."""
    report_name: FileName | None = None
    """Name of the report's files; null takes the model's, and 'comparison' for several."""
    seed: NonNegativeInt = 1010
    """Random seed of the resamples, and of the points and windows that are shown."""
