"""The models that `best` and `last` mean.

`best` is the model of the lowest validation loss among those whose losses can be compared: runs with the same
targets, criteria, weights, thresholds and validation data. The runs of a search are represented by its
winner, and it is compared with others first; without a search the newest run is.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqjax.artifacts.card import CARD_KEY, ModelCard
from seqjax.artifacts.layout import ModelKind, Which, model_files, search_summaries
from seqjax.config.load import resolve_path
from seqjax.errors import ArtifactError
from seqjax.interop.onnx_session import stored_metadata
from seqjax.interop.torch_files import read_torch_file

logger = logging.getLogger(__name__)

_MEASURE = (
    *("validation_data_path", "metadata_config_path", "target_columns", "min_history"),
    *("training_spec.criterion", "training_spec.loss_weights", "training_spec.class_weights"),
    *("training_spec.huber_delta", "training_spec.smooth_l1_beta", "training_spec.select_on"),
    "model_spec.prediction_length",
)
"""Keys of the training configuration that say what a validation loss is of."""
_SHOWN = 4


@dataclass(frozen=True)
class _Run:
    name: str
    path: Path
    """The newest of its files."""
    loss: float | None
    """The validation loss of these parameters, as far as the file says it."""
    config: Mapping[str, Any]
    search: str | None
    """The search that it won."""

    def of(self, key: str) -> Any:  # noqa: ANN401 (a value of a configuration)
        """A value of its configuration, by dotted key."""
        value: Any = self.config
        for name in key.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    @property
    def measure(self) -> dict[str, Any]:
        """The keys that say what its loss is of, and their values."""
        keys = [*_MEASURE, *(["seq_length"] if self.of("training_spec.select_on") == "all" else [])]
        return {key: self.of(key) for key in keys}


def chosen_model(
    root: str | Path,
    which: Which,
    kind: ModelKind,
    *,
    model_name: str | None = None,
    metadata: str | None = None,
) -> Path | None:
    """The model file that `best` or `last` means; None if there is none. The log says which it is, and why.

    Args:
      root: `project_root`.
      which: The best or the last parameters of a run; of the last ones those of the newest run.
      kind: What the model does.
      model_name: The run that it is of; None is any.
      metadata: `metadata_config_path` of the data, if it is known: runs on other data are passed over.
    """
    files = model_files(resolve_path(root, "models"), which, kind, model_name)
    if not files:
        return None
    path, why = next(iter(files.values())), "the only one there is"
    if model_name is not None:
        why = f"the newest of the run {model_name}"
    elif which == "last":
        why = f"the newest of {len(files)} runs"
    elif len(files) > 1:
        path, why = _best(_suiting(root, list(_contenders(root, files)), metadata))
    logger.info("model_path: %s is %s, %s.", which, path, why)
    return path


def _contenders(root: str | Path, files: Mapping[str, Path]) -> Iterator[_Run]:
    """The runs: the winners of searches first, then those of none, the newest first of both."""
    searched: dict[str, str | None] = {}
    for summary in search_summaries(Path(root)):
        ranked = [name for name in _ranked(summary) if name in files and name not in searched]
        searched |= dict.fromkeys(ranked[:1], summary.stem) | dict.fromkeys(ranked[1:])
    winners = [name for name, search in searched.items() if search is not None]
    for name in [*winners, *(name for name in files if name not in searched)]:
        card = _card_of(files[name])
        loss, config = (card.validation_loss, card.train_config) if card is not None else (None, {})
        yield _Run(name, files[name], loss, config, searched.get(name))


def _ranked(summary: Path) -> list[str]:
    """The runs of a search, the best first; none where its file cannot be read."""
    try:
        return [row["run"] for row in json.loads(summary.read_text(encoding="utf-8"))["runs"] if row["rank"]]
    except (ValueError, KeyError, TypeError):
        return []


def _card_of(path: Path) -> ModelCard | None:
    """The card of a model file, without loading the model; None where it has none that can be read."""
    try:
        stored = stored_metadata(path) if path.suffix == ".onnx" else read_torch_file(path)
        text = stored.get(CARD_KEY) if isinstance(stored, Mapping) else None
        return ModelCard.from_json(text, str(path)) if isinstance(text, str) else None
    except (ArtifactError, UnicodeDecodeError):
        return None


def _suiting(root: str | Path, runs: Sequence[_Run], metadata: str | None) -> Sequence[_Run]:
    """The runs on certain data; all, where none is known to be."""
    if metadata is None:
        return runs
    wanted = resolve_path(root, metadata, or_here=True).resolve()
    own = {run.name: run.of("metadata_config_path") for run in runs}
    same = [
        run
        for run in runs
        if own[run.name] is not None and resolve_path(root, own[run.name], or_here=True).resolve() == wanted
    ]
    return same or runs


def _best(runs: Sequence[_Run]) -> tuple[Path, str]:
    """The model to take of runs, which come in the order in which they count, and why."""
    known = [run for run in runs if run.loss is not None]
    if not known:
        return runs[0].path, f"the newest{_of_search(runs[0])}, since no file says its validation loss"
    first = known[0]
    alike = [run for run in known if run.measure == first.measure]
    best = min(alike, key=lambda run: (run.loss, run is not first))
    text = (
        f"of the lowest validation loss, {best.loss:.6g}, of {len(alike)} run{'s' if len(alike) > 1 else ''}"
    )
    behind = sorted((run for run in alike if run is not best), key=lambda run: run.loss or 0.0)
    if behind:
        others = (f"{run.name}{_of_search(run)} {run.loss:.6g}" for run in behind[:_SHOWN])
        text += f" (next: {', '.join(others)})"
    if best.search is not None:
        text = f"which won the search {best.search}, {text}"
    left = [run for run in runs if run not in alike]
    if left:
        reasons = (f"{run.name} ({_difference(run, first)})" for run in left[:_SHOWN])
        more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
        text += f"; not compared: {', '.join(reasons)}{more}"
    return best.path, text


def _of_search(run: _Run) -> str:
    return "" if run.search is None else f", which won the search {run.search},"


def _difference(run: _Run, first: _Run) -> str:
    """Why a run's loss is not compared with that of another."""
    if run.loss is None:
        return "no loss in its file"
    keys = [key for key in {**first.measure, **run.measure} if run.of(key) != first.of(key)]
    return "other " + " and ".join(key.rpartition(".")[2] for key in keys)
