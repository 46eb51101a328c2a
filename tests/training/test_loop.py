import dataclasses
import logging
import re
import signal

import jax
import numpy as np
import pytest
from jax import monitoring

from seqjax.config.model import ModelSpec
from seqjax.config.optimization import NamedSpec
from seqjax.config.schema import Schema
from seqjax.errors import TrainingError
from seqjax.model import functional
from seqjax.optim.optimizers import build_optimizer
from seqjax.optim.schedules import build_schedule
from seqjax.stopping import Note, Stopped, stop_error
from seqjax.training.epoch import Epoch, scheduled
from seqjax.training.evaluate import Evaluation, Evaluator
from seqjax.training.events import BatchEvent, EpochEvent, PauseEvent, StateEvent
from seqjax.training.feed import ResidentFeed, StreamedFeed
from seqjax.training.loop import Member, Population
from seqjax.training.objective import Losses, Target
from seqjax.training.setup import Run
from seqjax.training.step import Recipe, forward
from seqjax.windows.order import Order
from tests.training.conftest import fit, make_windows
from tests.training.test_baselines import chain, entropy_rate


def run_of(case, *, kind=ResidentFeed, **changes):
    """A run of the case with batches of 4."""
    feed, recipe = case.feed(kind), case.recipe(dropout=0.1, clip=0.5)
    run = Run(
        recipe,
        Evaluator(lambda params, batch: recipe.apply(params, batch, None), tuple(case.targets)),
        feed,
        feed,
        lambda epoch: case.order(4, epoch=epoch),
        validation_order=case.order(4),
        learning_rate=build_schedule(NamedSpec.of("StepLR", step_size=1, gamma=0.5), 0.01),
        key=jax.random.key(0, impl="rbg"),
        log_interval=2,
    )
    return dataclasses.replace(run, **changes)


@pytest.fixture(scope="module")
def population(case):
    """Programs of the case's run."""
    return Population(run_of(case))


def start(case):
    return run_of(case).begin(case.params)


class Scripted:
    """A population whose validation losses after each epoch are made up."""

    def __init__(self, population, losses, first: float | None = 3.0):
        self.run = population.run
        self._population = population
        self._losses = iter([first, *losses] if first is not None else losses)

    def train(self, *arguments):
        def evaluate(slots):
            losses = Losses({"item": next(self._losses)}, {"item": 1.0})
            return {slot: Evaluation(losses, {}) for slot in slots} if slots else {}

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self._population, "_evaluate", lambda slots: evaluate(slots) if slots else {})
            self._population.train(*arguments)


def test_events_of_an_epoch(case, population):
    events = []
    fit(population, start(case), epochs=2, hooks=[events.append])
    kinds = [type(event).__name__ for event in events]
    assert kinds == ["EpochEvent"] + (["BatchEvent"] * 3 + ["EpochEvent", "StateEvent"]) * 2
    batches = [event for event in events if isinstance(event, BatchEvent)]
    assert [event.batch for event in batches] == [2, 4, 6] * 2
    assert [event.samples for event in batches] == [8, 8, 5] * 2
    assert [event.learning_rate for event in batches] == pytest.approx([0.01] * 3 + [0.005] * 3)
    ends = [event for event in events if isinstance(event, StateEvent)]
    assert [event.finished for event in ends] == [False, True]


def test_the_same_seed_gives_the_same_losses(case, population):
    first, second = [], []
    fit(population, start(case), epochs=2, hooks=[first.append])
    fit(population, start(case), epochs=2, hooks=[second.append])
    losses = [
        [event.losses for event in events if isinstance(event, BatchEvent)] for events in (first, second)
    ]
    assert losses[0] == losses[1]


def test_going_on_equals_going_through(case, population):
    through = fit(population, start(case), epochs=4)
    half = fit(population, start(case), epochs=2)
    resumed = fit(population, half, epochs=4)
    jax.tree.map(np.testing.assert_array_equal, (through.state, through.best), (resumed.state, resumed.best))
    assert (through.best_loss, through.best_epoch) == (resumed.best_loss, resumed.best_epoch)


