"""Runs that are trained together leave what each would leave alone, and go on alone where they must."""

import json
import os
import re
import signal
from dataclasses import replace
from types import SimpleNamespace

import jax
import pytest

from seqjax.artifacts.checkpoints import load_leaves
from seqjax.artifacts.layout import Layout, Place
from seqjax.commands import train as command
from seqjax.commands.train import Trainer, TrainingRun, train_until
from seqjax.commands.train_group import Group
from seqjax.commands.train_run import Paused, Saver, Task, TrainResult
from seqjax.errors import ArtifactError
from seqjax.sweep.space import plan
from seqjax.training.events import BatchEvent
from seqjax.training.logs import JsonLog, log_files
from seqjax.training.loop import Population
from seqjax.training.runners import Kind, Loop, Stacked
from tests.commands.test_hyperparameter_search import project
from tests.searches import METADATA, search
from tools.run_logs import told_last

__all__ = ["project"]

pytestmark = pytest.mark.usefixtures("compile_once", "compile_fast")


def tasks(root, **training):
    config = search(training=training, export_generative_model=False, project_root=str(root))
    return [Task(one.run, one.config) for one in plan(config, METADATA).candidates]


@pytest.fixture
def no_exports(monkeypatch):
    """Models are not written."""
    monkeypatch.setattr(command, "export", lambda *_, **__: ((), ()))


def trained(some, runner: Kind = "loop"):
    """How runs end that are trained together, by number."""
    ends = {}
    Trainer(runner=runner).train(some, lambda task, end, seconds: ends.__setitem__(task.number, end))
    return ends


def events(root, number, kind):
    """What the log of a run tells."""
    lines = Layout(root, f"demo-run-{number}").json_log().read_text().splitlines()
    return [values for values in map(json.loads, lines) if values["event"] == kind]


def saved_lines(root, number):
    """The checkpoints that the log of a run names, as (run, epoch)."""
    text = Layout(root, f"demo-run-{number}").info_log().read_text()
    return re.findall(r"Saved model to \S*/(\S+)/epoch-(\d+)", text)


@pytest.mark.usefixtures("no_exports")
def test_each_checkpoint_is_named_in_the_log_of_its_own_run(project, tmp_path):
    some = tasks(project, learning_rate=[0.1, 0.2, 0.3], epochs=[3, 3, 3])
    with log_files(tmp_path / "debug.txt", tmp_path / "info.txt"):
        trained(some)
    for number in range(3):
        assert saved_lines(project, number) == [(f"demo-run-{number}", str(epoch)) for epoch in (1, 2, 3)]
    assert "Saved model" not in (tmp_path / "info.txt").read_text()


@pytest.mark.usefixtures("no_exports")
def test_minutes_and_steps_count_in_the_middle_of_epochs(project):
    often = {"save_interval_epochs": 10, "keep_checkpoints": None}
    trained(tasks(project, learning_rate=[0.1, 0.2], epochs=[2, 2], save_interval_steps=3, **often))
    for number in range(2):
        places = [Place(0, 3), Place(0, 6), Place(1, 1), Place(1, 4), Place(1, 7), Place(2)]
        assert Layout(project, f"demo-run-{number}").saved() == places
    some = tasks(project, learning_rate=[0.1, 0.2], epochs=[2, 2], save_interval_minutes=1e-9, **often)
    trained([replace(task, config=task.config.model_copy(update={"model_name": "m"})) for task in some[:1]])
    saved = Layout(project, "m").saved()
    assert saved[-1] == Place(2)
    assert any(place.batch for place in saved)


def interrupt(monkeypatch, epoch):
    """Has a signal come in the middle of an epoch."""
    write, signals = JsonLog.__call__, iter([signal.SIGTERM])

    def told(log, event):
        write(log, event)
        if isinstance(event, BatchEvent) and (event.epoch, event.batch) == (epoch, 4):
            for number in signals:
                os.kill(os.getpid(), number)

    monkeypatch.setattr(JsonLog, "__call__", told)


