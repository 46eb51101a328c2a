"""The commands and trained models in Python: `seqjax.train("configs/train.yaml")` is `seqjax train`.

A config is a model such as `TrainConfig`, a mapping of the same shape as the YAML, or the path of a YAML
file; `overrides`, nested as the YAML is, are laid over it. A command's code is imported when it is called.
Messages of a command go to the logger `seqjax`, and to stderr in plain lines where nobody configured logging.
"""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Unpack

from seqjax.config.evaluate import EvaluateConfig
from seqjax.config.hyperparameter_search import HyperparameterSearchConfig
from seqjax.config.infer import InferConfig
from seqjax.config.load import as_config
from seqjax.config.make import MakeConfig
from seqjax.config.metadata import Metadata
from seqjax.config.model import ModelSpec
from seqjax.config.preprocess import PreprocessConfig
from seqjax.config.train import TrainConfig, TrainingSpec
from seqjax.config.visualize_training import VisualizeTrainingConfig
from seqjax.console import log_lines
from seqjax.errors import SeqjaxError
from seqjax.version import __version__

if TYPE_CHECKING:
    from seqjax.commands.train_run import TrainResult
    from seqjax.evaluation.result import Report
    from seqjax.inference.model import EngineOptions, Model

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

Values: TypeAlias = Mapping[str, Any]
Source: TypeAlias = Values | str | PathLike[str]


@log_lines()
def make(project_name: str | PathLike[str]) -> Path:
    """Creates a project: folders, .gitignore, and a commented template of each command's configuration.

    Args:
      project_name: The folder to create.

    Returns:
      The folder.
    """
    from seqjax.commands.make import make as run

    return run(as_config(MakeConfig, {"project_name": str(project_name)}))


@log_lines()
def preprocess(config: PreprocessConfig | Source, overrides: Values | None = None) -> Metadata:
    """Turns a table of event sequences into windows to train on.

    Args:
      config: What to read, how to cut it, what to write.
      overrides: Values that replace those of `config`.

    Returns:
      The metadata of the result: columns, id maps, statistics, where the splits lie.
    """
    from seqjax.commands.preprocess import preprocess as run

    return run(as_config(PreprocessConfig, config, overrides))


@log_lines()
def train(config: TrainConfig | Source, overrides: Values | None = None) -> "TrainResult":
    """Trains a causal transformer on preprocessed data and exports it.

    Args:
      config: Data, architecture, training and export.
      overrides: Values that replace those of `config`, such as `{"training_spec": {"epochs": 3}}`.

    Returns:
      The model files, and how good they are.
    """
    from seqjax.commands.train import train as run

    return run(as_config(TrainConfig, config, overrides))


@log_lines()
def infer(config: InferConfig | Source, overrides: Values | None = None) -> list[Path]:
    """Predicts, or embeds, with a trained model, and writes the results.

    Args:
      config: The model, the data, and what to predict.
      overrides: Values that replace those of `config`.

    Returns:
      The files that were written.
    """
    from seqjax.commands.infer import infer as run

    return run(as_config(InferConfig, config, overrides))


def load_model(
    path: str | PathLike[str],
    *,
    project_root: str | PathLike[str] = ".",
    model_type: Literal["generative", "embedding"] | None = None,
    model_name: str | None = None,
    training_config_path: str = "configs/train.yaml",
    **options: "Unpack[EngineOptions]",
) -> "Model":
    """Opens a trained model to predict, embed and generate with, in Python.

    Args:
      path: The model file, or its name in models/ of the project; best or last is the newest one there.
      project_root: The project; relative paths start there.
      model_type: What the model does; None is generative, where best and last leave it open.
      model_name: Of best and last: the run that it is of; None takes the newest of any.
      training_config_path: The configuration that a model of sequifier was trained with; other models
        describe themselves.
      options: Keys of infer.yaml that say what the model runs on (`device`, `distributed`) and whether it
        drops (`infer_with_dropout`, `dropout_samples`), and `seed`; each call may have others.

    Returns:
      The model: `.predict(table)`, `.probabilities(table)`, `.embed(table)`, `.generate(table, steps=...)`.
    """
    from seqjax.inference.model import load

    return load(
        path,
        project_root=str(project_root),
        model_type=model_type,
        model_name=model_name,
        training_config_path=training_config_path,
        **options,
    )


@log_lines()
def evaluate(config: EvaluateConfig | Source, overrides: Values | None = None) -> "Report":
    """Measures how well trained models predict held-out data, and writes the report.

    Args:
      config: The models, the data, and how to measure.
      overrides: Values that replace those of `config`.

    Returns:
      Metrics with intervals, baselines and verdicts, as the JSON file holds them.
    """
    from seqjax.commands.evaluate import evaluate as run

    return run(as_config(EvaluateConfig, config, overrides))


@log_lines()
def search(
    config: HyperparameterSearchConfig | Source,
    overrides: Values | None = None,
    *,
    confirm: Callable[[str], bool] | None = None,
) -> list[Values]:
    """Trains many models, each from a combination of the values to try, and ranks them.

    Args:
      config: What to combine, and how to search.
      overrides: Values that replace those of `config`.
      confirm: Asked a question before a grid is started, unless `override_input` is set; None asks nothing.

    Returns:
      A row for each run, the best first: its name, losses, varied settings and model files.
    """
    from seqjax.commands.hyperparameter_search import hyperparameter_search as run

    return run(as_config(HyperparameterSearchConfig, config, overrides), confirm)


@log_lines()
def visualize_training(
    models: str | Sequence[str],
    *,
    project_root: str | PathLike[str] = ".",
    log_scale: bool = False,
    bucket_training_batches: int | None = None,
) -> Path:
    """Shows how runs, or all runs of a search, were trained: one HTML page.

    Args:
      models: Names of runs or of searches: one, several, or a .txt file that lists them.
      project_root: Root folder of the project, which has the logs.
      log_scale: Start with losses on a logarithmic scale.
      bucket_training_batches: Batches that are averaged into one point of a training curve; None takes as few
        as a page can show.

    Returns:
      The page.
    """
    from seqjax.commands.visualize_training import visualize_training as run

    values = {
        "models": [models] if isinstance(models, str) else list(models),
        "project_root": str(project_root),
        "log_scale": log_scale,
        "bucket_training_batches": bucket_training_batches,
    }
    return run(as_config(VisualizeTrainingConfig, values))
