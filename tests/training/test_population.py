"""A member of a population is what it would be alone, whatever becomes of the others."""

import logging
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from seqjax.sweep.population import Population

from seqjax.errors import ArtifactError, TrainingError
from seqjax.training.evaluate import Evaluation
from seqjax.training.events import BatchEvent, EpochEvent, PauseEvent, StandingEvent
from seqjax.training.loop import fit
from seqjax.training.metrics import Losses
from tests.populations import config, members, quick, solo

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


def population(kind, programs, group, slots):
    """A population; one that differs in nothing that is compiled is used again."""
    key = kind, slots, str(jax.tree.structure(group[0].values)), jax.config.read("jax_enable_x64")
    if key not in POPULATIONS:
        POPULATIONS[key] = Population(programs, kind, slots)
    return POPULATIONS[key]


def trained(kind, some, *, slots=None):
    """How the members of a population end, in their order."""
    programs, group = members(some)
    ends = {}
    population(kind, programs, group, slots or len(group)).train(
        group, lambda member, end: ends.__setitem__(id(member), end)
    )
    return [ends[id(member)] for member in group]


def alone(settings):
    """The parameters of a run that is trained by itself, with its numbers compiled in."""
    spec = settings.training_spec
    run, params = solo(settings, beside=quick(settings))
    compiled_in = (
        spec.dropout,
        spec.gradient_clip,
        spec.label_smoothing,
        spec.loss_weights,
        spec.huber_delta,
    )
    key = repr((*compiled_in, spec.class_weights, spec.optimizer))
    first = FOLDS.setdefault(key, run)
    nothing = Evaluation(Losses({"item": 1.0}, {"item": 1.0}), {})
    setup = replace(run.setup, feed=first.setup.feed, fold=first.setup.fold, evaluate=lambda _: nothing)
    return fit(setup, run.begin(params), epochs=spec.epochs).state


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
    return {kind: trained(kind, configs()) for kind in ("vmap", "map", "loop")}


@pytest.mark.parametrize("field", VARIED)
def test_a_member_equals_its_solo_run(double, ends, field):
    place = list(VARIED).index(field)
    expected = alone(configs()[place])
    assert expected.step >= 100
    for kind, found in ends.items():
        assert distance(found[place].state.params, expected.params) < 1e-6, kind


def test_a_member_that_diverges_changes_no_other():
    """Bit for bit, where they are computed by one program; a loop has one for each."""
    wild = config(BASE | {"learning_rate": 1e30, "gradient_clip": None})
    healthy = [config(BASE | {"learning_rate": rate, "epochs": 3}) for rate in (0.001, 0.002, 0.004)]
    for kind in ("vmap", "map"):
        calm, upset = trained(kind, healthy), trained(kind, [healthy[0], wild, healthy[2]])
        assert isinstance(upset[1], TrainingError)
        assert "is not finite in epoch 1, update" in str(upset[1])
        for place in (0, 2):
            jax.tree.map(np.testing.assert_array_equal, calm[place].state, upset[place].state)
            assert calm[place].best_loss == upset[place].best_loss


@pytest.mark.parametrize("kind", ["loop", "map"])
def test_what_is_compiled_ahead_is_not_compiled_again(kind, caplog):
    programs, group = members(
        [config(BASE | {"learning_rate": rate, "epochs": 2}) for rate in (0.001, 0.002)]
    )
    together = Population(programs, kind, 2)
    ends = []
    jax.config.update("jax_log_compiles", True)  # In all threads.
    try:
        with caplog.at_level(logging.WARNING):
            together.compile(replace(group[0]))
            together.train(group, lambda member, end: ends.append(end))
    finally:
        jax.config.update("jax_log_compiles", False)
    assert [end.epoch for end in ends] == [2, 2]
    # The update and the evaluation.
    assert caplog.text.count("Finished XLA compilation of jit(loop)") == 2


def test_slots_are_refilled_and_members_end_by_themselves():
    """Five runs of different lengths in two slots: the same as each alone, in the order in which they end."""
    lengths = [3, 1, 2, 4, 1]
    some = [config(BASE | {"epochs": length}, seed=seed) for seed, length in enumerate(lengths)]
    programs, group = members(some)
    events = {id(member): [] for member in group}
    for member in group:
        member.hooks = [events[id(member)].append]
    order = []
    Population(programs, "map", 2).train(group, lambda member, end: order.append((group.index(member), end)))
    assert [place for place, _ in order] == [1, 0, 2, 4, 3]
    together = trained("loop", some)
    for place, end in order:
        assert end.epoch == lengths[place]
        assert distance(end.state.params, together[place].state.params) < 1e-4
        told = events[id(group[place])]
        epochs = [event.epoch for event in told if isinstance(event, EpochEvent)]
        assert epochs == list(range(lengths[place] + 1))
        finished = [event.finished for event in told if isinstance(event, StandingEvent)]
        assert finished == [False] * (lengths[place] - 1) + [True]
        batches = [event.batch for event in told if isinstance(event, BatchEvent)]
        assert batches == [3, 6] * lengths[place]


