"""Searches on a Ray cluster: this machine alone, which is one."""

import importlib.util
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from seqjax.commands import search_ray
from seqjax.commands.hyperparameter_search import hyperparameter_search
from seqjax.commands.search_engines import Record
from seqjax.commands.search_ray import _connect, _groups, _share, _warn_of_missing, options, train_group
from seqjax.commands.train_run import Task, TrainResult
from seqjax.errors import ConfigError, MissingPackageError, TrainingError
from seqjax.sweep.space import plan
from tests.commands.test_hyperparameter_search import project, quick
from tests.searches import METADATA, search

__all__ = ["project"]

pytestmark = pytest.mark.usefixtures("compile_once", "compile_fast")


def tasks(**training):
    return [Task(one.run, one.config) for one in plan(search(training=training), METADATA).candidates]


def test_groups_are_of_one_shape_and_not_too_large():
    some = tasks(learning_rate=[0.1, 0.2, 0.3], epochs=[1, 1, 1], batch_size=[4, 8])
    found = [[task.number for task in group] for group in _groups(some, 2)]
    assert sorted(number for group in found for number in group) == list(range(6))
    assert [len(group) for group in found] == [2, 1, 2, 1]
    for group in found:
        assert len({some[number].config.training_spec.batch_size for number in group}) == 1


def test_runs_are_shared_out_among_the_places_there_are():
    assert _share(10, {"CPU": 8.0, "GPU": 2.0}, {"CPU": 2.0, "GPU": 1.0}) == 5
    assert _share(10, {"CPU": 8.0}, {"CPU": 2.0}) == 3
    assert _share(10, {"CPU": 1.0}, {"CPU": 4.0}) == 10
    assert _share(3, {"CPU": 64.0}, {"CPU": 1.0}) == 1


def test_a_group_reports_what_came_of_each_run_as_it_ends(project, monkeypatch):
    """As a worker does it; a failure comes back as text."""
    quick(monkeypatch)
    config = search(training={"learning_rate": [0.01, 1e30], "epochs": [1, 1]}, project_root=str(project))
    tasks = [Task(one.run, one.config) for one in plan(config, METADATA).candidates]
    told = []
    came = {number: end for number, end, _ in train_group(tasks, [], "loop", str(Path.cwd()), told.append)}
    assert isinstance(came[0], TrainResult)
    assert came[0].last_epoch == 1
    assert "is not finite" in str(came[1])
    assert {number: end for number, end, _ in told} == came


def test_without_ray_the_message_says_what_to_install(project, monkeypatch):
    monkeypatch.setattr("seqjax.commands.search_ray.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r'pip install "seqjax\[ray\]"'):
        hyperparameter_search(search(engine="ray", project_root=str(project)))


@pytest.fixture
def failing_ray(monkeypatch):
    """Stands in for a Ray that refuses each address; which were tried."""
    tried = []

    def init(address, **options):
        tried.append(address)
        raise ValueError("Malformed address\nand more")

    ray = SimpleNamespace(is_initialized=lambda: False, init=init)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return tried


def test_an_address_that_ray_refuses_is_the_problem_of_its_key(failing_ray, monkeypatch):
    message = r"ray_address: 'nonsense' leads to no Ray cluster \(Malformed address\)\. Give the HOST:PORT"
    with pytest.raises(ConfigError, match=message):
        _connect(search(engine="ray", ray_address="nonsense"))
    monkeypatch.setenv("RAY_ADDRESS", "other")
    with pytest.raises(ConfigError, match=r"ray_address: 'other' \(from the environment variable"):
        _connect(search(engine="ray"))
    assert failing_ray == ["nonsense", None]


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_ray_is_not_asked_for_an_address_where_nobody_listens(failing_ray, scheme):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConfigError, match=f"ray_address: '{scheme}127.0.0.1:{port}' leads to no Ray cluster"):
        _connect(search(engine="ray", ray_address=f"{scheme}127.0.0.1:{port}"))
    assert failing_ray == []


