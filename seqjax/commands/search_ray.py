"""Runs of a search on the machines of a Ray cluster, a group of one shape at a time on each.

Every machine sees the project's folder under the same path, and writes its runs' files there. A group whose
machine is lost is started again elsewhere, and its runs go on from their checkpoints.
"""

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Literal

from seqjax.commands.search_engines import Engine, Part, Record
from seqjax.commands.train_together import End, Task, Workshop
from seqjax.config.hyperparameter_search import HyperparameterSearchConfig
from seqjax.config.train import TrainConfig
from seqjax.errors import MissingPackageError, SeqjaxError, TrainingError
from seqjax.sweep.groups import grouped_by_shape
from seqjax.sweep.runners import Kind
from seqjax.sweep.space import Candidate

logger = logging.getLogger(__name__)

Came = list[tuple[int, End, float]]
"""Number of the run, what came of it, and its seconds."""


def on_ray(
    config: HyperparameterSearchConfig,
    record: Record,
    settings_text: Callable[[Candidate], str],
    known: Sequence[TrainConfig],
) -> Engine:
    """Trains groups of runs as tasks of Ray; see `search_engines.together`.

    Raises:
      MissingPackageError: Ray is not installed.
    """
    if find_spec("ray") is None:
        raise MissingPackageError("engine: ray", package="ray", extra="ray")
    import ray

    if not ray.is_initialized():
        ray.init(address=config.ray_address, include_dashboard=False, log_to_driver=False)
    needed = config.ray_resources
    train = ray.remote(
        num_cpus=needed.get("CPU", 1.0),
        num_gpus=needed.get("GPU", 0.0),
        resources={name: amount for name, amount in needed.items() if name not in ("CPU", "GPU")},
        max_retries=config.ray_retries,
    )(train_group)

    def train_all(parts: Sequence[Part]) -> None:
        by_run = {part.candidate.run: part.candidate for part in parts}
        for part in parts:
            record.write_config(part.candidate.config)
            logger.info("[INFO] %s: %s", part.candidate.config.model_name, settings_text(part.candidate))
        size = config.population_size or _share(len(parts), ray.cluster_resources(), needed)
        groups = list(_groups(parts, size))
        logger.info("[INFO] %d groups of up to %d runs are sent to Ray.", len(groups), size)
        sent = {
            train.remote(group, list(known), config.population_runner, os.getcwd()): group  # noqa: PTH109
            for group in groups
        }
        while sent:
            (done,), _ = ray.wait(list(sent))
            for number, end, seconds in _came(done, sent.pop(done)):
                record.add(by_run[number], end, seconds)

    return train_all


def train_group(
    tasks: Sequence[Task], known: Sequence[TrainConfig], runner: Kind | Literal["auto"], folder: str
) -> Came:
    """Trains runs on the machine where it is called.

    Args:
      tasks: The runs.
      known: Runs that tell in which numbers these differ.
      runner: How a device works on them.
      folder: The working directory of the search.
    """
    os.chdir(folder)
    came: Came = []

    def ended(task: Task, end: End, seconds: float) -> None:
        # Errors of several arguments do not survive the way back.
        came.append((task.number, TrainingError(str(end)) if isinstance(end, SeqjaxError) else end, seconds))

    Workshop(known, runner=runner, size=None).train(tasks, ended)
    return came


def _groups(parts: Sequence[Part], size: int) -> Iterator[list[Task]]:
    tasks = [Task(part.candidate.run, part.candidate.config, part.until) for part in parts]
    for group in grouped_by_shape([(task, task.config) for task in tasks]):
        for begin in range(0, len(group), size):
            yield group[begin : begin + size]


def _share(count: int, there: Mapping[str, float], needed: Mapping[str, float]) -> int:
    """How many runs a group has, if every place where one fits is to get one."""
    places = [there.get(name, 0.0) / amount for name, amount in needed.items() if amount > 0]
    return max(1, math.ceil(count / max(1, math.floor(min(places, default=1.0)))))


def _came(done: Any, tasks: Sequence[Task]) -> Came:  # noqa: ANN401 (a reference of Ray)
    import ray
    from ray.exceptions import RayError

    try:
        return ray.get(done)
    except RayError as error:
        lost = TrainingError(f"Ray gave its group up: {str(error).strip().splitlines()[-1][:300]}")
        return [(task.number, lost, 0.0) for task in tasks]
