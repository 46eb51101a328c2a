"""A member of a population is what it would be alone, whatever becomes of the others."""

import logging
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from seqjax.errors import ArtifactError, TrainingError
from seqjax.stopping import Note
from seqjax.training import runners
from seqjax.training.evaluate import Evaluation
from seqjax.training.events import BatchEvent, EpochEvent, PauseEvent, ResumeEvent, StateEvent
from seqjax.training.loop import Population
from seqjax.training.objective import Losses
from tests.populations import config, members, quick, solo
from tests.training.conftest import fit

HUBER = {"criterion": {"item": "CrossEntropyLoss", "value": "HuberLoss"}}
BASE = {"dropout": 0.1, "gradient_clip": 0.5, "label_smoothing": 0.1, **HUBER}
VARIED = {
    "nothing": {},
    "learning_rate": {"learning_rate": 0.01},
    "scheduler": {"scheduler": {"name": "CosineAnnealingLR", "T_max": 17}},
    "schedule by batches": {
        "scheduler": {"name": "WarmupCosine", "total_steps": 102},
        "scheduler_step_on": "batch",
    },
    "epochs": {"epochs": 18},
    "dropout": {"dropout": 0.4},
    "no dropout": {"dropout": 0.0},
    "gradient_clip": {"gradient_clip": 0.05},
    "no clip": {"gradient_clip": None},
    "label_smoothing": {"label_smoothing": 0.3},
    "huber_delta": {"huber_delta": 0.2},
    "loss_weights": {"loss_weights": {"item": 0.2, "value": 2.0}},
    "class_weights": {"class_weights": {"item": [1.0, 0.5, 2.0, 3.0, 0.25]}},
    "weight_decay": {"optimizer": {"name": "AdamW", "weight_decay": 0.5}},
    "betas": {"optimizer": {"name": "AdamW", "weight_decay": 0.02, "betas": [0.7, 0.95]}},
    "eps": {"optimizer": {"name": "AdamW", "weight_decay": 0.02, "eps": 0.1}},
    "seed": {"seed": 8},
}


def configs():
    """One run for each field, each with another value of it."""
    return [
        config(
            BASE | {key: value for key, value in changes.items() if key != "seed"},
            seed=changes.get("seed", 3),
        )
        for changes in VARIED.values()
    ]


POPULATIONS = {}
FOLDS = {}


def population(kind, run, group, slots):
    """A population; one that differs in nothing that is compiled is used again."""
    criteria = tuple(target.criterion for target in run.recipe.targets)
    structure = str(jax.tree.structure(group[0].values))
    key = kind, slots, criteria, structure, jax.config.read("jax_enable_x64")
    if key not in POPULATIONS:
        POPULATIONS[key] = Population(run, kind=kind, slots=slots)
    return POPULATIONS[key]


def trained(kind, some, *, slots=None) -> list[Any]:
    """How the members of a population end, in their order."""
    run, group = members(some)
    ended = []
    population(kind, run, group, slots or len(group)).train(group, ended.append)
    assert set(ended) == set(group)
    return [member.error or member.state for member in group]


