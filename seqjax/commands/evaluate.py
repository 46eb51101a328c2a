"""`seqjax evaluate`: how well trained models predict held-out data, compared with simple baselines.

The held-out data is read as `infer` reads it. The baselines are fitted on the training data: what the
configuration names, else the first split of its metadata, unless that is the held-out data, else what the
model file says it was trained on. So they see the held-out data only where the model did too, or where the
configuration names it, and then a note says so. One report comes out, as JSON and as a page.
"""

import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from seqjax.artifacts.atomic import write_text
from seqjax.artifacts.card import ModelCard
from seqjax.artifacts.layout import evaluation_path
from seqjax.artifacts.model_files import resolve_model_path
from seqjax.baselines import Fitted, fit_baselines, periods_of
from seqjax.config.evaluate import EvaluateConfig
from seqjax.config.infer import InferConfig
from seqjax.config.keys import KeyColumns
from seqjax.config.load import resolve_path, resolve_split
from seqjax.config.metadata import Metadata
from seqjax.errors import ConfigError, MissingPackageError, Problem
from seqjax.evaluation.page import report_page
from seqjax.evaluation.result import FORMAT, Baselines, ModelResult, Report, Settings, to_json
from seqjax.evaluation.run import ModelScores, compare, run_model
from seqjax.evaluation.verdict import summary
from seqjax.inference.assertions import contradictions
from seqjax.inference.engine import Engine
from seqjax.inference.inputs import (
    data_of,
    metadata_of,
    metadata_of_model,
    raw_files,
    read_format_of,
    source_of,
)
from seqjax.inference.opening import card_from_training, open_engine
from seqjax.version import __version__
from seqjax.windows.windows import Windows, joined

logger = logging.getLogger(__name__)

_FITTED_ROWS = 1_000_000
"""Rows of a raw table that baselines are fitted on."""


def evaluate(config: EvaluateConfig) -> Report:
    """Evaluates one or several models.

    Args:
      config: Which models, which data, how to measure.

    Returns:
      The report, which is written too.

    Raises:
      ConfigError: Model, data and configuration contradict each other.
      ArtifactError: A model is missing or damaged.
      DataError: The data is missing, damaged or of other columns.
      MissingPackageError: A page is asked for, and plotly is not installed.
    """
    if config.html and find_spec("plotly") is None:
        what = "The page that evaluate writes (html: false leaves it out)"
        raise MissingPackageError(what, package="plotly", extra="plots")
    metadata = metadata_of(config)
    names = [config.model_path] if isinstance(config.model_path, str) else config.model_path
    data = config.metadata_config_path
    paths = [resolve_model_path(config.project_root, name, metadata=data) for name in names]
    engines = {_unique(path, paths): (path, _open(config, path, metadata)) for path in dict.fromkeys(paths)}
    data_path, metadata = data_of(config, metadata, next(iter(engines.values()))[1].card)
    models = {
        name: _evaluate_one(config, engine, metadata, data_path, path=path, name=name)
        for name, (path, engine) in engines.items()
    }
    report_name = config.report_name or (next(iter(models)) if len(models) == 1 else "comparison")
    writers = {"json": to_json} | ({"html": report_page} if config.html else {})
    places = {
        kind: evaluation_path(Path(config.project_root), Path(report_name).name, kind) for kind in writers
    }
    report = Report(
        format=FORMAT,
        seqjax_version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        files=[str(place) for place in places.values()],
        data=str(data_path),
        settings=Settings(**{name: getattr(config, name) for name in Settings.__dataclass_fields__}),
        models=[result for _, result in models.values()],
        comparison=compare({name: scores for name, (scores, _) in models.items()}, config),
    )
    for kind, place in places.items():
        write_text(place, writers[kind](report))
        logger.info("wrote %s", place)
    return report


def _open(config: EvaluateConfig, path: Path, metadata: Metadata | None) -> Engine:
    engine = open_engine(path, partial(card_from_training, config, path), device=config.device)
    if engine.card.kind != "generative":
        message = f"{path.name} is an embedding model, which predicts nothing. Name the generative model."
        raise ConfigError("The configuration of evaluate", [Problem("model_path", message)])
    asserted = InferConfig(
        project_root=config.project_root,
        model_path=str(path),
        model_type="generative",
        target_columns=config.target_columns,
    )
    problems = list(contradictions(asserted, metadata, engine.card))
    if problems:
        raise ConfigError(f"The configuration of evaluate, compared with the model {path.name},", problems)
    return engine


