import dataclasses
import logging
import re
import signal

import jax
import numpy as np
import pytest

from seqjax.config.model import ModelSpec
from seqjax.config.optimization import NamedSpec
from seqjax.config.schema import Schema
from seqjax.errors import TrainingError
from seqjax.model import functional
from seqjax.optim.optimizers import build_optimizer
from seqjax.optim.schedules import build_schedule
from seqjax.stopping import Stopped
from seqjax.training.agreement import Wishes
from seqjax.training.epoch import Setup, learning_rates, momenta, span_end
from seqjax.training.evaluate import Evaluation, Evaluator, build_evaluate
from seqjax.training.events import BatchEvent, EpochEvent, PauseEvent, StandingEvent
from seqjax.training.feed import ResidentFeed, StreamedFeed
from seqjax.training.loop import evaluate_start, fit
from seqjax.training.metrics import Losses
from seqjax.training.objective import Target
from seqjax.training.state import new_state
from seqjax.training.step import Recipe, build_step, forward
from seqjax.windows.order import Order
from tests.training.conftest import make_windows
from tests.training.test_baselines import chain, entropy_rate


@pytest.fixture(scope="module")
def setup(case):
    """A run of the case with batches of 4."""
    feed, recipe = case.feed(), case.recipe(dropout=0.1, clip=0.5)
    return Setup(
        feed=feed,
        fold=feed.fold(build_step(recipe)),
        order=lambda epoch: case.order(4, epoch=epoch),
        learning_rate=build_schedule(NamedSpec.of("StepLR", step_size=1, gamma=0.5), 0.01),
        evaluate=build_evaluate(
            Evaluator(lambda params, batch: recipe.apply(params, batch, None), tuple(case.targets)),
            feed,
            case.order(4),
        ),
        targets=case.targets,
        key=jax.random.key(0, impl="rbg"),
        log_interval=2,
    )


def start(case):
    return case.state(case.recipe())


def scripted(setup, losses):
    """The run with made-up validation losses."""
    queue = iter(losses)

    def evaluate(params):
        return Evaluation(Losses({"item": next(queue)}, {"item": 1.0}), {})

    return dataclasses.replace(setup, evaluate=evaluate)


def test_events_of_an_epoch(case, setup):
    events = []
    fit(setup, start(case), epochs=2, hooks=[events.append])
    kinds = [type(event).__name__ for event in events]
    assert kinds == ["BatchEvent"] * 3 + ["EpochEvent", "StandingEvent"] + kinds[5:]
    batches = [event for event in events if isinstance(event, BatchEvent)]
    assert [event.batch for event in batches] == [2, 4, 6] * 2
    assert [event.samples for event in batches] == [8, 8, 5] * 2
    assert [event.learning_rate for event in batches] == pytest.approx([0.01] * 3 + [0.005] * 3)
    ends = [event for event in events if isinstance(event, StandingEvent)]
    assert [event.finished for event in ends] == [False, True]


def test_the_same_seed_gives_the_same_losses(case, setup):
    first, second = [], []
    fit(setup, start(case), epochs=2, hooks=[first.append])
    fit(setup, start(case), epochs=2, hooks=[second.append])
    losses = [
        [event.losses for event in events if isinstance(event, BatchEvent)] for events in (first, second)
    ]
    assert losses[0] == losses[1]


def test_going_on_equals_going_through(case, setup):
    through = fit(setup, start(case), epochs=4)
    half = fit(setup, start(case), epochs=2)
    resumed = fit(setup, half, epochs=4)
    jax.tree.map(np.testing.assert_array_equal, (through.state, through.best), (resumed.state, resumed.best))
    assert (through.best_loss, through.best_epoch) == (resumed.best_loss, resumed.best_epoch)


@pytest.mark.parametrize(("kind", "name"), [(ResidentFeed, "loop"), (StreamedFeed, "step")])
def test_a_run_and_its_resumption_compile_the_update_once(case, setup, caplog, kind, name):
    recipe, feed = case.recipe(dropout=0.1), case.feed(kind)
    run = dataclasses.replace(setup, feed=feed, fold=feed.fold(build_step(recipe)), save_interval=4)
    pauses = []

    def hook(event):
        if isinstance(event, PauseEvent):
            pauses.append(event.standing)

    evaluate_start(run, case.params)  # The evaluation has been compiled by then.
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        fit(run, start(case), epochs=3, hooks=[hook])
        fit(run, pauses[0], epochs=2)
    compiled = [record.message for record in caplog.records if f"Compiling jit({name})" in record.message]
    assert len(compiled) == 1