@pytest.mark.parametrize(("kind", "name"), [(ResidentFeed, "loop"), (StreamedFeed, "step")])
def test_a_run_and_its_resumption_compile_update_and_evaluation_once(case, caplog, kind, name):
    population, pauses = Population(run_of(case, kind=kind, save_interval=4)), []

    def hook(event):
        if isinstance(event, PauseEvent):
            pauses.append(event.state)

    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        fit(population, start(case), epochs=3, hooks=[hook])
        fit(population, pauses[0], epochs=2)
    compiled = [record.message for record in caplog.records if f"Compiling jit({name})" in record.message]
    assert len(compiled) == 2


COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.mark.parametrize(("kind", "slots"), [("loop", 1), ("loop", 2), ("vmap", 2)])
def test_how_much_is_compiled_does_not_depend_on_the_number_of_epochs(case, kind, slots):
    counts, compiled = [], []
    monitoring.register_event_duration_secs_listener(
        lambda event, duration_secs, **_: compiled.append(event) if event == COMPILED else None
    )
    try:
        for epochs in (10, 110):
            jax.clear_caches()
            compiled.clear()
            population = Population(run_of(case, log_interval=100), kind=kind, slots=slots)
            members = [Member(population.run, start(case), epochs) for _ in range(slots)]
            population.train(members, lambda _: None)
            assert all(member.state.epoch == epochs for member in members)
            counts.append(len(compiled))
    finally:
        jax.monitoring.clear_event_listeners()
    assert 2 <= counts[0] == counts[1]


def logged(events):
    return [
        (type(event).__name__, event.epoch, getattr(event, "batch", 0), event.losses)
        if isinstance(event, BatchEvent)
        else (type(event).__name__, event.epoch, event.evaluation, event.training)
        for event in events
        if isinstance(event, BatchEvent | EpochEvent)
    ]


@pytest.mark.parametrize("feed", [ResidentFeed, StreamedFeed])
def test_going_on_from_any_update_equals_going_through(case, feed):
    population = Population(run_of(case, kind=feed, log_interval=4))
    whole, pauses = [], []
    through = fit(population, start(case), epochs=2, hooks=[whole.append])
    paused = dataclasses.replace(population.run, save_interval=1)
    seen = []

    def hook(event):
        seen.append(event)
        if isinstance(event, PauseEvent):
            pauses.append((event.state, len(logged(seen))))

    fit(population, start(case), epochs=2, hooks=[hook], run=paused)
    assert logged(seen) == logged(whole)
    places = [(state.epoch, state.progress and state.progress.updates) for state, _ in pauses]
    assert places == [(epoch, update) for epoch in (0, 1) for update in range(1, 6)]
    for state, before in pauses:
        rest = []
        resumed = fit(population, state, epochs=2, hooks=[rest.append])
        assert logged(rest) == logged(whole)[before:]
        jax.tree.map(np.testing.assert_array_equal, resumed.state, through.state)
        assert (resumed.best_loss, resumed.best_epoch) == (through.best_loss, through.best_epoch)


class Asked(Note):
    """A signal that comes when it is asked for the third time."""

    def __init__(self, number):
        self._number, self._count = number, 0
        super().__init__()

    @property
    def signal(self):  # type: ignore[override]
        self._count += 1
        return self._number if self._count > 2 else 0

    @signal.setter
    def signal(self, number):  # type: ignore[override]
        pass


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Stopped)])
def test_a_signal_ends_the_run_after_the_next_dispatch(case, number, error):
    events = []
    with pytest.raises(error):
        fit(Population(run_of(case)), start(case), epochs=2, hooks=[events.append], note=Asked(number))
    last = events[-1]
    assert isinstance(last, PauseEvent)
    assert (last.signal, last.state.epoch) == (number, 0)
    assert last.state.progress is not None
    assert 3 <= last.state.progress.updates <= 6


