"""`seqjax hyperparameter-search`: many training runs from one configuration, ranked by validation loss.

Plan the runs; train them one after the other in this process; write down what came of each as soon as it is
known; rank them at the end. A search that was interrupted goes on where it was, within a run too. A run that
fails is recorded with the reason, and the search goes on.
"""

import gc
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import jax

from seqjax.artifacts.atomic import write_text
from seqjax.artifacts.checkpoints import remove_checkpoints
from seqjax.artifacts.layout import Layout
from seqjax.artifacts.search_files import Outcome, SearchFiles, SearchState, load_state, save_state
from seqjax.commands.train import TrainResult, train
from seqjax.config.base import validate
from seqjax.config.changes import changed_keys
from seqjax.config.hyperparameter_search import HyperparameterSearchConfig
from seqjax.config.load import resolve_path
from seqjax.config.metadata import Metadata
from seqjax.config.resolve import load_metadata
from seqjax.config.train import TrainConfig
from seqjax.config.yaml_text import to_yaml
from seqjax.errors import ConfigError, Problem, SeqjaxError, TrainingError
from seqjax.sweep.space import Candidate, Plan, plan, space_of
from seqjax.sweep.summary import LOSS, csv_text, ranked, table_lines
from seqjax.training.logs import log_files

logger = logging.getLogger(__name__)

Confirm: TypeAlias = Callable[[str], bool]
"""Asks a question, and returns whether the answer is yes."""

Row: TypeAlias = Mapping[str, Any]
"""What the summary says about a run."""

MAX_HALVINGS = 3

# Keys that may change between the start of a search and its continuation: a larger sample begins with a
# smaller one, and the others change no result.
_MAY_CHANGE = (
    "project_root",
    "override_input",
    "n_samples",
    *(
        f"training_hyperparameter_sampling.{key}"
        for key in (
            "continue_training",
            "device",
            "keep_checkpoints",
            "load_full_data_to_ram",
            "log_interval",
            "max_ram_gb",
            "num_workers",
            "save_interval_epochs",
        )
    ),
)


def hyperparameter_search(config: HyperparameterSearchConfig, confirm: Confirm | None = None) -> list[Row]:
    """Runs the step.

    Args:
      config: What to combine, and how to search.
      confirm: Asked before a grid is started, or a sample that is all there is, unless `override_input` is
        set; null asks nothing.

    Returns:
      A row of the summary for each run, the best first; empty if the answer was no.

    Raises:
      ConfigError: No combination can be trained, or the search was begun with another configuration.
      DataError: The metadata cannot be used.
      ArtifactError: The file that says how far the search is cannot be used.
      TrainingError: Every run failed.
    """
    root = config.project_root
    files = SearchFiles(Path(root), config.hp_search_name, resolve_path(root, config.model_config_write_path))
    metadata = load_metadata(resolve_path(root, config.metadata_config_path, or_here=True))
    runs = plan(config, metadata)
    state = _state(files, config, metadata)
    layout = Layout(Path(root), config.hp_search_name)
    with log_files(layout.debug_log(), layout.info_log()):
        _announce(config, runs, state)
        question = _question(config, runs, state)
        if question and confirm is not None and not config.override_input and not confirm(question):
            logger.info("[INFO] Nothing was started.")
            return []
        save_state(files.state, state)
        for candidate in runs.candidates:
            if candidate.run not in state.outcomes:
                state = _run(files, state, candidate)
        rows = _summary(config, runs, state)
        _write_summary(files, config, runs, rows)
    if all(row[LOSS] is None for row in rows):
        raise TrainingError(
            f"All {len(rows)} runs of {config.hp_search_name!r} failed; {files.summary('csv')} says why. The "
            f"first: {rows[0]['reason']}"
        )
    return rows


def _state(files: SearchFiles, config: HyperparameterSearchConfig, metadata: Metadata) -> SearchState:
    """How far the search is; it must have been begun with this configuration and these columns."""
    text = metadata.model_dump_json(exclude={"seqjax_version"})
    digest = hashlib.sha256(text.encode()).hexdigest()
    now = SearchState(config=config.model_dump(mode="json"), metadata_sha256=digest, outcomes={}, halvings={})
    before = load_state(files.state)
    if before is None:
        return now
    changed = changed_keys(
        {**before.config, "the metadata's digest": before.metadata_sha256},
        {**now.config, "the metadata's digest": digest},
        ignored=_MAY_CHANGE,
    )
    if changed:
        raise ConfigError(
            f"The search in {files.state} was begun with another configuration, so it cannot be continued. "
            "Undo the changes, choose another hp_search_name, or remove that file and the checkpoints of its "
            "runs to start anew; the configuration",
            [Problem(key, f"was {old!r}, is {new!r}.") for key, (old, new) in changed.items()],
        )
    return before.model_copy(update={"config": now.config})


def _announce(config: HyperparameterSearchConfig, runs: Plan, state: SearchState) -> None:
    done = sum(candidate.run in state.outcomes for candidate in runs.candidates)
    logger.info("--- Starting Hyperparameter Search: %s ---", config.hp_search_name)
    logger.info(
        "[INFO] %d combinations, %d runs (%s)%s.",
        space_of(config).count,
        len(runs.candidates),
        config.search_strategy,
        f", {done} of them finished already" if done else "",
    )
    for skipped in runs.skipped:
        logger.info("[INFO] Skipped combination %d: %s", skipped.combination, skipped.reason)
    wanted = config.n_samples or 0
    if config.search_strategy == "sample" and len(runs.candidates) < wanted:
        logger.warning(
            "[WARNING] n_samples is %d, but only %d distinct combinations that can be trained were found.",
            *(wanted, len(runs.candidates)),
        )