def logged(events):
    return [
        (type(event).__name__, event.epoch, getattr(event, "batch", 0), event.losses)
        if isinstance(event, BatchEvent)
        else (type(event).__name__, event.epoch, event.evaluation, event.training)
        for event in events
        if isinstance(event, BatchEvent | EpochEvent)
    ]


@pytest.mark.parametrize("feed", [ResidentFeed, StreamedFeed])
def test_going_on_from_any_update_equals_going_through(case, setup, feed):
    recipe, source = case.recipe(dropout=0.1, clip=0.5), case.feed(feed)
    run = dataclasses.replace(setup, feed=source, fold=source.fold(build_step(recipe)), log_interval=4)
    whole, pauses = [], []
    through = fit(run, start(case), epochs=2, hooks=[whole.append])
    paused = dataclasses.replace(run, save_interval=1)
    seen = []

    def hook(event):
        seen.append(event)
        if isinstance(event, PauseEvent):
            pauses.append((event.standing, len(logged(seen))))

    fit(paused, start(case), epochs=2, hooks=[hook])
    assert logged(seen) == logged(whole)
    places = [(standing.epoch, standing.part and standing.part.updates) for standing, _ in pauses]
    assert places == [(epoch, update) for epoch in (0, 1) for update in range(1, 6)]
    for standing, before in pauses:
        rest = []
        resumed = fit(run, standing, epochs=2, hooks=[rest.append])
        assert logged(rest) == logged(whole)[before:]
        jax.tree.map(np.testing.assert_array_equal, resumed.state, through.state)
        assert (resumed.best_loss, resumed.best_epoch) == (through.best_loss, through.best_epoch)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Stopped)])
def test_a_signal_ends_the_run_after_the_next_dispatch(case, setup, number, error):
    asked, events = [], []

    def control():
        asked.append(len(asked))
        return Wishes(signal=number if len(asked) > 2 else 0)

    with pytest.raises(error):
        fit(setup, start(case), epochs=2, hooks=[events.append], control=control)
    last = events[-1]
    assert isinstance(last, PauseEvent)
    assert (last.signal, last.standing.epoch) == (number, 0)
    assert last.standing.part is not None
    assert 3 <= last.standing.part.updates <= 6


def test_a_signal_in_the_evaluation_keeps_the_updates(case, setup):
    events = []

    def evaluate(params):
        raise Stopped(signal.SIGUSR1)

    run = dataclasses.replace(setup, evaluate=evaluate)
    with pytest.raises(Stopped):
        fit(run, start(case), epochs=2, hooks=[events.append])
    assert events[-1].standing.part.updates == 6
    resumed = fit(setup, events[-1].standing, epochs=1)
    jax.tree.map(np.testing.assert_array_equal, resumed.state, fit(setup, start(case), epochs=1).state)


def test_the_message_names_the_windows_of_the_batch(case, setup):
    run = dataclasses.replace(
        setup, learning_rate=lambda step, losses: 1e30, describe=lambda rows: f"rows {list(rows)}"
    )
    with pytest.raises(TrainingError) as error:
        fit(run, start(case), epochs=1)
    step = int(re.findall(r"at step (\d+)", str(error.value))[0])
    assert f"Its windows: rows {list(case.order(4).batch(step - 1))}." in str(error.value)


def test_the_best_is_strictly_lower_and_patience_counts(case, setup):
    run = scripted(setup, [3.0, 2.0, 2.0, 2.5, 2.0, 1.0])
    standing = fit(run, start(case), epochs=6, patience=3)
    assert (standing.epoch, standing.best_epoch, standing.best_loss, standing.stale) == (5, 2, 2.0, 3)
    best = fit(scripted(setup, [3.0, 2.0]), start(case), epochs=2).best
    jax.tree.map(np.testing.assert_array_equal, standing.best, best)