def test_a_signal_in_the_evaluation_keeps_the_updates(case, population, monkeypatch):
    events, evaluate = [], population._evaluate

    def interrupted(slots):
        if population._members[0].state.losses or any(isinstance(event, BatchEvent) for event in events):
            raise stop_error(signal.SIGUSR1)
        return evaluate(slots)

    with monkeypatch.context() as patched:
        patched.setattr(population, "_evaluate", interrupted)
        with pytest.raises(Stopped):
            fit(population, start(case), epochs=2, hooks=[events.append])
    assert events[-1].state.progress.updates == 6
    resumed = fit(population, events[-1].state, epochs=1)
    through = fit(population, start(case), epochs=1)
    jax.tree.map(np.testing.assert_array_equal, resumed.state, through.state)


def test_the_message_names_the_windows_of_the_batch(case, population):
    run = dataclasses.replace(
        population.run, learning_rate=lambda step, losses: 1e30, describe=lambda rows: f"rows {list(rows)}"
    )
    with pytest.raises(TrainingError) as error:
        fit(population, start(case), epochs=1, run=run)
    step = int(re.findall(r"at step (\d+)", str(error.value))[0])
    assert f"Its windows: rows {list(case.order(4).batch(step - 1))}." in str(error.value)


def test_the_best_is_strictly_lower_and_patience_counts(case, population):
    run = Scripted(population, [3.0, 2.0, 2.0, 2.5, 2.0, 1.0])
    state = fit(run, start(case), epochs=6, patience=3)
    assert (state.epoch, state.best_epoch, state.best_loss, state.stale) == (5, 2, 2.0, 3)
    best = fit(Scripted(population, [3.0, 2.0]), start(case), epochs=2).best
    jax.tree.map(np.testing.assert_array_equal, state.best, best)


def test_epoch_0_is_no_candidate(case, population):
    events = []
    state = fit(Scripted(population, [1.0], first=0.5), start(case), epochs=1, hooks=[events.append])
    assert isinstance(events[0], EpochEvent)
    assert (events[0].epoch, events[0].evaluation.losses.total, events[0].training) == (0, 0.5, None)
    assert state.best_loss == 1.0


def test_a_loss_that_is_not_finite_ends_the_run(case, population):
    wild = dataclasses.replace(population.run, learning_rate=lambda step, losses: 1e30)
    with pytest.raises(
        TrainingError, match=r"not finite at step ([23]): epoch 1, batch \1 of 6 \(learning rate 1e\+30\)"
    ):
        fit(population, start(case), epochs=1, run=wild)
    with pytest.raises(TrainingError, match="validation loss is nan after epoch 1"):
        fit(Scripted(population, [float("nan")]), start(case), epochs=1)


def test_schedules_step_by_epoch_or_batch(case):
    run = run_of(case)
    assert list(scheduled(run, 3, 4, float)) == [2, 2, 2, 2]
    by_batch = dataclasses.replace(run, step_on_batch=True)
    assert list(scheduled(by_batch, 3, 4, float)) == [8, 9, 10, 11]
    # An update takes the rate of its last batch; the last update of an epoch may have fewer.
    by_threes = dataclasses.replace(by_batch, recipe=case.recipe(accumulation=3))
    assert list(scheduled(by_threes, 2, 4, float)) == [6, 7]


def test_sums_are_the_same_to_the_bit_however_rows_are_cut(case):
    run = run_of(case, log_interval=5, order=lambda epoch: Order(4000, 4, epoch=epoch))
    rows = np.random.default_rng(0).normal(size=(1000, 5)).astype(np.float32) * 1e3
    rows[:, -1] = 0
    begin, found = start(case), []
    for cuts in ([], [1, 2, 64, 65, 128, 999], range(7, 1000, 7)):
        epoch, events = Epoch(run, begin), []
        for block in np.split(rows, cuts):
            events += [(event.batch, event.losses) for event in epoch.read(block, 0.1)]
            left = dataclasses.replace(begin, progress=epoch.progress)
            epoch = Epoch(run, left)  # Taken up again.
        found.append((events, epoch.losses))
    assert found[0] == found[1] == found[2]
    assert [batch for batch, _ in found[0][0]] == list(range(5, 1001, 5))


