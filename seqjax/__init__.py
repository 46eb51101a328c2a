"""seqjax: from a table of event sequences to a trained, exported causal transformer.

The public names are listed here and imported on first use, so that `import seqjax` is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from seqjax.version import __version__

if TYPE_CHECKING:
    from seqjax.api import evaluate, infer, load_model, make, preprocess, search, train, visualize_training
    from seqjax.config.evaluate import EvaluateConfig
    from seqjax.config.hyperparameter_search import HyperparameterSearchConfig
    from seqjax.config.infer import InferConfig
    from seqjax.config.make import MakeConfig
    from seqjax.config.metadata import Metadata
    from seqjax.config.model import ModelSpec
    from seqjax.config.preprocess import PreprocessConfig
    from seqjax.config.train import TrainConfig, TrainingSpec
    from seqjax.config.visualize_training import VisualizeTrainingConfig
    from seqjax.errors import SeqjaxError

__all__ = [
    "EvaluateConfig",
    "HyperparameterSearchConfig",
    "InferConfig",
    "MakeConfig",
    "Metadata",
    "ModelSpec",
    "PreprocessConfig",
    "SeqjaxError",
    "TrainConfig",
    "TrainingSpec",
    "VisualizeTrainingConfig",
    "__version__",
    "evaluate",
    "infer",
    "load_model",
    "make",
    "preprocess",
    "search",
    "train",
    "visualize_training",
]

# The rest lives in `seqjax.api`, which imports the config models of the commands.
_HOMES = {
    "ModelSpec": "seqjax.config.model",
    "SeqjaxError": "seqjax.errors",
    "TrainingSpec": "seqjax.config.train",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'seqjax' has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "seqjax.api")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
