"""Lines at the end of a command: its results, and the commands that use them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seqjax.commands.train_run import TrainResult


def after_training(result: "TrainResult") -> Iterator[str]:
    """Lines about the model files of a run, how good they are, and which commands use them."""
    files = (*result.best, *result.last)
    if not files:
        yield "No model file was written: export_generative_model and export_embedding_model are false."
        return
    loss = f"{result.best_validation_loss:.4g}"
    yield f"The best epoch was {result.best_epoch} of {result.last_epoch}, with a validation loss of {loss}."
    if result.baselines:
        rival = min(result.baselines, key=lambda name: result.baselines[name])
        yield f"The best of the simple baselines, {rival}, has {result.baselines[rival]:.4g}."
    yield "Model files:"
    yield from (f"  {path}" for path in files)
    generative = [path for path in result.best if "-embedding-" not in path.name]
    if generative:
        yield "Next, how good it is on held-out data, and what it predicts:"
        yield f"  seqjax evaluate --model-path {generative[0]}"
        yield f"  seqjax infer --model-path {generative[0]}"
    else:
        yield "Next, the hidden states of data:"
        yield f"  seqjax infer --model-type embedding --model-path {files[0]}"