def test_a_chain_is_learnt_to_near_its_entropy_rate():
    transitions = np.random.default_rng(4).dirichlet(np.full(5, 0.5), size=5) * 0.98 + 0.004
    length, size = 16, 64
    windows = {
        split: make_windows(
            {"item": chain(transitions, rows, seed)}, length, starts=np.arange(0, rows - 20, 8)
        )
        for split, rows, seed in (("train", 16_000, 1), ("valid", 8_000, 2))
    }
    schema = Schema(
        n_classes={"item": 7},
        categorical_inputs=("item",),
        real_inputs=(),
        targets={"item": "categorical"},
        seq_length=length,
    )
    spec = ModelSpec(initial_embedding_dim=16, dim_model=16, n_head=2, dim_feedforward=32, num_layers=1)
    graphdef, params = functional.init(schema, spec, seed=0)
    apply, targets = forward(graphdef, schema.inputs), (Target("item", "CrossEntropyLoss"),)
    recipe = Recipe(apply, targets, build_optimizer(NamedSpec.of("AdamW")), 1, 0.5)
    train, valid = (ResidentFeed(windows[split], ("item",)) for split in ("train", "valid"))
    known = Order(len(windows["valid"]), size, shuffle=False)
    run = Run(
        recipe,
        Evaluator(lambda p, batch: apply(p, batch, None), targets),
        train,
        valid,
        lambda epoch: Order(len(windows["train"]), size, epoch=epoch),
        validation_order=known,
        learning_rate=build_schedule(NamedSpec.of("CosineAnnealingLR", T_max=8), 1e-2),
        key=jax.random.key(0, impl="rbg"),
    )
    state = fit(Population(run), run.begin(params), epochs=8)
    assert state.best_loss == pytest.approx(entropy_rate(transitions), rel=0.03)


def test_a_schedule_hears_of_every_validation_loss(case, population):
    spec = NamedSpec.of("ReduceLROnPlateau", factor=0.5, patience=1)
    losses = [1.0, 2.0, 2.0, 2.0, 2.0, 0.5]
    run = dataclasses.replace(population.run, learning_rate=build_schedule(spec, 0.01))
    events = []
    through = fit(Scripted(population, losses), start(case), epochs=6, hooks=[events.append], run=run)
    rates = [event.learning_rate for event in events if isinstance(event, EpochEvent) and event.epoch]
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.005, 0.005, 0.0025])
    half = fit(Scripted(population, losses[:3]), start(case), epochs=3, run=run)
    assert half.losses == (1.0, 2.0, 2.0)
    resumed = fit(Scripted(population, losses[3:], first=None), half, epochs=6, run=run)
    jax.tree.map(np.testing.assert_array_equal, resumed.state, through.state)


def test_a_schedule_moves_momentum(case):
    spec = NamedSpec.of("OneCycleLR", max_lr=0.01, total_steps=12)
    schedule = build_schedule(spec, 0.01)
    by_batch = run_of(case, learning_rate=schedule, momentum=schedule.momentum, step_on_batch=True)
    second = dataclasses.replace(start(case), epoch=1)
    found, momentum = Epoch(by_batch, second).constants.momenta, schedule.momentum
    assert found is not None
    assert momentum is not None
    np.testing.assert_allclose(found, [momentum(step) for step in range(6, 12)], rtol=1e-6)
    cycled = fit(Population(by_batch), start(case), epochs=2)
    still = fit(Population(dataclasses.replace(by_batch, momentum=None)), start(case), epochs=2)
    same = jax.tree.map(np.array_equal, cycled.state.params, still.state.params)
    assert not any(jax.tree.leaves(same))