def test_a_task_needs_what_the_configuration_says():
    assert options({"CPU": 4.0, "GPU": 0.5, "fast": 1.0}, 2) == {
        "num_cpus": 4.0,
        "num_gpus": 0.5,
        "resources": {"fast": 1.0},
        "max_retries": 2,
    }
    assert options({}, 0)["num_cpus"] == 1.0


def test_a_cluster_without_such_a_machine_is_told_of(caplog):
    machines = [{"CPU": 8.0}, {"CPU": 2.0, "GPU": 1.0}]
    _warn_of_missing(machines, {"CPU": 2.0, "GPU": 1.0})
    assert not caplog.text
    _warn_of_missing(machines, {"CPU": 4.0, "GPU": 1.0})
    assert "No machine of the Ray cluster has" in caplog.text


@pytest.fixture
def cluster():
    """A Ray cluster of this machine, with room for one task."""
    import ray

    variables = {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    }
    ray.init(
        num_cpus=2,
        resources={"place": 1},
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": variables},
    )
    yield
    ray.shutdown()


def kill_workers():
    """Kills the processes of this cluster that train; how many there were."""
    killed = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            training = (folder / "cmdline").read_bytes().startswith(b"ray::train_group")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            own = int(Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[1]) == os.getpid()
        except (OSError, ProcessLookupError):
            continue
        if training and own:
            os.kill(int(folder.name), signal.SIGKILL)
            killed += 1
    return killed


def kill_when_training(root, killed):
    """Kills the worker that goes on with the second run, once it has come further."""
    log = root / "logs/sequifier-there-run-1-rank0.jsonl"
    before = log.stat().st_size
    deadline = time.monotonic() + 300
    while log.stat().st_size <= before + 500 and time.monotonic() < deadline:
        time.sleep(0.005)
    killed.append(kill_workers())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_a_search_on_a_cluster_whose_workers_are_lost(project, monkeypatch, cluster):
    """Given up the first time, started again by Ray the second; the ranking is that of this process."""
    quick(monkeypatch)
    monkeypatch.setattr(search_ray, "_SECONDS_BETWEEN_LOOKS", 0.01)
    training = {"learning_rate": [0.01, 0.03, 0.001], "epochs": [1, 60, 2], "save_interval_epochs": 5}

    def settings(name, **changes):
        top = {"hp_search_name": name, "project_root": str(project), "export_generative_model": False}
        return search(training=training, **top, **changes)

    there = {"engine": "ray", "population_size": 2, "ray_resources": {"CPU": 1, "place": 1}}
    expected = hyperparameter_search(settings("here", engine="vmap"))
    noted, killed, add = [], [], Record.add

    def add_and_kill(record, task, end, seconds, *, left):
        add(record, task, end, seconds, left=left)
        noted.append(task.number)
        if len(killed) < 1:
            killed.append(kill_workers())

    monkeypatch.setattr(Record, "add", add_and_kill)
    with pytest.raises(TrainingError, match="Ray gave 1 runs up"):
        hyperparameter_search(settings("there", **there, ray_retries=0))
    # The first run was noted while the second of its group was trained, and the other group was not hurt.
    assert (noted, killed) == ([0, 2], [1])
    monkeypatch.setattr(Record, "add", add)
    helper = threading.Thread(target=kill_when_training, args=(project, killed))
    helper.start()
    rows = hyperparameter_search(settings("there", **there, ray_retries=1))
    helper.join()
    assert killed == [1, 1]
    assert [row["combination"] for row in rows] == [row["combination"] for row in expected]
    for one, other in zip(rows, expected, strict=True):
        assert one["best_validation_loss"] == pytest.approx(other["best_validation_loss"], rel=1e-4)
    for run, epochs in enumerate(training["epochs"]):
        lines = (project / f"logs/sequifier-there-run-{run}-rank0.jsonl").read_text().splitlines()
        found = [event["epoch"] for event in map(json.loads, lines) if event["event"] == "validation"]
        # The first worker may be lost before its first checkpoint, and the run is begun anew.
        assert found[-epochs - 1 :] == list(range(epochs + 1))
        assert found.count(epochs) == 1
