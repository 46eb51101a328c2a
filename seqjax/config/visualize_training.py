"""The configuration of `seqjax visualize-training`."""

from pydantic import PositiveInt

from seqjax.config.base import ConfigModel


class VisualizeTrainingConfig(ConfigModel):
    """Shows how runs, or all runs of a search, were trained: one HTML page."""

    models: list[str]
    """Names of runs or of searches, with spaces or commas between them, or a .txt file that lists them."""
    project_root: str = "."
    """Root folder of the project, which has the logs."""
    log_scale: bool = False
    """Start with losses on a logarithmic scale."""
    bucket_training_batches: PositiveInt | None = None
    """Batches that are averaged into one point of a training curve; null takes as few as a page can show."""
