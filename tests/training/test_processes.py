import json
import os
import socket
import subprocess
import sys
import threading

import jax
import pytest

from seqjax.config.optimization import NamedSpec
from seqjax.config.train import TrainingSpec
from seqjax.errors import TrainingError
from seqjax.training import processes
from seqjax.training.processes import connect, explaining_lost_processes, find_devices

CHILD = [sys.executable, "-m", "tests.training.devices_child"]


def start(**variables):
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "OMPI", "XLA"))
    }
    return subprocess.Popen(
        CHILD, env={**clean, "JAX_PLATFORMS": "cpu", **variables}, stdout=subprocess.PIPE, text=True
    )


def result(child):
    found, _ = child.communicate(timeout=500)
    assert child.returncode == 0
    return json.loads(found.splitlines()[-1]) if found.endswith("}\n") else None


@pytest.fixture(scope="module")
def eight():
    """What one process found on eight devices, and on one of them."""
    return result(start(XLA_FLAGS="--xla_force_host_platform_device_count=8"))


@pytest.fixture(scope="module")
def two():
    """What two processes found, each with a device."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    launch = {"SEQJAX_COORDINATOR": address, "SEQJAX_NUM_PROCESSES": "2"}
    children = [start(**launch, SEQJAX_PROCESS_ID=str(number)) for number in range(2)]
    first, second = [result(child) for child in children]
    assert second is None  # Only the first process writes.
    return first


@pytest.mark.parametrize("feed", ["ResidentFeed", "StreamedFeed"])
def test_devices_and_processes_give_the_numbers_of_one_device(eight, two, feed):
    assert (eight["devices"], eight["processes"]) == (8, 1)
    assert (two["devices"], two["processes"]) == (2, 2)
    expected = eight["one ResidentFeed"]
    assert len(expected) == 52  # Before the first update, at each of 50, and after the last.
    assert eight[f"all {feed}"] == pytest.approx(expected, abs=1e-5)
    assert two[f"all {feed}"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("feed", ["ResidentFeed", "StreamedFeed"])
def test_every_window_is_seen_once_an_epoch(eight, two, feed):
    assert eight[f"all {feed} seen"] == two[f"all {feed} seen"] == [1] * 45


def spec(**changes):
    values = {
        "device": "cpu",
        "epochs": 1,
        "save_interval_epochs": 1,
        "batch_size": 1,
        "learning_rate": 0.1,
        "criterion": {},
        "optimizer": NamedSpec.of("Adam"),
    }
    return TrainingSpec(**values | changes)


def test_the_world_is_what_is_there_or_is_an_error():
    assert len(find_devices(spec())) == 1
    count = len(find_devices(spec(distributed=True)))
    assert len(find_devices(spec(distributed=True, world_size=count))) == count
    with pytest.raises(
        TrainingError, match=rf"world_size: 64 devices are expected, but there are {count} \(1 "
    ):
        find_devices(spec(distributed=True, world_size=64))
    with pytest.raises(TrainingError, match=r"device is cpu:0\. Set device: cpu, or distributed: false"):
        find_devices(spec(distributed=True, device="cpu:0"))


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"SEQJAX_COORDINATOR": "a:1"}, "SEQJAX_NUM_PROCESSES, SEQJAX_PROCESS_ID must be set too"),
        (
            {"SEQJAX_COORDINATOR": "a:1", "SEQJAX_NUM_PROCESSES": "2", "SEQJAX_PROCESS_ID": "2"},
            "--process-id one from 0 to N - 1 .found a:1, 2, 2.",
        ),
        (
            {"SEQJAX_COORDINATOR": "a", "SEQJAX_NUM_PROCESSES": "2", "SEQJAX_PROCESS_ID": "1"},
            "--coordinator must be HOST:PORT",
        ),
    ],
)
def test_an_incomplete_launch_is_explained(environment, message):
    with pytest.raises(TrainingError, match=message):
        connect(environment)


def test_a_process_that_waits_in_vain_says_for_whom(monkeypatch):
    monkeypatch.setattr(processes, "_PATIENCE", 0.01)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: threading.Event().wait(1))
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    launch = {"SEQJAX_COORDINATOR": "a:1", "SEQJAX_NUM_PROCESSES": "2", "SEQJAX_PROCESS_ID": "1"}
    with pytest.raises(TrainingError, match=r"\(not all came within 0 seconds, of 2 at a:1\)\. Start one"):
        connect(launch)


@pytest.mark.parametrize(("processes", "expected"), [(2, TrainingError), (1, ValueError)])
def test_a_lost_process_is_told_from_other_errors(monkeypatch, processes, expected):
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    with pytest.raises(expected, match="Gloo all-reduce failed"), explaining_lost_processes():
        raise ValueError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer")
    with pytest.raises(ValueError, match="another"), explaining_lost_processes():
        raise ValueError("another")


def test_a_process_that_was_started_alone_is_alone():
    connect({"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "1"})
    assert not jax.distributed.is_initialized()