@pytest.mark.usefixtures("no_exports")
@pytest.mark.parametrize("kind", ["loop", "vmap"])
def test_runs_that_were_interrupted_go_on_in_the_middle_of_an_epoch(project, monkeypatch, kind):
    """To the same end, to the bit; of what their logs tell twice, the last counts."""
    settings = {"learning_rate": [0.1, 0.2], "epochs": [3, 3], "log_interval": 1, "save_interval_epochs": 3}
    some = tasks(project, **settings)
    with monkeypatch.context() as patched:
        interrupt(patched, epoch=1)
        with pytest.raises(KeyboardInterrupt):
            trained(some, kind)
    layouts = [Layout(project, f"demo-run-{number}") for number in range(2)]
    (saved,) = {tuple(layout.saved()) for layout in layouts}
    assert len(saved) == 1
    assert saved[0].epoch == 0
    assert saved[0].batch >= 4
    trained(some, kind)
    whole = [task.config.model_copy(update={"model_name": f"whole-{task.number}"}) for task in some]
    trained([replace(task, config=config) for task, config in zip(some, whole, strict=True)], kind)
    for number, layout in enumerate(layouts):
        expected = Layout(project, f"whole-{number}")
        assert told_last(layout.json_log()) == told_last(expected.json_log())
        for name, leaf in load_leaves(layout.checkpoint(3)).items():
            assert leaf.tobytes() == load_leaves(expected.checkpoint(3))[name].tobytes()


@pytest.mark.usefixtures("no_exports")
@pytest.mark.parametrize(("epoch", "kind"), [(1, "vmap"), (2, "vmap"), (2, "loop")])
def test_runs_that_are_taken_back_tell_every_batch_again(project, monkeypatch, epoch, kind):
    """Out of memory in the middle of an epoch: it is begun anew by half as many runs at a time."""
    runner = Loop if kind == "loop" else Stacked
    trains, ends = runner.train, []

    def train(self, slots, low, high):
        if high == 8:
            ends.append(high)
            if len(ends) == epoch:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no")
        return trains(self, slots, low, high)

    monkeypatch.setattr(runner, "train", train)
    trained(tasks(project, learning_rate=[0.1, 0.2], epochs=[2, 2], log_interval=1), kind)
    assert len(ends) > 2
    for number in range(2):
        told = told_last(Layout(project, f"demo-run-{number}").json_log())
        batches = [(event["epoch"], event["batch"]) for event in told if event["event"] == "batch"]
        assert batches == [(epoch, batch) for epoch in (1, 2) for batch in range(1, 9)]
        assert [event["epoch"] for event in told if event["event"] == "validation"] == [0, 1, 2]
        assert saved_lines(project, number) == [(f"demo-run-{number}", epoch) for epoch in "12"]


