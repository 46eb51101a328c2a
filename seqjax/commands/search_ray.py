"""Runs of a search on the machines of a Ray cluster, a group of one shape at a time on each.

Every machine sees the project's folder under the same path, and writes its runs' files there. Runs are
reported as they end, through a queue on the machine of the search. A group whose machine is lost is started
again elsewhere, and its runs go on from their checkpoints.
"""

import logging
import math
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from seqjax.commands.search_engines import Engine, Record
from seqjax.commands.train import Trainer
from seqjax.commands.train_run import End, Task
from seqjax.config.hyperparameter_search import HyperparameterSearchConfig
from seqjax.config.train import TrainConfig
from seqjax.errors import ConfigError, MissingPackageError, Problem, SeqjaxError, TrainingError
from seqjax.training.runners import Kind
from seqjax.training.shapes import grouped_by_shape

if TYPE_CHECKING:
    from ray.util.queue import Queue

logger = logging.getLogger(__name__)

Ended: TypeAlias = tuple[int, End, float]
"""The number of a run, its end, and its seconds."""
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_TO_ANSWER = 10.0


def on_ray(config: HyperparameterSearchConfig, record: Record, known: Sequence[TrainConfig]) -> Engine:
    """Trains groups of runs as tasks of Ray; see `search_engines.together`.

    The engine raises a TrainingError where Ray gives a group up; its runs go on when the search is started
    again.

    Raises:
      MissingPackageError: Ray is not installed.
      ConfigError: There is no cluster at `ray_address`.
    """
    if find_spec("ray") is None:
        raise MissingPackageError("engine: ray", package="ray", extra="ray")
    import ray
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    _connect(config)
    needed = config.ray_resources
    train = ray.remote(**options(needed, config.ray_retries))(train_group)

    def train_all(tasks: Sequence[Task]) -> None:
        waiting = {task.number: task for task in tasks}
        for task in tasks:
            record.begin(task)
        _warn_of_missing([node["Resources"] for node in ray.nodes() if node["Alive"]], needed)
        size = config.population_size or _share(len(tasks), ray.cluster_resources(), needed)
        groups = list(_groups(tasks, size))
        logger.info("[INFO] %d groups of up to %d runs are sent to Ray.", len(groups), size)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})

        def note(ends: Sequence[Ended]) -> None:
            # A group that was started again reports runs once more that had ended before.
            for number, end, seconds in ends:
                if number in waiting:
                    record.add(waiting.pop(number), end, seconds, left=len(waiting))

        sent = [
            train.remote(group, list(known), config.population_runner, str(Path.cwd()), queue.put)
            for group in groups
        ]
        lost = _collect(sent, queue, note)
        queue.shutdown()
        if waiting:
            raise TrainingError(
                f"Ray gave {len(waiting)} runs up ({lost[0]}). What came of the others is noted; start the "
                "search again to go on with these."
            )

    return train_all


def _connect(config: HyperparameterSearchConfig) -> None:
    """Connects to the cluster of the configuration, or starts one; a connection that is there stays."""
    import ray

    if ray.is_initialized():
        return
    own = config.ray_address is not None
    address = config.ray_address if own else os.environ.get("RAY_ADDRESS") or None
    try:
        if address is not None:
            _knock(address)
        ray.init(address=config.ray_address, include_dashboard=False, log_to_driver=False)
    except (ValueError, RuntimeError, OSError, OverflowError) as error:
        if address is None:
            raise
        where = "" if own else " (from the environment variable RAY_ADDRESS)"
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        problem = (
            f"{address!r}{where} leads to no Ray cluster ({reason}). Give the HOST:PORT that 'ray start "
            "--head' printed, or leave it out to start Ray on this machine."
        )
        source = f"The search {config.hp_search_name!r}"
        raise ConfigError(source, [Problem("ray_address", problem)]) from error


def _knock(address: str) -> None:
    """Raises `OSError` where nobody listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_ANSWER).close()


def _collect(sent: list[Any], queue: "Queue", note: Callable[[Sequence[Ended]], None]) -> list[str]:
    """Waits for tasks, and hands on what they report; returns the reasons why some were given up."""
    import ray
    from ray.exceptions import RayError

    lost = []
    while sent:
        done, _ = ray.wait(sent, timeout=_SECONDS_BETWEEN_LOOKS)
        note(queue.get_nowait_batch(queue.size()))
        for group in done:
            sent.remove(group)
            try:
                note(ray.get(group))
            except RayError as error:
                lost.append(str(error).strip().splitlines()[-1][:300])
    return lost


def options(needed: Mapping[str, float], retries: int) -> dict[str, Any]:
    """The options of a task of Ray's.

    Args:
      needed: What a group needs on its machine: CPU, GPU, and resources of other names.
      retries: How often a group is started again whose machine was lost.
    """
    return {
        "num_cpus": needed.get("CPU", 1.0),
        "num_gpus": needed.get("GPU", 0.0),
        "resources": {name: amount for name, amount in needed.items() if name not in ("CPU", "GPU")},
        "max_retries": retries,
    }


def train_group(
    tasks: Sequence[Task],
    known: Sequence[TrainConfig],
    runner: Kind | Literal["auto"],
    folder: str,
    report: Callable[[Ended], None],
) -> list[Ended]:
    """Trains runs on the machine where it is called.

    Args:
      tasks: The runs.
      known: Runs from which follows in which numbers these differ.
      runner: How a device works on them.
      folder: The working directory of the search.
      report: Takes the end of each run as it comes.

    Returns:
      The ends of all runs.
    """
    os.chdir(folder)
    ends: list[Ended] = []

    def ended(task: Task, end: End, seconds: float) -> None:
        # Errors of several arguments do not survive the way back.
        ends.append((task.number, TrainingError(str(end)) if isinstance(end, SeqjaxError) else end, seconds))
        report(ends[-1])

    Trainer(known, runner=runner, size=None).train(tasks, ended)
    return ends


def _warn_of_missing(machines: Sequence[Mapping[str, float]], needed: Mapping[str, float]) -> None:
    """Says so where no machine can take a task: Ray waits in silence until one joins."""
    fits = any(all(node.get(name, 0.0) >= amount for name, amount in needed.items()) for node in machines)
    if not fits:
        logger.warning(
            "[WARNING] No machine of the Ray cluster has the ray_resources %s, so that nothing starts until "
            "one joins. There are: %s.",
            dict(needed),
            [{name: node.get(name, 0.0) for name in needed} for node in machines],
        )


def _groups(tasks: Sequence[Task], size: int) -> Iterator[list[Task]]:
    for group in grouped_by_shape([(task, task.config) for task in tasks]):
        for begin in range(0, len(group), size):
            yield group[begin : begin + size]


def _share(count: int, there: Mapping[str, float], needed: Mapping[str, float]) -> int:
    """The number of runs of a group, if every place where one fits is to get one."""
    places = [there.get(name, 0.0) / amount for name, amount in needed.items() if amount > 0]
    return max(1, math.ceil(count / max(1, math.floor(min(places, default=1.0)))))
