"""`seqjax hyperparameter-search`: many training runs from one configuration, ranked by validation.

Plan the runs; have an engine train them; write down what came of each as soon as it is known; rank them at
the end. A search that was interrupted goes on where it was, within a run too. A run that fails is recorded
with the reason, and the search goes on.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from seqjax.artifacts.atomic import write_text
from seqjax.artifacts.layout import Layout
from seqjax.artifacts.search_files import SearchFiles, SearchState, load_state
from seqjax.commands.search_engines import Engine, Record, sequential, together
from seqjax.commands.search_page import search_page
from seqjax.commands.search_ranking import Ranking, ranking_of
from seqjax.commands.search_study import Study
from seqjax.config.changes import changed_keys, marked_keys
from seqjax.config.hyperparameter_search import HyperparameterSearchConfig
from seqjax.config.load import resolve_path
from seqjax.config.metadata import Metadata
from seqjax.config.resolve import load_metadata
from seqjax.config.sampling import short_name
from seqjax.config.train import TrainConfig
from seqjax.errors import ArtifactError, ConfigError, MissingPackageError, Problem, TrainingError
from seqjax.sweep.space import Candidate, Plan, Skipped, plan, space_of, trainable
from seqjax.sweep.summary import LOSS, SCORE, budgets, csv_text, kept, ranked, table_lines
from seqjax.training.logs import log_files
from seqjax.training.processes import find_devices
from seqjax.training.shapes import shape_of

logger = logging.getLogger(__name__)

Confirm: TypeAlias = Callable[[str], bool]
"""Asks a question, and returns whether the answer is yes."""

Row: TypeAlias = Mapping[str, Any]
"""A run in the summary."""

_TRIALS_AT_ONCE = 8

# Keys that may change between the start of a search and its continuation.
_MAY_CHANGE = marked_keys(HyperparameterSearchConfig, lambda mark: not mark.has_influence)


def hyperparameter_search(config: HyperparameterSearchConfig, confirm: Confirm | None = None) -> list[Row]:
    """Runs the step.

    Args:
      config: What to combine, and how to search.
      confirm: Asked before a grid is started, or a sample that is all there is, unless `override_input` is
        set; None asks nothing.

    Returns:
      A row of the summary for each run, the best first; empty if the answer was no.

    Raises:
      ConfigError: No combination can be trained, or the search was begun with another configuration.
      DataError: The metadata cannot be used.
      ArtifactError: The file that says how far the search is cannot be used.
      TrainingError: Every run failed.
      MissingPackageError: The strategy or the engine needs a package that is not there.
    """
    root = config.project_root
    files = SearchFiles(Path(root), config.hp_search_name, resolve_path(root, config.model_config_write_path))
    metadata = load_metadata(resolve_path(root, config.metadata_config_path, or_here=True))
    runs = plan(config, metadata)
    ranking = ranking_of(config)
    record = Record(files, _state(files, config, metadata), ranking.shared)
    layout = Layout(Path(root), config.hp_search_name)
    with log_files(layout.debug_log(), layout.info_log()):
        _announce(config, runs, record.state)
        question = _question(config, runs, record.state)
        if question and confirm is not None and not config.override_input and not confirm(question):
            logger.info("[INFO] Nothing was started.")
            return []
        record.save()
        engine = _engine(config, record, [candidate.config for candidate in runs.candidates])
        if config.search_strategy == "halving":
            _halve(config, runs.candidates, record, engine)
        elif config.search_strategy == "tpe":
            runs = _study(config, metadata, files, record, engine)
        else:
            engine(record.tasks(runs.candidates))
        _warn_of_few(config, runs)
        rows = _summary(config, runs, record.state, ranking)
        _write_summary(files, config, runs, rows, ranking)
    if all(row[LOSS] is None for row in rows):
        raise TrainingError(
            f"All {len(rows)} runs of {config.hp_search_name!r} failed; {files.summary('csv')} says why. The "
            f"first: {rows[0]['reason']}"
        )
    return rows


def _engine(config: HyperparameterSearchConfig, record: Record, known: Sequence[TrainConfig]) -> Engine:
    if config.engine == "ray":
        from seqjax.commands.search_ray import on_ray

        return on_ray(config, record, known)
    # A device that is not there is no run's fault.
    for train in known[:1]:
        find_devices(train.training_spec)
    return sequential(record) if config.engine == "sequential" else together(config, record, known)


def _halve(
    config: HyperparameterSearchConfig, candidates: Sequence[Candidate], record: Record, engine: Engine
) -> None:
    """Trains all for a little, the better ones for longer, the best to the end."""
    epochs = max(candidate.config.training_spec.epochs for candidate in candidates)
    left = list(candidates)
    for end in budgets(config.halving_min_epochs, config.halving_factor, epochs):
        tasks = record.tasks(left, end)
        if tasks:
            count = len(candidates)
            logger.info("[INFO] To be trained until epoch %d, of %d runs: %d.", end, count, len(tasks))
        engine(tasks)
        reached = ((candidate.run, record.loss(candidate.run, end)) for candidate in left)
        losses = {run: loss for run, loss in reached if loss is not None}
        if not losses:
            return
        best = kept(losses, config.halving_factor)
        left = [candidate for candidate in left if candidate.run in best]
        for run in losses:
            if run not in best and run not in record.state.outcomes:
                record.stop(run)


def _study(
    config: HyperparameterSearchConfig, metadata: Metadata, files: SearchFiles, record: Record, engine: Engine
) -> Plan:
    """Trains what Optuna asks for, a batch at a time; returns what was trained and left out.

    Raises:
      ArtifactError: The study lacks trials that were trained.
    """
    wanted, at_once = config.n_samples or 0, config.population_size or _TRIALS_AT_ONCE
    space = space_of(config)
    study = Study(files.study, config.hp_search_name, space, seed=config.seed, wanted=wanted)
    if any(run >= study.count for run in record.state.outcomes):
        raise ArtifactError(
            f"{files.study} lacks trials whose runs are finished, so it is not the study of this search. "
            f"Restore it, or remove it, {files.state} and the checkpoints of the search's runs to start anew."
        )
    if not space.ranges:
        wanted = min(wanted, space.count)
    logged = 0
    while True:
        runs = trainable(config, metadata, study.settings().items())
        _log_skipped(runs.skipped[logged:])
        logged = len(runs.skipped)
        engine(record.tasks(runs.candidates))
        losses = {candidate.run: record.loss(candidate.run, 0) for candidate in runs.candidates}
        study.tell_all(losses | dict.fromkeys((trial.combination for trial in runs.skipped), None))
        missing = wanted - len(runs.candidates)
        if missing <= 0 or study.count > 10 * wanted + 100:
            return runs
        asked = min(missing, at_once)
        # What was asked for last came to nothing new: it would be asked for again and again.
        study.ask(asked, at_random=_skipped_last(runs.skipped, study.count) >= asked)


def _skipped_last(skipped: Sequence[Skipped], count: int) -> int:
    """The number of the newest trials, of `count`, that are skipped without one in between that is not."""
    numbers = {trial.combination for trial in skipped}
    return next((back for back in range(count) if count - 1 - back not in numbers), count)


def _state(files: SearchFiles, config: HyperparameterSearchConfig, metadata: Metadata) -> SearchState:
    """Progress of the search, which must have been begun with this configuration and these columns."""
    text = metadata.model_dump_json(exclude={"seqjax_version"})
    digest = hashlib.sha256(text.encode()).hexdigest()
    now = SearchState(config=config.model_dump(mode="json"), metadata_sha256=digest, outcomes={})
    before = load_state(files.state)
    if before is None:
        # A study without the state of its search may be of other values than are to be tried now.
        if config.search_strategy == "tpe" and files.study.exists():
            raise ArtifactError(
                f"{files.study} holds the trials of an earlier search, but {files.state}, which says what "
                "that search tried, is gone. Remove the study too to start anew, or choose another "
                "hp_search_name."
            )
        return now
    # A larger sample begins with a smaller one; but of more runs, halving would keep others than it kept.
    grows = [] if config.search_strategy == "halving" else ["n_samples"]
    changed = changed_keys(
        {**before.config, "the metadata's digest": before.metadata_sha256},
        {**now.config, "the metadata's digest": digest},
        ignored=[*_MAY_CHANGE, *grows],
    )
    if changed and not (before.outcomes or before.paused or files.study.exists()):
        return now  # Nothing came of it yet.
    if changed:
        raise ConfigError(
            f"The search in {files.state} was begun with another configuration, so it cannot be continued. "
            "Undo the changes, choose another hp_search_name, or remove that file, Optuna's study beside it "
            "and the checkpoints of its runs to start anew; the configuration",
            [Problem(key, f"was {old!r}, is {new!r}.") for key, (old, new) in changed.items()],
        )
    return before.model_copy(update={"config": now.config})


def _announce(config: HyperparameterSearchConfig, runs: Plan, state: SearchState) -> None:
    space, done = space_of(config), len(state.outcomes)
    choice = _counted("combination", space.count)
    if space.ranges:
        choice = f"{_counted('listed combination', space.count)} and {_counted('range', len(space.ranges))}"
        choice += " to draw from"
    logger.info("--- Starting Hyperparameter Search: %s ---", config.hp_search_name)
    logger.info(
        "[INFO] %s (%s)%s; %s.",
        _counted("run", (config.n_samples or 0) if config.search_strategy == "tpe" else len(runs.candidates)),
        config.search_strategy,
        f", {done} of them finished already" if done else "",
        choice,
    )
    _log_skipped(runs.skipped)
    left = [candidate.config for candidate in runs.candidates if candidate.run not in state.outcomes]
    shapes = len(set(map(shape_of, left)))
    if left and config.engine != "sequential":
        logger.info(
            "[INFO] Shapes of models and batches, each compiled once for all of its runs: %s.",
            f"at least {shapes}" if config.search_strategy == "tpe" else shapes,
        )


def _log_skipped(skipped: Sequence[Skipped]) -> None:
    for row in skipped:
        logger.info("[INFO] Skipped combination %d: %s", row.combination, row.reason)


def _warn_of_few(config: HyperparameterSearchConfig, runs: Plan) -> None:
    wanted = config.n_samples or 0
    if config.search_strategy != "grid" and len(runs.candidates) < wanted:
        logger.warning(
            "[WARNING] n_samples is %d, but only %d distinct combinations that can be trained were found.",
            wanted,
            len(runs.candidates),
        )


def _counted(thing: str, count: int) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _question(config: HyperparameterSearchConfig, runs: Plan, state: SearchState) -> str | None:
    """The question before the start, if any: of grids, and of samples that are larger than the space."""
    left = sum(candidate.run not in state.outcomes for candidate in runs.candidates)
    space = space_of(config)
    if not left or config.search_strategy == "tpe":
        return None
    if config.n_samples is None or config.search_strategy == "grid":
        return f"The grid has {space.count} combinations; {left} models are to be trained. Start?"
    if config.n_samples > space.count and not space.ranges:
        return (
            f"n_samples is {config.n_samples}, but there are {space.count} combinations. Train all of them?"
        )
    return None


def _summary(
    config: HyperparameterSearchConfig, runs: Plan, state: SearchState, ranking: Ranking
) -> list[Row]:
    rows = []
    scores = (LOSS,) if ranking.shared is None else (SCORE, LOSS)
    for candidate in runs.candidates:
        if candidate.run not in state.outcomes:
            continue
        outcome = state.outcomes[candidate.run].model_dump(mode="json")
        first = ("status", *scores, "best_epoch", "last_epoch", "seconds")
        last = ("combination", "models", "reason")
        row = {"run": candidate.config.model_name} | {name: outcome[name] for name in first}
        row |= {short_name(key): value for key, value in candidate.settings.items()}
        rows.append(row | {name: outcome[name] for name in last})
    best_first: list[Row] = [*ranked(rows)]
    shown = ["rank", "run", *scores, "best_epoch", "seconds", *map(short_name, space_of(config).varied)]
    logger.info("[INFO] %s", ranking)
    for line in table_lines(best_first, shown):
        logger.info("[INFO] %s", line)
    return best_first


def _write_summary(
    files: SearchFiles, config: HyperparameterSearchConfig, runs: Plan, rows: list[Row], ranking: Ranking
) -> None:
    skipped = [{"combination": row.combination, "reason": row.reason} for row in runs.skipped]
    report = {
        "config": config.model_dump(mode="json"),
        "ranked_by": str(ranking),
        "runs": rows,
        "skipped": skipped,
    }
    write_text(files.summary("csv"), csv_text(rows))
    write_text(files.summary("json"), json.dumps(report, indent=1))
    logger.info("[INFO] Wrote %s and %s.", files.summary("csv"), files.summary("json").name)
    varied = [short_name(key) for key in space_of(config).varied]
    try:
        write_text(files.summary("html"), search_page(config.hp_search_name, rows, varied, str(ranking)))
    except MissingPackageError as error:
        logger.info("[INFO] No page was written: %s", error)
    else:
        logger.info("[INFO] Wrote %s.", files.summary("html"))
    logger.info("--- Hyperparameter Search Complete ---")
