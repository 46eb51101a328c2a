"""Several devices, and several processes: how they find each other, and whether all are there.

A process meets the others through `jax.distributed`. Who they are is taken from SEQJAX_COORDINATOR,
SEQJAX_NUM_PROCESSES and SEQJAX_PROCESS_ID (the options --coordinator, --num-processes and --process-id set
them), or from the launcher: jax knows Slurm, Open MPI and Kubernetes. A process that was started by itself is
alone, and trains on the devices of its machine.

While they train, an `Agreement` sees to it that all stop at the same update.
"""

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Int

from seqjax.config.train import TrainingSpec
from seqjax.errors import TrainingError
from seqjax.training.devices import Device, find_device
from seqjax.training.placement import Placement

logger = logging.getLogger(__name__)

_PLAIN = {
    "coordinator_address": "SEQJAX_COORDINATOR",
    "num_processes": "SEQJAX_NUM_PROCESSES",
    "process_id": "SEQJAX_PROCESS_ID",
}
_LAUNCHER_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
_KUBERNETES = ("KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX")
_PATIENCE = 300.0  # Seconds that a process waits for the others.
_FOREVER = 1_000_000
# What the libraries that add up over processes call themselves when one of them is missing.
_SUMS = ("Gloo", "NCCL")


class Request(NamedTuple):
    """The request of a process, or what all of them have agreed on."""

    signal: int = 0
    """The number of the signal that asks to stop; 0 if none came."""
    save: bool = False
    size: int = 1
    """Number of updates to send at once."""


class Agreement:
    """Lets the processes of a run do the same after a dispatch.

    What each asks for travels through the devices. Nobody waits for it: like everything, it is read one
    dispatch late.
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._strongest = jax.jit(lambda asked: asked.max(axis=0), out_shardings=placement.everywhere)

    def ask(self, request: Request) -> Int[Array, "3"] | Int[np.ndarray, "3"]:
        """Sends what this process asks for; what all agree on is on its way."""
        own = np.asarray([[request.signal, request.save, -request.size]], np.int32)
        if self._placement.processes == 1:
            return own[0]
        return self._strongest(self._placement.from_local_rows(own.repeat(self._placement.own_size, axis=0)))

    @staticmethod
    def read(answer: Int[Array, "3"] | Int[np.ndarray, "3"]) -> Request:
        """Waits for what all agree on: the strongest signal, whether one is to save, the smallest size."""
        signal, save, size = np.asarray(answer).tolist()
        return Request(signal, bool(save), -size)


def connect(environment: Mapping[str, str] = os.environ) -> None:
    """Joins the other processes of a run, if there are any. Must come before jax computes anything.

    Args:
      environment: Environment variables.

    Raises:
      TrainingError: They cannot be reached, or the variables are incomplete.
    """
    plain = _plain_launch(environment)
    if plain is None and not _launched(environment):
        return
    if jax.distributed.is_initialized():
        return
    # Programs that do not wait for each other would run in any order on CPUs, and processes must agree on it.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    logger.info("[INFO] Waiting for the other processes of this run, for %.0f seconds at most.", _PATIENCE)
    problem = _meet(plain or {})
    if problem is not None:
        raise TrainingError(
            f"training_spec.distributed: the processes of this run do not find each other ({problem}). Start "
            "one process a host, all with the same --coordinator HOST:PORT and --num-processes, and "
            "--process-id 0, 1, ...; or let srun, mpirun or Kubernetes start them."
        )
    logger.info("[INFO] This is process %d of %d.", jax.process_index(), jax.process_count())


def find_devices(spec: TrainingSpec) -> list[Device]:
    """The devices of all processes that a run computes on; the first of this process's is its own.

    Args:
      spec: `device`, `distributed` and `world_size`.

    Raises:
      TrainingError: They are not there, or not as many as `world_size`.
    """
    own = find_device(spec.device)
    if not spec.distributed:
        return [own]
    if ":" in spec.device:
        raise TrainingError(
            f"training_spec.distributed: true uses all devices, but device is {spec.device}. Set device: "
            f"{spec.device.split(':')[0]}, or distributed: false."
        )
    found: list[Device] = list(jax.devices(own.platform))
    if spec.world_size is not None and spec.world_size != len(found):
        raise TrainingError(
            f"training_spec.world_size: {spec.world_size} devices are expected, but there are {len(found)} "
            f"({jax.process_count()} processes: {', '.join(map(str, found[:8]))}). Set world_size: "
            f"{len(found)}, or null to take what is there; in a job of several hosts, see that all of its "
            "processes were started."
        )
    logger.info("[INFO] Training on %d devices of %d processes.", len(found), jax.process_count())
    return found


def is_first() -> bool:
    """Tells whether this process writes for all."""
    return jax.process_index() == 0


def agree(values: Sequence[int], what: str) -> None:
    """Raises `TrainingError` unless all processes bring the same numbers."""
    if jax.process_count() == 1:
        return
    all_values = np.asarray(multihost_utils.process_allgather(np.asarray(values, np.int64)))
    differing = np.nonzero((all_values != all_values[0]).any(axis=1))[0]
    if len(differing):
        other = int(differing[0])
        raise TrainingError(
            f"{what} differs between the processes of this run: process 0 finds {all_values[0].tolist()}, "
            f"process {other} {all_values[other].tolist()}. All of them must see the same project_root, on a "
            "file system that they share."
        )


def wait_for_all(what: str) -> None:
    """Returns when all processes have come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