def test_epoch_0_is_no_candidate(case, setup):
    event = evaluate_start(scripted(setup, [0.5]), case.params)
    assert isinstance(event, EpochEvent)
    assert (event.epoch, event.training) == (0, None)
    assert fit(scripted(setup, [1.0]), start(case), epochs=1).best_loss == 1.0


def test_a_loss_that_is_not_finite_ends_the_run(case, setup):
    wild = dataclasses.replace(setup, learning_rate=lambda step, losses: 1e30)
    with pytest.raises(
        TrainingError, match=r"not finite at step ([23]): epoch 1, batch \1 of 6 \(learning rate 1e\+30\)"
    ):
        fit(wild, start(case), epochs=1)
    with pytest.raises(TrainingError, match="validation loss is nan after epoch 1"):
        fit(scripted(setup, [float("nan")]), start(case), epochs=1)


def test_schedules_step_by_epoch_or_batch(setup):
    run = dataclasses.replace(setup, learning_rate=lambda step, losses: float(step))
    assert list(learning_rates(run, 3, 4)) == [2, 2, 2, 2]
    by_batch = dataclasses.replace(run, step_on_batch=True)
    assert list(learning_rates(by_batch, 3, 4)) == [8, 9, 10, 11]
    # An update takes the rate of its last batch; the last update of an epoch may have fewer.
    assert list(learning_rates(dataclasses.replace(by_batch, accumulation=3), 2, 4)) == [6, 7]


def test_spans_cover_an_epoch_and_end_with_log_intervals():
    ends = [span_end(update, 250, 100) for update in (0, 63, 64, 99, 100, 163, 164, 199, 200, 249)]
    assert ends == [64, 64, 100, 100, 164, 164, 200, 200, 250, 250]


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
    setup = Setup(
        feed=train,
        fold=train.fold(build_step(recipe)),
        order=lambda epoch: Order(len(windows["train"]), size, epoch=epoch),
        learning_rate=build_schedule(NamedSpec.of("CosineAnnealingLR", T_max=8), 1e-2),
        evaluate=build_evaluate(
            Evaluator(lambda p, batch: apply(p, batch, None), tuple(targets)), valid, known
        ),
        targets=targets,
        key=jax.random.key(0, impl="rbg"),
    )
    standing = fit(setup, new_state(params, recipe.optimizer), epochs=8)
    assert standing.best_loss == pytest.approx(entropy_rate(transitions), rel=0.03)


def test_a_schedule_hears_of_every_validation_loss(case, setup):
    spec = NamedSpec.of("ReduceLROnPlateau", factor=0.5, patience=1)
    losses = [1.0, 2.0, 2.0, 2.0, 2.0, 0.5]
    run = dataclasses.replace(setup, learning_rate=build_schedule(spec, 0.01))
    events = []
    through = fit(scripted(run, losses), start(case), epochs=6, hooks=[events.append])
    rates = [event.learning_rate for event in events if isinstance(event, EpochEvent)]
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.005, 0.005, 0.0025])
    half = fit(scripted(run, losses[:3]), start(case), epochs=3)
    assert half.losses == (1.0, 2.0, 2.0)
    resumed = fit(scripted(run, losses[3:]), half, epochs=6)
    jax.tree.map(np.testing.assert_array_equal, resumed.state, through.state)


def test_a_schedule_moves_momentum(case, setup):
    spec = NamedSpec.of("OneCycleLR", max_lr=0.01, total_steps=12)
    schedule = build_schedule(spec, 0.01)
    by_batch = dataclasses.replace(
        setup, learning_rate=schedule, momentum=schedule.momentum, step_on_batch=True
    )
    found, momentum = momenta(by_batch, 2, 6), schedule.momentum
    assert found is not None
    assert momentum is not None
    np.testing.assert_allclose(found, [momentum(step) for step in range(6, 12)], rtol=1e-6)
    cycled = fit(by_batch, start(case), epochs=2)
    still = fit(dataclasses.replace(by_batch, momentum=None), start(case), epochs=2)
    same = jax.tree.map(np.array_equal, cycled.state.params, still.state.params)
    assert not any(jax.tree.leaves(same))
