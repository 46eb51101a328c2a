"""Runs that are trained together leave what each would leave alone, and go on alone where they must."""

import logging
from types import SimpleNamespace
from typing import Any

import jax
import pytest

import seqjax.commands.train_together as train_together
from seqjax.artifacts.layout import Layout
from seqjax.commands.train import TrainResult, train_until
from seqjax.commands.train_checkpoints import Saver
from seqjax.commands.train_together import Paused, Task, Workshop
from seqjax.errors import TrainingError
from seqjax.sweep.space import plan
from tests.commands.test_hyperparameter_search import project
from tests.searches import METADATA, search

__all__ = ["project"]

pytestmark = pytest.mark.usefixtures("compile_once", "compile_fast")


def tasks(root, **training):
    config = search(training=training, export_generative_model=False, project_root=str(root))
    return [Task(one.run, one.config) for one in plan(config, METADATA).candidates]


@pytest.mark.parametrize("error", [jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no"), MemoryError()])
def test_runs_that_do_not_even_fit_alone_are_trained_by_themselves(project, monkeypatch, caplog, error):
    """There `train` makes micro-batches smaller; a run that ended before is left alone."""
    ended, alone = [], []

    def short_of_memory(bench, some, leave):
        leave(some[0], TrainingError("the first"), 0.0)
        raise error

    def by_itself(config, until):
        alone.append((config.model_name, until))
        if config.model_name.endswith("1"):
            raise TrainingError("too little memory for batches of 4 windows in 4 parts")
        return TrainResult((), (), 1, 0.5, 2, {})

    monkeypatch.setattr(train_together._Bench, "train", short_of_memory)
    monkeypatch.setattr(train_together, "train_until", by_itself)
    some = tasks(project, learning_rate=[0.1, 0.2, 0.3], epochs=[2, 2, 2])
    with caplog.at_level(logging.WARNING):
        Workshop().train(some, lambda task, end, seconds: ended.append((task.number, end)))
    assert alone == [("demo-run-1", None), ("demo-run-2", None)]
    assert [number for number, _ in ended] == [0, 1, 2]
    assert "in 4 parts" in str(ended[1][1])
    assert isinstance(ended[2][1], TrainResult)
    assert "2 runs are trained one after the other" in caplog.text


def test_another_error_of_the_accelerator_is_a_fault(project, monkeypatch):
    def broken(bench, some, leave):
        raise jax.errors.JaxRuntimeError("INTERNAL: something broke")

    monkeypatch.setattr(train_together._Bench, "train", broken)
    with pytest.raises(jax.errors.JaxRuntimeError):
        Workshop().train(tasks(project), lambda task, end, seconds: None)


def test_windows_are_read_again_where_a_column_is_of_another_kind():
    """A column of whole numbers can be either; its windows hold ids or standardised values."""
    config = SimpleNamespace(training_data_path="a", validation_data_path="b", seq_length=3)
    workshop, read = Workshop(), []
    for kind in ("categorical", "categorical", "real"):
        data = SimpleNamespace(windows=lambda kind=kind: read.append(kind) or kind)
        job: Any = SimpleNamespace(config=config, schema=SimpleNamespace(columns={"count": kind}), data=data)
        assert workshop._data(job) == kind
    assert read == ["categorical", "real"]


def test_a_run_in_the_middle_of_an_epoch_goes_on_alone_until_its_limit(project, monkeypatch):
    """A search that was interrupted within an epoch, and goes on with others than the run beside."""
    (task,) = tasks(project, epochs=[3], save_interval_steps=5, save_interval_epochs=3)
    saved = Saver._save

    def save_and_interrupt(saver, standing):
        saved(saver, standing)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Saver, "_save", save_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_until(task.config, None)
    found = []
    Workshop().train([Task(0, task.config, until=2)], lambda task, end, seconds: found.append(end))
    assert isinstance(found[0], Paused)
    assert found[0].epoch == 2
    layout = Layout(project, "demo-run-0")
    assert layout.saved_epochs() == [2]
    Workshop().train([Task(0, task.config, until=2)], lambda task, end, seconds: found.append(end))
    assert found[1] == found[0]
