"""`seqjax infer`: predictions, probabilities or embeddings from a model file and data.

The model's card says which columns the model reads, how they were encoded and how long a window is. What the
configuration repeats of that is an assertion; every contradiction is reported, with both sides. Every model
and all that it will read is checked before the first one runs.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from seqjax.artifacts.layout import results_path
from seqjax.config.infer import InferConfig
from seqjax.errors import ConfigError, Problem
from seqjax.inference.inputs import Source, data_path_of, metadata_of, source_of
from seqjax.inference.model import Model, model_paths
from seqjax.inference.results import write_files, write_whole


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
    _check_names(paths)
    metadata = metadata_of(config)
    data_path = data_path_of(config, metadata)
    models = {path: Model.opened(path, config) for path in paths}
    for model in models.values():
        model.check(config, metadata)
    written = []
    with ExitStack() as open_data:
        sources = [
            open_data.enter_context(source_of(config, metadata, data_path, model.card))
            for model in models.values()
        ]
        for (path, model), source in zip(models.items(), sources, strict=True):
            written += _write(config, path.stem, model, source)
    return written


def _check_names(paths: Sequence[Path]) -> None:
    """Raises a `ConfigError` where models have one name: results are named after it."""
    by_name: dict[str, set[Path]] = {}
    for path in paths:
        by_name.setdefault(path.stem, set()).add(path)
    problems = [
        Problem(
            "model_path",
            f"{' and '.join(map(str, sorted(alike)))} would write the same files, which are named after "
            f"{name!r}. Rename one of them.",
        )
        for name, alike in by_name.items()
        if len(alike) > 1
    ]
    if problems:
        raise ConfigError("The configuration of inference", problems)


def _write(config: InferConfig, model_id: str, model: Model, source: Source) -> list[Path]:
    root, extension = Path(config.project_root), config.write_format
    parts = (
        {
            results_path(root, output.kind, model_id, extension, target=output.target): table
            for output, table in outputs.items()
        }
        for outputs in model.outputs(config, source)
    )
    if source.by_file:
        return write_files(parts, extension, model_id)
    return write_whole(parts, extension)
