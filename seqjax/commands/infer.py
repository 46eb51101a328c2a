"""`seqjax infer`: predictions, probabilities or embeddings from a model file and data.

The model's card says which columns the model reads, how they were encoded and how long a window is. What the
configuration repeats of that is an assertion; every contradiction is reported, with both sides. Every model
and all that it will read is checked before the first one runs.
"""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from seqjax.artifacts.layout import results_path, target_names
from seqjax.config.infer import InferConfig
from seqjax.errors import ConfigError, Problem
from seqjax.inference.inputs import Source, data_of, metadata_of, source_of
from seqjax.inference.model import Model, model_paths
from seqjax.inference.results import write_files, write_whole

logger = logging.getLogger(__name__)


def infer(config: InferConfig) -> list[Path]:
    """Runs one or several models over data.

    Args:
      config: Which models, which data, what to write.

    Returns:
      The files that were written.

    Raises:
      ConfigError: Model, data and configuration contradict each other, or two models have one name.
      ArtifactError: A model is missing or damaged.
      DataError: The data is missing, damaged or of other columns.
    """
    paths = model_paths(config)
    metadata = metadata_of(config)
    models = {path: Model.opened(path, config) for path in paths}
    _check_names(models)
    for model in models.values():
        model.check(config, metadata)
        for problem in model.idle(config):
            logger.warning("%s has no effect with %s: %s", problem.key, model.name, problem.message)
    written = []
    with ExitStack() as open_data:
        sources = []
        for model in models.values():
            data_path, known = data_of(config, metadata, model.card)
            sources.append(open_data.enter_context(source_of(config, known, data_path, model.card)))
        for (path, model), source in zip(models.items(), sources, strict=True):
            written += _write(config, _results_name(config, path, len(models)), model, source)
    return written


def _results_name(config: InferConfig, model: Path, models: int) -> str:
    """The name of the results of one of several models."""
    if config.output_name is None:
        return model.stem
    return config.output_name if models == 1 else f"{config.output_name}-{model.stem}"


def _check_names(models: Mapping[Path, Model]) -> None:
    """Raises a `ConfigError` where two models write one file: results are named after models and targets."""
    by_file: dict[str, list[str]] = {}
    for path, model in models.items():
        targets = target_names(path.stem, model.card.column_schema.targets).values()
        for file in (path.stem, *(f"{path.stem}-{target}-" for target in targets)):
            by_file.setdefault(file.casefold(), []).append(str(path))
    clashes = dict.fromkeys(tuple(sorted(alike)) for alike in by_file.values() if len(alike) > 1)
    if clashes:
        message = "would write the same files, which are named after models and targets. Rename one of them."
        problems = [Problem("model_path", f"{' and '.join(alike)} {message}") for alike in clashes]
        raise ConfigError("The configuration of inference", problems)


def _write(config: InferConfig, name: str, model: Model, source: Source) -> list[Path]:
    root, extension = Path(config.project_root), config.write_format
    names = {"": "", **target_names(name, model.card.column_schema.targets)}
    for target, part in names.items():
        if part != target:
            logger.info("Files of the target %r have %r in their names.", target, part)
    parts = (
        {
            results_path(root, output.kind, name, extension, target=names[output.target]): table
            for output, table in outputs.items()
        }
        for outputs in model.outputs(config, source)
    )
    if source.by_file:
        return write_files(parts, extension, name)
    return write_whole(parts, extension)