def _evaluate_one(
    config: EvaluateConfig,
    engine: Engine,
    metadata: Metadata | None,
    data_path: Path,
    *,
    path: Path,
    name: str,
) -> tuple[ModelScores, ModelResult]:
    card = engine.card
    targets = config.target_columns or list(card.column_schema.targets)
    notes = list(_doubts(config, card, data_path, name))
    fitted: dict[str, Fitted] = {}
    baselines = Baselines(None, 0)
    training_path, training_metadata = _training_data(config, metadata, data_path, card)
    if training_path is None:
        notes.append(
            "The training data was not found, so there are no baselines and no verdict: name it by "
            "training_data_path."
        )
    else:
        if _is_same(training_path, data_path):
            notes.append("The baselines are fitted on this very data: their figures are too optimistic.")
        windows = _training_windows(config, training_path, training_metadata, card, targets)
        kinds = {name: card.column_schema.targets[name] for name in targets}
        schema = card.column_schema.model_copy(update={"targets": kinds})
        periods = config.baseline_period or card.train_config.get("baseline_period")
        fitted = fit_baselines(windows, schema, periods)
        baselines = Baselines(str(training_path), len(windows), periods_of(fitted))
    for note in notes:
        logger.warning(note)
    columns = tuple(dict.fromkeys((*card.column_schema.inputs, *targets)))
    stride = card.model_spec.prediction_length
    with source_of(
        config, metadata, data_path, card, columns=columns, default_stride=stride, each_target=True
    ) as source:
        scores = run_model(
            engine, source.parts(), fitted, config, name=name, total=source.total, keys=source.keys
        )
    result = ModelResult(
        name=name,
        path=str(path),
        seq_length=card.column_schema.seq_length,
        prediction_length=card.model_spec.prediction_length,
        best_epoch=card.best_epoch,
        windows=scores.windows,
        sequences=scores.sequences,
        resampled=scores.resampled,
        baselines=baselines,
        verdict=summary(scores.targets),
        targets=scores.targets,
        examples=scores.examples,
        notes=[*notes, *_notes(scores, config, card)],
    )
    return scores, result


def _notes(scores: ModelScores, config: EvaluateConfig, card: ModelCard) -> Iterator[str]:
    """Notes about the figures for the reader of the report."""
    for name, target in scores.targets.items():
        reasons = {
            "missing": "without a value",
            "other": "whose value the training data lacks (other; score_reserved: true scores them)",
            "without_history": f"with fewer than {card.min_history} items before them (min_history)",
        }
        counts = {key: target.not_scored.get(key, 0) for key in reasons}
        left_out = [f"{counts[key]:,} {why}" for key, why in reasons.items() if counts[key]]
        if left_out:
            yield f"{name}: not scored are {', '.join(left_out)}."
        if target.classes is not None and target.classes["occurred"] == 1:
            yield f"{name}: a single class occurs, so that any predictor of it is right."
    unread = [name for name in scores.targets if name not in card.column_schema.inputs]
    if unread:
        yield f"The model does not see the past of {', '.join(unread)}; the baselines do."


def _training_data(
    config: EvaluateConfig, metadata: Metadata | None, data_path: Path, card: ModelCard
) -> tuple[Path | None, Metadata | None]:
    """The training data, if it is known and still there, and the metadata that preprocess wrote about it.

    Metadata may be of the held-out data alone, which is then its first split. What the model was trained on
    is taken even where it is evaluated on that too: its baselines have seen then what it has seen.
    """
    known = metadata_of_model(config, card)
    if config.training_data_path is not None:
        path = resolve_path(config.project_root, config.training_data_path, or_here=True)
        return path, metadata or known
    if metadata is not None:
        path = resolve_split(config.project_root, metadata.split_paths[0])
        if path.exists() and not _is_same(path, data_path):
            return path, metadata
    return _data_of_model(config, card, known, split=0), known


def _data_of_model(
    config: EvaluateConfig, card: ModelCard, metadata: Metadata | None, *, split: int
) -> Path | None:
    """The data that a model was trained (split 0) or validated (1) on, if it is known and still there."""
    named = card.train_config.get(("training_data_path", "validation_data_path")[split])
    path = None
    if named is not None:
        path = resolve_path(config.project_root, named, or_here=True)
    elif metadata is not None and split < len(metadata.split_paths):
        path = resolve_split(config.project_root, metadata.split_paths[split])
    return path if path is not None and path.exists() else None


def _doubts(config: EvaluateConfig, card: ModelCard, data_path: Path, name: str) -> Iterator[str]:
    """Warnings that data may not be held-out data for a model."""
    known = metadata_of_model(config, card)
    training, validation = (_data_of_model(config, card, known, split=split) for split in (0, 1))
    if _is_same(training, data_path):
        yield "This is the training data, not held-out data: the figures are too optimistic."
    elif _is_same(validation, data_path) and "-best-" in name:
        yield (
            "The best epoch was chosen by the loss on this very data: the figures are a little too "
            "optimistic."
        )


def _is_same(path: Path | None, other: Path) -> bool:
    return path is not None and path.resolve() == other.resolve()


def _training_windows(
    config: EvaluateConfig, path: Path, metadata: Metadata | None, card: ModelCard, targets: Sequence[str]
) -> Windows:
    """The windows that baselines are fitted on: all, or of a raw table about its first million rows."""
    # Windows that do not overlap show each row of a raw table once.
    stride = card.column_schema.seq_length + 1
    read_format = read_format_of(path, metadata)
    settings = config.model_copy(update={"read_format": read_format, "stride": None})
    if raw_files(config, path, read_format, card) is None:
        # What the configuration says of these is said of the held-out data.
        settings = settings.model_copy(update=dict.fromkeys(KeyColumns.model_fields))
    parts, rows = [], 0
    with source_of(settings, metadata, path, card, columns=tuple(targets), default_stride=stride) as source:
        for part in source.parts():
            parts.append(part)
            rows += int(part.runs.rows.sum())
            if rows > _FITTED_ROWS:
                break
    return parts[0] if len(parts) == 1 else joined(parts)


def _unique(path: Path, paths: Sequence[Path]) -> str:
    """The name of a model: its file's, with the suffix or folder where others are called the same."""
    if sum(other.stem == path.stem for other in set(paths)) == 1:
        return path.stem
    return path.name if sum(other.name == path.name for other in set(paths)) == 1 else str(path)