def _question(config: HyperparameterSearchConfig, runs: Plan, state: SearchState) -> str | None:
    """What to ask before starting, if anything: of grids, and of samples that are larger than the space."""
    left = sum(candidate.run not in state.outcomes for candidate in runs.candidates)
    count = space_of(config).count
    if not left:
        return None
    if config.search_strategy == "grid":
        return f"The grid has {count} combinations; {left} models are to be trained. Start?"
    if (config.n_samples or 0) > count:
        return f"n_samples is {config.n_samples}, but there are {count} combinations. Train all of them?"
    return None


@dataclass(frozen=True)
class _Failure:
    reason: str
    out_of_memory: bool = False


def _run(files: SearchFiles, state: SearchState, candidate: Candidate) -> SearchState:
    """Trains a candidate and returns the state that holds its outcome, which is on disk by then."""
    halvings = state.halvings.get(candidate.run, 0)
    begin = time.perf_counter()
    while True:
        config = halved(candidate.config, halvings)
        write_text(files.config(config.model_name), to_yaml(config.model_dump(mode="json")))
        logger.info("[INFO] %s: %s", config.model_name, _settings_text(candidate))
        result = _attempt(config)
        again = isinstance(result, _Failure) and result.out_of_memory and can_be_halved(candidate, halvings)
        if not again:
            break
        halvings += 1
        logger.warning(
            "[WARNING] %s ran out of memory. It is trained again with half the batch_size and twice the "
            "accumulation_steps, which leaves the training as it is.",
            config.model_name,
        )
        gc.collect()
        jax.clear_caches()
        # They were made with the larger batches, so that the run could not go on from them.
        remove_checkpoints(Layout(Path(config.project_root), config.model_name), keep=None)
        state = state.model_copy(update={"halvings": {**state.halvings, candidate.run: halvings}})
        save_state(files.state, state)
    outcome = _outcome(candidate, result, halvings, time.perf_counter() - begin)
    state = state.model_copy(update={"outcomes": {**state.outcomes, candidate.run: outcome}})
    save_state(files.state, state)
    if outcome.status == "failed":
        logger.warning("[WARNING] %s failed: %s", candidate.config.model_name, outcome.reason)
    return state


def halved(config: TrainConfig, times: int) -> TrainConfig:
    """The configuration with micro-batches of 1 / 2**times the size, and as many more to an update."""
    if times == 0:
        return config
    values = config.model_dump(mode="json")
    spec = values["training_spec"]
    spec["batch_size"] //= 2**times
    spec["accumulation_steps"] = (spec["accumulation_steps"] or 1) * 2**times
    return validate(TrainConfig, values, config.model_name)


def can_be_halved(candidate: Candidate, halvings: int) -> bool:
    """Whether half the micro-batch is possible once more without changing the training."""
    spec = candidate.config.training_spec
    return (
        halvings < MAX_HALVINGS
        and spec.batch_size % 2 ** (halvings + 1) == 0
        # A schedule that steps with batches would run twice as fast.
        and spec.scheduler_step_on == "epoch"
    )


def _attempt(config: TrainConfig) -> TrainResult | _Failure:
    try:
        return train(config)
    except SeqjaxError as error:
        return _Failure(str(error))
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        spec = config.training_spec
        return _Failure(f"out of memory with batch_size {spec.batch_size}.", out_of_memory=True)


def _outcome(candidate: Candidate, result: TrainResult | _Failure, halvings: int, seconds: float) -> Outcome:
    known = {
        "run": candidate.run,
        "combination": candidate.combination,
        "seconds": round(seconds, 3),
        "batch_halvings": halvings,
    }
    if isinstance(result, _Failure):
        return validate(Outcome, {**known, "status": "failed", "reason": result.reason}, "outcome")
    found = {
        "status": "complete",
        LOSS: result.best_validation_loss,
        "best_epoch": result.best_epoch,
        "last_epoch": result.last_epoch,
        "models": [str(path) for path in result.best],
    }
    return validate(Outcome, {**known, **found}, "outcome")


def _settings_text(candidate: Candidate) -> str:
    settings = (f"{_short_name(key)} {json.dumps(value)}" for key, value in candidate.settings.items())
    return ", ".join(settings) or "the only combination"


def _short_name(key: str) -> str:
    """A key without its section: no two sections vary keys of one name."""
    return key.rpartition(".")[2]


def _summary(config: HyperparameterSearchConfig, runs: Plan, state: SearchState) -> list[Row]:
    rows = []
    for candidate in runs.candidates:
        outcome = state.outcomes[candidate.run].model_dump(mode="json")
        first = ("status", LOSS, "best_epoch", "last_epoch", "seconds")
        last = ("batch_halvings", "combination", "models", "reason")
        rows.append(
            {
                "run": candidate.config.model_name,
                **{name: outcome[name] for name in first},
                **{_short_name(key): value for key, value in candidate.settings.items()},
                **{name: outcome[name] for name in last},
            }
        )
    best_first: list[Row] = [*ranked(rows)]
    shown = ["rank", "run", LOSS, "best_epoch", "seconds", *map(_short_name, space_of(config).varied)]
    for line in table_lines(best_first, shown):
        logger.info("[INFO] %s", line)
    return best_first


def _write_summary(
    files: SearchFiles, config: HyperparameterSearchConfig, runs: Plan, rows: list[Row]
) -> None:
    skipped = [{"combination": one.combination, "reason": one.reason} for one in runs.skipped]
    report = {"config": config.model_dump(mode="json"), "runs": rows, "skipped": skipped}
    write_text(files.summary("csv"), csv_text(rows))
    write_text(files.summary("json"), json.dumps(report, indent=1))
    logger.info("[INFO] Wrote %s and %s.", files.summary("csv"), files.summary("json").name)
    logger.info("--- Hyperparameter Search Complete ---")