def test_a_member_goes_on_from_where_it_stands():
    settings = config(BASE | {"epochs": 4})
    whole = trained("loop", [settings, settings])[0]
    programs, group = members([settings, settings])
    halves = []
    for member in group:
        member.until = 2
    population("loop", programs, group, 2).train(group, lambda member, end: halves.append(end))
    assert [half.epoch for half in halves] == [2, 2]
    programs, group = members([settings, settings])
    group[0].start = halves[0]
    ends = []
    population("loop", programs, group, 2).train(group, lambda member, end: ends.append(end))
    assert [end.epoch for end in ends] == [4, 4]
    jax.tree.map(np.testing.assert_array_equal, ends[0].state.params, whole.state.params)
    assert ends[0].best_epoch == whole.best_epoch


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
        fit(run.setup, run.begin(params), epochs=1, hooks=[expected.append])
    for kind in ("map", "loop"):
        programs, group = members(some)
        told = [[], []]
        for member, events in zip(group, told, strict=True):
            member.hooks = [events.append]
        Population(programs, kind, 2).train(group, lambda member, end: None)
        assert skipped(told[0] + told[1]) == skipped(expected)
    assert any(count for _, count in skipped(expected))


def skipped(events):
    """(batch, skipped updates) of all batch events."""
    return [(event.batch, event.skipped) for event in events if isinstance(event, BatchEvent)]


def test_too_many_slots_are_halved(monkeypatch):
    """Out of memory in the second epoch: members go on, two at a time, from where they were."""
    from seqjax.sweep import runners

    some = [config(BASE | {"epochs": 2}, seed=seed) for seed in range(4)]
    expected = trained("map", some)
    trains = runners.Stacked.train
    calls = []

    def train(self, low, high):
        calls.append(self._slots)
        if self._slots == 4 and len(calls) == 4:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return trains(self, low, high)

    monkeypatch.setattr(runners.Stacked, "train", train)
    found = trained("map", some)
    POPULATIONS.clear()
    assert calls == [4] * 4 + [2] * 4
    for one, other in zip(found, expected, strict=True):
        assert one.epoch == 2
        assert distance(one.state.params, other.state.params) < 1e-4


def test_one_that_does_not_fit_alone_is_an_error_that_its_hooks_know_of_before(monkeypatch):
    """In the second epoch: the first is not lost."""
    from seqjax.sweep import runners

    programs, (member,) = members([config(BASE)])
    told = []
    member.hooks = [told.append]
    trains = runners.Loop.train

    def train(self, low, high):
        if any(isinstance(event, StandingEvent) for event in told):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return trains(self, low, high)

    monkeypatch.setattr(runners.Loop, "train", train)
    with pytest.raises(jax.errors.JaxRuntimeError):
        Population(programs, "loop", 1).train([member], lambda member, end: None)
    assert isinstance(told[-1], PauseEvent)
    assert (told[-1].standing.epoch, told[-1].signal) == (1, 0)


def test_a_member_that_cannot_be_saved_keeps_no_other_from_it(caplog):
    programs, group = members([config(BASE | {"epochs": 3, "learning_rate": rate}) for rate in (0.1, 0.2)])
    told = []

    def full_disk(event):
        if isinstance(event, PauseEvent):
            raise ArtifactError("No checkpoint could be written.")

    group[0].hooks, group[1].hooks = [full_disk], [told.append]

    def after_an_epoch():
        return signal.SIGINT if any(isinstance(event, StandingEvent) for event in told) else 0

    with pytest.raises(KeyboardInterrupt):
        Population(programs, "loop", 2).train(group, lambda member, end: None, after_an_epoch)
    assert isinstance(told[-1], PauseEvent)
    assert "No checkpoint could be written." in caplog.text


@pytest.mark.parametrize("kind", ["map", "loop"])
def test_what_a_member_keeps_holds_no_memory_of_others(kind):
    for end in trained(kind, [config(BASE | {"epochs": 1}, seed=seed) for seed in range(2)]):
        assert all(leaf.base is None for leaf in jax.tree.leaves((end.state, end.best)))


SPREAD = """
import jax, sys
import numpy as np
from tests.populations import config, members
from tests.sweep.test_population import BASE, distance
from seqjax.sweep.population import Population
from seqjax.training.placement import Placement
from seqjax.training.feed import ResidentFeed
from tests.populations import SCHEMA, data
from tests.training.conftest import FAST_TO_COMPILE
from dataclasses import replace

kind, count, accumulation = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rates = 0.001, 0.003, 0.01, 0.03, 0.1
changes = BASE | {"epochs": 2, "accumulation_steps": accumulation}
some = [config(changes | {"learning_rate": rate}, seed=seed) for seed, rate in enumerate(rates)]
ends = []
for devices in (1, count):
    programs, group = members(some)
    placement = Placement(jax.devices()[:devices])
    windows, columns = data(some[0]).training, tuple(SCHEMA.columns)
    feed = ResidentFeed(windows, columns, compiler_options=FAST_TO_COMPILE, placement=placement)
    programs = replace(programs, training=feed, validation=feed, placement=placement)
    found = {}
    def leave(member, end):
        found[group.index(member)] = end
    Population(programs, kind, 5).train(group, leave)
    ends.append(found)
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