@contextmanager
def explaining_lost_processes() -> Iterator[None]:
    """Says in words that another process of the run was lost."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if jax.process_count() == 1 or not any(name in str(error) for name in _SUMS):
            raise
        raise TrainingError(
            f"training_spec.distributed: another process of this run was lost ({str(error)[:200]}). See what "
            "it said last, and start all of them again: the run goes on from its newest checkpoint."
        ) from error


def _meet(launch: dict[str, Any]) -> str | None:
    """Joins the others; returns why that failed.

    jax waits outside of Python, where no signal is heard, and kills the process when its own time is up.
    So it waits in a thread that is left behind.
    """
    problems: list[str] = []

    def initialize() -> None:
        try:
            jax.distributed.initialize(**launch, initialization_timeout=_FOREVER)
        except (RuntimeError, ValueError) as error:
            problems.append(str(error))

    thread = threading.Thread(target=initialize, name="meeting", daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    if thread.is_alive():
        missing = f", of {launch['num_processes']} at {launch['coordinator_address']}" if launch else ""
        return f"not all came within {_PATIENCE:.0f} seconds{missing}"
    return problems[0] if problems else None


def _plain_launch(environment: Mapping[str, str]) -> dict[str, Any] | None:
    given = {key: environment[name] for key, name in _PLAIN.items() if environment.get(name)}
    if not given:
        return None
    missing = [name for key, name in _PLAIN.items() if key not in given]
    if missing:
        raise TrainingError(
            f"{', '.join(missing)} must be set too, with {', '.join(_PLAIN[key] for key in given)} "
            "(--coordinator HOST:PORT, --num-processes N and --process-id I go together)."
        )
    try:
        count, number = int(given["num_processes"]), int(given["process_id"])
    except ValueError:
        count, number = 0, 0
    if not 0 <= number < count or ":" not in given["coordinator_address"]:
        raise TrainingError(
            "--coordinator must be HOST:PORT, --num-processes a number N and --process-id one from 0 to "
            f"N - 1 (found {', '.join(given.values())})."
        )
    return {**given, "num_processes": count, "process_id": number}


def _launched(environment: Mapping[str, str]) -> bool:
    """Tells whether a launcher that jax knows has started more than one process."""
    counts = [environment.get(name, "1") for name in _LAUNCHER_COUNTS]
    return any(count.isdigit() and int(count) > 1 for count in counts) or all(
        name in environment for name in _KUBERNETES
    )
