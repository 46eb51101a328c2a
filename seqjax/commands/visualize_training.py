"""`seqjax visualize-training`: the logs of runs become one HTML page.

A name is that of a run or of a search, which stands for all of its runs. Logs are only read: those that
sequifier wrote too, and those of runs that are under way.
"""

import logging
import re
from itertools import chain
from pathlib import Path

from seqjax.artifacts.atomic import write_text
from seqjax.artifacts.layout import Layout, logged_models, visualization_path
from seqjax.config.base import suggestion
from seqjax.config.load import resolve_path
from seqjax.config.visualize_training import VisualizeTrainingConfig
from seqjax.errors import ConfigError, Problem
from seqjax.reports.run_log import RunLog, read_log
from seqjax.reports.runs_page import runs_page

logger = logging.getLogger(__name__)


def visualize_training(config: VisualizeTrainingConfig) -> Path:
    """Runs the step.

    Args:
      config: Which runs, and how they are shown.

    Returns:
      The page.

    Raises:
      ConfigError: No names are given, or one is of no run.
      ArtifactError: A log tells of no training.
      MissingPackageError: plotly is not installed.
    """
    root = Path(config.project_root)
    logged = logged_models(root)
    names = _names(config)
    if not names:
        raise _mistake(f"name at least one run or search. {_there(logged)}")
    members = {name: _members(name, logged, root) for name in names}
    runs = [_read(root, run) for run in dict.fromkeys(chain.from_iterable(members.values()))]
    for note in (note for run in runs for note in run.notes):
        logger.warning("[WARNING] %s", note)
    path = visualization_path(root, names[0] if len(names) == 1 else "multi-model")
    title = f"{len(runs)} runs"
    if len(names) == 1:
        title = names[0] if members[names[0]] == names else f"{names[0]}: {title}"
    text = runs_page(
        f"Training of {title}", runs, log_scale=config.log_scale, bucket=config.bucket_training_batches
    )
    write_text(path, text)
    logger.info("[INFO] Wrote %s", path)
    return path


def _names(config: VisualizeTrainingConfig) -> list[str]:
    """The names that are given, each once; a .txt file stands for those in it."""
    names: list[str] = []
    for word in config.models:
        path = resolve_path(config.project_root, word, or_here=True)
        listed = path.read_text(encoding="utf-8") if word.endswith(".txt") and path.is_file() else word
        names += [name.strip() for name in re.split(r"[\n,]", listed) if name.strip()]
    return list(dict.fromkeys(names))


def _members(name: str, logged: list[str], root: Path) -> list[str]:
    """The runs that a name stands for: itself, or those of a search."""
    pattern = re.compile(rf"{re.escape(name)}-run-(\d+)")
    numbered = {int(match[1]): run for run in logged if (match := pattern.fullmatch(run))}
    runs = [numbered[number] for number in sorted(numbered)]
    # A search writes a text log under its own name, but no JSON.
    if name in logged and (not runs or Layout(root, name).json_log().exists()):
        return [name, *runs]
    if not runs:
        raise _mistake(
            f"no run and no search called {name!r} has a log in {root / 'logs'}. {_there(logged, name)}"
        )
    return runs


def _there(logged: list[str], name: str = "") -> str:
    """The names that exist, or the one that was meant."""
    searches = {match[1] for run in logged if (match := re.fullmatch(r"(.+)-run-\d+", run))}
    return suggestion(name, sorted({*logged, *searches})) if logged else "There are no logs at all."


def _read(root: Path, name: str) -> RunLog:
    layout = Layout(root, name)
    paths = [path for path in (layout.json_log(), layout.info_log(), layout.debug_log()) if path.exists()]
    filled = [path for path in paths if path.stat().st_size > 0]
    return read_log(name, (filled or paths)[0])


def _mistake(message: str) -> ConfigError:
    return ConfigError("visualize-training", [Problem("models", message)])