@pytest.mark.parametrize("error", [jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no"), MemoryError()])
def test_runs_that_do_not_even_fit_alone_say_what_to_change(project, monkeypatch, error):
    """Slots are halved, then batches are cut, and at last each run fails by itself."""
    sizes = []

    def train(self, slots, low, high):
        sizes.append((self._slots, self._sizes["micro_batches"]))
        raise error

    monkeypatch.setattr(Loop, "train", train)
    found = trained(tasks(project, learning_rate=[0.1, 0.2, 0.3, 0.4], epochs=[2] * 4))
    assert sizes == [(4, 1), (2, 1), (1, 1), (1, 2), (1, 4), (1, 4), (1, 4), (1, 4)]
    assert list(found) == [0, 1, 2, 3]
    for end in found.values():
        assert "too little memory for batches of 4 windows in 4 parts" in str(end)


def test_another_error_of_the_accelerator_is_a_fault(project, monkeypatch):
    def broken(runner, slots, low, high):
        raise jax.errors.JaxRuntimeError("INTERNAL: something broke")

    monkeypatch.setattr(Loop, "train", broken)
    with pytest.raises(jax.errors.JaxRuntimeError):
        Trainer().train(tasks(project), lambda task, end, seconds: None)


def test_numbers_that_are_compiled_in_are_those_of_each_run(project):
    """Each call trains one run, so that nothing differs within it."""
    some = [
        task
        for rate in (0.0, 0.5, 0.0)
        for task in tasks(project, dropout=[rate], epochs=[2], criterion={"item": "CrossEntropyLoss"})
    ]
    trainer, together, alone, populations = Trainer(), [], [], []
    for place, task in enumerate(some):
        apart, other = (
            replace(task, config=task.config.model_copy(update={"model_name": f"{name}-{place}"}))
            for name in ("together", "alone")
        )
        trainer.train([apart], lambda task, end, seconds: together.append(end))
        alone.append(train_until(other))
        assert trainer._group is not None
        populations.append(trainer._group._population)
    losses = [[end.best_validation_loss for end in ends] for ends in (together, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert abs(losses[1][0] - losses[1][1]) > 1e-4
    assert populations[0] is not populations[1]
    assert populations[1] is populations[2]


def test_a_run_that_cannot_be_prepared_does_not_keep_others_of_its_shape_from_it(project):
    found = {}
    one_cycle = {"name": "OneCycleLR", "max_lr": 0.1, "total_steps": 3}
    steps = {"name": "StepLR", "step_size": 1, "gamma": 1.0}
    config = search(
        training={"learning_rate": [0.1, 0.1], "epochs": [2, 2], "scheduler": [one_cycle, steps]},
        other_sampling={"training_spec.scheduler_step_on": ["batch"]},
        export_generative_model=False,
        project_root=str(project),
    )
    some = [Task(one.run, one.config) for one in plan(config, METADATA).candidates]
    Trainer().train(some, lambda task, end, seconds: found.update({task.number: end}))
    assert "total_steps" in str(found[0])
    assert isinstance(found[1], TrainResult)


@pytest.mark.parametrize("step", ["find_checkpoint", "export"])
def test_files_are_closed_where_an_error_ends_all(project, monkeypatch, step):
    def fails(*_, **__):
        raise ArtifactError("The disk is full.")

    closed = []
    close = TrainingRun.close
    monkeypatch.setattr(command, step, fails)
    monkeypatch.setattr(TrainingRun, "close", lambda run: closed.append(run.task.number) or close(run))
    with pytest.raises(ArtifactError, match="disk is full"):
        Trainer().train(tasks(project, epochs=[1]), lambda task, end, seconds: None)
    assert closed == [0]


def test_a_run_does_not_go_back_to_be_compared(project):
    (task,) = tasks(project, epochs=[3])
    train_until(replace(task, until=2))
    with pytest.raises(ArtifactError, match="is of epoch 2, but the run is to be compared with others after"):
        Trainer().train([replace(task, until=1)], lambda task, end, seconds: None)


@pytest.mark.parametrize("has_paused", [False, True])
def test_the_next_part_of_a_run_is_not_begun_anew(project, has_paused):
    (task,) = tasks(project, epochs=[3], continue_training=False)
    train_until(replace(task, until=2))
    epochs = []
    trained = Population._epoch

    def counted(population):
        epochs.append(next(iter(population._members.values())).state.epoch)
        trained(population)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Population, "_epoch", counted)
        Trainer().train([replace(task, has_paused=has_paused)], lambda task, end, seconds: None)
    assert epochs == ([2] if has_paused else [0, 1, 2])


def test_windows_are_read_again_where_a_column_is_of_another_kind(monkeypatch):
    """A column of whole numbers can be either; its windows hold ids or standardised values."""
    config = SimpleNamespace(training_data_path="a", validation_data_path="b", seq_length=3, min_history=1)
    trainer, read = Trainer(), []
    for kind in ("categorical", "categorical", "real"):
        monkeypatch.setattr(
            "seqjax.commands.train_group.load_splits", lambda *_, kind=kind: read.append(kind) or kind
        )
        schema = SimpleNamespace(columns={"count": kind})
        group = Group.__new__(Group)
        vars(group).update(config=config, schema=schema, metadata=None, _trainer=trainer)
        assert group.splits == kind
    assert read == ["categorical", "real"]


def test_a_run_in_the_middle_of_an_epoch_goes_on_beside_others_until_its_limit(project, monkeypatch):
    """A search that was interrupted within an epoch, and goes on with others than the run beside."""
    first, second = tasks(
        project, learning_rate=[0.1, 0.2], epochs=[3, 3], save_interval_steps=5, save_interval_epochs=3
    )
    saved = Saver._save

    def save_and_interrupt(saver, state):
        saved(saver, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Saver, "_save", save_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_until(first)
    both = [replace(first, until=2), replace(second, until=2)]
    found = trained(both)
    assert isinstance(found[0], Paused)
    assert found[0].epoch == found[1].epoch == 2
    layout = Layout(project, "demo-run-0")
    assert [place for place in layout.saved() if place.batch == 0] == [Place(2)]
    assert trained(both) == found
