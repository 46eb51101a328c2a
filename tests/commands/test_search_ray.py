"""Searches on a Ray cluster: this machine alone, which is one."""

import importlib.util
from pathlib import Path

import pytest

from seqjax.artifacts.layout import Layout
from seqjax.commands.hyperparameter_search import hyperparameter_search
from seqjax.commands.search_engines import Part
from seqjax.commands.search_ray import _groups, _share, train_group
from seqjax.commands.train import TrainResult
from seqjax.commands.train_together import Task
from seqjax.errors import MissingPackageError
from seqjax.sweep.space import plan
from tests.commands.test_hyperparameter_search import project, quick
from tests.searches import METADATA, search

__all__ = ["project"]


def parts(**training):
    return [Part(candidate) for candidate in plan(search(training=training), METADATA).candidates]


def test_groups_are_of_one_shape_and_not_too_large():
    some = parts(learning_rate=[0.1, 0.2, 0.3], epochs=[1, 1, 1], batch_size=[4, 8])
    found = [[task.number for task in group] for group in _groups(some, 2)]
    assert sorted(number for group in found for number in group) == list(range(6))
    assert [len(group) for group in found] == [2, 1, 2, 1]
    for group in found:
        assert len({some[number].candidate.config.training_spec.batch_size for number in group}) == 1


def test_runs_are_shared_out_among_the_places_there_are():
    assert _share(10, {"CPU": 8.0, "GPU": 2.0}, {"CPU": 2.0, "GPU": 1.0}) == 5
    assert _share(10, {"CPU": 8.0}, {"CPU": 2.0}) == 3
    assert _share(10, {"CPU": 1.0}, {"CPU": 4.0}) == 10
    assert _share(3, {"CPU": 64.0}, {"CPU": 1.0}) == 1


def test_a_group_reports_what_came_of_each_run(project, monkeypatch):
    """As a worker does it; a failure comes back as text."""
    quick(monkeypatch)
    config = search(training={"learning_rate": [0.01, 1e30], "epochs": [1, 1]}, project_root=str(project))
    tasks = [Task(one.run, one.config) for one in plan(config, METADATA).candidates]
    came = {number: end for number, end, _ in train_group(tasks, [], "loop", str(Path.cwd()))}
    assert isinstance(came[0], TrainResult)
    assert came[0].last_epoch == 1
    assert "is not finite" in str(came[1])


def test_without_ray_the_message_says_what_to_install(project, monkeypatch):
    monkeypatch.setattr("seqjax.commands.search_ray.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r'pip install "seqjax\[ray\]"'):
        hyperparameter_search(search(engine="ray", project_root=str(project)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_a_search_on_a_local_cluster(project):
    """Groups of one shape each; the ranking is that of this process."""
    import ray

    paths = {"PYTHONPATH": str(Path(__file__).parents[2])}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": paths})
    try:
        changes = {"learning_rate": [0.01, 0.03, 0.001], "epochs": [2, 2, 2]}
        expected = hyperparameter_search(
            search(training=changes, hp_search_name="here", engine="vmap", project_root=str(project))
        )
        config = search(
            training=changes,
            hp_search_name="there",
            engine="ray",
            population_size=2,
            project_root=str(project),
        )
        rows = hyperparameter_search(config)
    finally:
        ray.shutdown()
    assert [row["combination"] for row in rows] == [row["combination"] for row in expected]
    for one, other in zip(rows, expected, strict=True):
        assert one["best_validation_loss"] == pytest.approx(other["best_validation_loss"], rel=1e-4)
        assert Layout(project, str(one["run"])).saved_epochs() == [1, 2]