def alone(settings):
    """The parameters of a run that is trained by itself, with its numbers compiled in."""
    spec = settings.training_spec
    run, params = solo(settings, like=quick(settings))
    compiled_in = (spec.dropout, spec.gradient_clip, spec.label_smoothing, spec.loss_weights)
    key = repr((*compiled_in, spec.criterion, spec.huber_delta, spec.class_weights, spec.optimizer))
    by_itself = FOLDS.setdefault(key, Population(run))
    nothing = Evaluation(Losses({"item": 1.0}, {"item": 1.0}), {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_itself, "_evaluate", lambda slots: dict.fromkeys(slots, nothing))
        return fit(by_itself, run.begin(params), epochs=spec.epochs, run=run).state


def distance(one, other):
    """The largest difference of a tensor, relative to its size."""
    return max(
        np.linalg.norm(a - b) / np.linalg.norm(b)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


@pytest.fixture(scope="module")
def double():
    """Twice the precision, in which rounding does not hide what differs."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def ends(double):
    """Members of each runner, which differ in every field at once."""
    return {kind: trained(kind, configs()) for kind in ("vmap", "loop")}


@pytest.mark.parametrize("field", VARIED)
def test_a_member_equals_its_solo_run(double, ends, field):
    place = list(VARIED).index(field)
    expected = alone(configs()[place])
    assert expected.step >= 100
    for kind, found in ends.items():
        assert distance(found[place].state.params, expected.params) < 1e-6, kind


@pytest.mark.parametrize("kind", ["loop", "vmap"])
def test_members_that_predict_densities_equal_their_solo_runs(double, kind):
    density = {"criterion": {"item": "CrossEntropyLoss", "value": "GaussianNLLLoss"}}
    varied = ({"learning_rate": 0.01}, {"loss_weights": {"item": 0.2, "value": 2.0}})
    some = [config(BASE | density | changes) for changes in varied]
    for end, settings in zip(trained(kind, some), some, strict=True):
        assert distance(end.state.params, alone(settings).params) < 1e-6


def test_a_member_that_diverges_changes_no_other():
    """Bit for bit, where they are computed by one program; a loop has one for each."""
    wild = config(BASE | {"learning_rate": 1e30, "gradient_clip": None})
    healthy = [config(BASE | {"learning_rate": rate, "epochs": 3}) for rate in (0.001, 0.002, 0.004)]
    calm, upset = trained("vmap", healthy), trained("vmap", [healthy[0], wild, healthy[2]])
    assert isinstance(upset[1], TrainingError)
    assert "is not finite at step" in str(upset[1])
    for place in (0, 2):
        jax.tree.map(np.testing.assert_array_equal, calm[place].state, upset[place].state)
        assert calm[place].best_loss == upset[place].best_loss


@pytest.mark.parametrize("kind", ["loop", "vmap"])
def test_what_is_compiled_ahead_is_not_compiled_again(kind, caplog):
    run, group = members([config(BASE | {"learning_rate": rate, "epochs": 2}) for rate in (0.001, 0.002)])
    together = Population(run, kind=kind, slots=2)
    jax.config.update("jax_log_compiles", True)  # In all threads.
    try:
        with caplog.at_level(logging.WARNING):
            together.compile(replace(group[0]))
            together.train(group, lambda member: None)
    finally:
        jax.config.update("jax_log_compiles", False)
    assert [member.state.epoch for member in group] == [2, 2]
    # The update and the evaluation.
    assert caplog.text.count("Finished XLA compilation of jit(loop)") == 2


def test_slots_are_refilled_and_members_end_by_themselves():
    """Five runs of different lengths in two slots: the same as each alone, in the order in which they end."""
    lengths = [3, 1, 2, 4, 1]
    some = [config(BASE | {"epochs": length}, seed=seed) for seed, length in enumerate(lengths)]
    run, group = members(some)
    events = {id(member): [] for member in group}
    for member in group:
        member.hooks = [events[id(member)].append]
    order = []
    Population(run, kind="vmap", slots=2).train(group, order.append)
    assert [group.index(member) for member in order] == [1, 0, 2, 4, 3]
    together = trained("loop", some)
    for place, member in enumerate(group):
        assert member.state.epoch == lengths[place]
        assert distance(member.state.state.params, together[place].state.params) < 1e-4
        told = events[id(member)]
        epochs = [event.epoch for event in told if isinstance(event, EpochEvent)]
        assert epochs == list(range(lengths[place] + 1))
        finished = [event.finished for event in told if isinstance(event, StateEvent)]
        assert finished == [False] * (lengths[place] - 1) + [True]
        batches = [event.batch for event in told if isinstance(event, BatchEvent)]
        assert batches == [3, 6] * lengths[place]


def test_a_member_goes_on_from_where_it_stands():
    settings = config(BASE | {"epochs": 4})
    whole = trained("loop", [settings, settings])[0]
    run, group = members([settings, settings])
    for member in group:
        member.until = 2
    population("loop", run, group, 2).train(group, lambda member: None)
    halves = [member.state for member in group]
    assert [half.epoch for half in halves] == [2, 2]
    run, group = members([settings, settings])
    group[0].state = halves[0]
    population("loop", run, group, 2).train(group, lambda member: None)
    assert [member.state.epoch for member in group] == [4, 4]
    jax.tree.map(np.testing.assert_array_equal, group[0].state.state.params, whole.state.params)
    assert group[0].state.best_epoch == whole.best_epoch


@pytest.mark.parametrize("kind", ["loop", "vmap"])
def test_members_go_on_in_the_middle_of_an_epoch_as_they_would_have(kind):
    """At different updates of their epochs, beside one that is new; they save at their own intervals."""
    changes = BASE | {"epochs": 3, "save_interval_steps": 4}
    some = [config(changes | {"learning_rate": 0.01 * seed}, seed=seed) for seed in (1, 2, 3)]
    run, group = members(some)
    told = [[] for _ in group]
    for member, events in zip(group, told, strict=True):
        member.hooks = [events.append]
    together = population(kind, run, group, 3)
    together.train(group, lambda member: None)
    paused = [[event.state for event in events if isinstance(event, PauseEvent)] for events in told]
    assert [(state.epoch, state.progress and state.progress.updates) for state in paused[0]] == [
        (0, 4),
        (1, 2),
        (2, 4),
    ]
    again, heard = members(some)[1], [[] for _ in group]
    again[0].state, again[1].state = paused[0][1], paused[1][0]
    for member, events in zip(again, heard, strict=True):
        member.hooks = [events.append]
    together.train(again, lambda member: None)
    assert [event for event in heard[0] if isinstance(event, ResumeEvent)] == [ResumeEvent(2, 2, 6)]
    for place, member in enumerate(again):
        jax.tree.map(np.testing.assert_array_equal, member.state.state, group[place].state.state)
        rest, whole = (losses(events[place]) for events in (heard, told))
        assert rest == whole[len(whole) - len(rest) :]
        assert member.state.losses == group[place].state.losses
    assert [len(losses(events)) for events in heard] == [6, 8, 10]


def losses(events):
    """What the events tell of batches and epochs, times apart."""
    return [
        (event.epoch, event.batch, event.losses)
        if isinstance(event, BatchEvent)
        else (event.epoch, event.evaluation.losses, event.training)
        for event in events
        if isinstance(event, BatchEvent | EpochEvent)
    ]


@pytest.fixture
def single():
    """Plain precision, whatever other tests are in."""
    with jax.enable_x64(False):
        yield


def test_updates_that_float16_skips_are_told_as_in_a_solo_run(single):
    float16 = {"layer_type_dtypes": {"linear": "float16", "embedding": "float16"}, "epochs": 1}
    some = [config(float16 | {"loss_weights": {"item": weight, "value": 1.0}}) for weight in (3e3, 3e4)]
    expected = []
    for settings in some:
        run, params = solo(settings)
        fit(Population(run), run.begin(params), epochs=1, hooks=[expected.append])
    for kind in ("vmap", "loop"):
        run, group = members(some)
        told = [[], []]
        for member, events in zip(group, told, strict=True):
            member.hooks = [events.append]
        Population(run, kind=kind, slots=2).train(group, lambda member: None)
        assert skipped(told[0] + told[1]) == skipped(expected)
    assert any(count for _, count in skipped(expected))


def skipped(events):
    """(batch, skipped updates) of all batch events."""
    return [(event.batch, event.skipped) for event in events if isinstance(event, BatchEvent)]


def test_too_many_slots_are_halved(monkeypatch):
    """Out of memory in the second epoch: members go on, two at a time, from where they were."""
    some = [config(BASE | {"epochs": 2}, seed=seed) for seed in range(4)]
    expected = trained("vmap", some)
    trains = runners.Stacked.train
    calls = []

    def train(self, slots, low, high):
        calls.append((self._slots, low))
        if self._slots == 4 and len([low for _, low in calls if low == 0]) == 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return trains(self, slots, low, high)

    monkeypatch.setattr(runners.Stacked, "train", train)
    found = trained("vmap", some)
    POPULATIONS.clear()
    assert [slots for slots, low in calls if low == 0] == [4, 4, 2, 2]
    for one, other in zip(found, expected, strict=True):
        assert one.epoch == 2
        assert distance(one.state.params, other.state.params) < 1e-4


def test_where_not_even_one_fits_batches_are_cut_and_at_last_it_is_saved(monkeypatch):
    """In the second epoch: the first is not lost."""
    run, (member,) = members([config(BASE)])
    told = []
    member.hooks = [told.append]
    trains = runners.Loop.train

    def train(self, slots, low, high):
        if any(isinstance(event, StateEvent) for event in told):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return trains(self, slots, low, high)

    monkeypatch.setattr(runners.Loop, "train", train)
    Population(run).train([member], lambda member: None)
    assert isinstance(told[-1], PauseEvent)
    assert (told[-1].state.epoch, told[-1].signal) == (1, 0)
    assert "too little memory for batches of 4 windows in 4 parts" in str(member.error)


def test_a_member_that_cannot_be_saved_keeps_no_other_from_it(caplog):
    run, group = members([config(BASE | {"epochs": 3, "learning_rate": rate}) for rate in (0.1, 0.2)])
    told, note = [], Note()

    def full_disk(event):
        if isinstance(event, PauseEvent):
            raise ArtifactError("No checkpoint could be written.")

    def stop_after_an_epoch(event):
        told.append(event)
        note.signal = signal.SIGINT if isinstance(event, StateEvent) else note.signal

    group[0].hooks, group[1].hooks = [full_disk], [stop_after_an_epoch]
    with pytest.raises(KeyboardInterrupt):
        Population(run, slots=2).train(group, lambda member: None, note)
    assert isinstance(told[-1], PauseEvent)
    assert told[-1].state.epoch == 1
    progress = told[-1].state.progress
    assert progress is not None
    assert progress.updates > 0
    assert "No checkpoint could be written." in caplog.text


@pytest.mark.parametrize("kind", ["vmap", "loop"])
def test_what_a_member_keeps_holds_no_memory_of_others(kind):
    for end in trained(kind, [config(BASE | {"epochs": 1}, seed=seed) for seed in range(2)]):
        assert all(leaf.base is None for leaf in jax.tree.leaves((end.state, end.best)))


SPREAD = """
import jax, sys
import numpy as np
from tests.populations import config, members
from tests.training.test_population import BASE, distance
from seqjax.training.loop import Population
from seqjax.training.placement import Placement
from seqjax.training.feed import ResidentFeed
from tests.populations import SCHEMA, splits
from tests.training.conftest import FAST_TO_COMPILE
from dataclasses import replace

kind, count, accumulation = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rates = 0.001, 0.003, 0.01, 0.03, 0.1
changes = BASE | {"epochs": 2, "accumulation_steps": accumulation}
some = [config(changes | {"learning_rate": rate}, seed=seed) for seed, rate in enumerate(rates)]
ends = []
for devices in (1, count):
    run, group = members(some)
    placement = Placement(jax.devices()[:devices])
    windows, columns = splits()[0], tuple(SCHEMA.columns)
    feed = ResidentFeed(windows, columns, compiler_options=FAST_TO_COMPILE, placement=placement)
    run = replace(run, training=feed, validation=feed, placement=placement)
    Population(run, kind=kind, slots=5).train(group, lambda member: None)
    ends.append([member.state for member in group])
for place in range(5):
    assert distance(ends[1][place].state.params, ends[0][place].state.params) < 1e-5
    assert abs(ends[1][place].best_loss / ends[0][place].best_loss - 1) < 1e-5
print("equal on", len(jax.devices()), "devices")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "devices", "accumulation"), [("vmap", 4, 1), ("vmap", 3, 3), ("loop", 3, 3)]
)
def test_members_are_shared_out_among_devices(kind, devices, accumulation):
    """Five members: the same as on one. Those of a loop are cut by batches, whose size is no multiple."""
    root = Path(__file__).parents[2]
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(root),
    }
    found = subprocess.run(
        [sys.executable, "-c", SPREAD, kind, str(devices), str(accumulation)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == "equal on 4 devices\n", found.stderr[-2000:]
