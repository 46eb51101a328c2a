"""Trains on all devices there are and prints, as JSON, what was found; `test_processes` starts it.

Devices must be there when jax is first used, and processes are what they are, so that neither can be had in
the process that runs the tests.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.training.evaluate import Evaluator
from seqjax.training.events import BatchEvent, EpochEvent
from seqjax.training.feed import ResidentFeed, StreamedFeed
from seqjax.training.loop import Population
from seqjax.training.placement import Placement
from seqjax.training.processes import agree, connect, is_first, wait_for_all
from seqjax.training.setup import Run
from seqjax.windows.order import Order
from tests.training.conftest import FAST_TO_COMPILE, fit, make_case, make_windows

SIZE, EPOCHS = 11, 25


def curve(kind: type, placement: Placement) -> list[float]:
    """The loss at each of 50 updates on two batches of 11 windows (the second has 10), and after them."""
    case = make_case()
    recipe = case.recipe(dropout=0.1, clip=0.5, accumulation=1)
    feed = kind(case.windows, case.columns, compiler_options=FAST_TO_COMPILE, placement=placement)
    run = Run(
        recipe,
        Evaluator(lambda params, batch: recipe.apply(params, batch, None), tuple(case.targets)),
        feed,
        feed,
        lambda epoch: case.order(SIZE, epoch=epoch),
        validation_order=case.order(SIZE),
        learning_rate=lambda *_: 0.003,
        key=jax.random.key(0),
        log_interval=1,
        placement=placement,
    )
    losses = []

    def note(event: object) -> None:
        if isinstance(event, BatchEvent):
            losses.append(event.losses.total)
        elif isinstance(event, EpochEvent) and event.epoch == 0:
            losses.append(event.evaluation.losses.total)

    state = fit(Population(run), run.begin(case.params), epochs=EPOCHS, hooks=[note])
    return [*losses, state.best_loss]


def seen(kind: type, placement: Placement) -> list[int]:
    """How often each of 45 windows is in the batches of an epoch."""
    lengths = np.where(np.arange(45) % 2, 1, 2)
    windows = make_windows({"row": np.arange(46, dtype=np.int32)}, 1, lengths=lengths)
    feed = kind(windows, ("row",), placement=placement)

    def count(counts, batch, index, constants):
        # The first item of a full window, or the only one, is what the window's number is.
        first = jnp.where(batch.padding == 0, batch.columns["row"][:, 0], batch.columns["row"][:, 1])
        return counts.at[first].add((batch.padding < 2).astype(jnp.int32))

    order = Order(45, SIZE, seed=1, epoch=1)
    counts = feed.fold(count)(jnp.zeros(45, jnp.int32), (), feed.place(order), 0, len(order))
    return np.asarray(counts).tolist()


def main() -> None:
    """Prints the number of devices and processes, then curves and counts by feed."""
    connect()
    agree([7], "A number")
    found: dict[str, object] = {"devices": len(jax.devices()), "processes": jax.process_count()}
    for kind in (ResidentFeed, StreamedFeed):
        found[f"all {kind.__name__}"] = curve(kind, Placement(jax.devices()))
        found[f"all {kind.__name__} seen"] = seen(kind, Placement(jax.devices()))
    if jax.process_count() == 1:
        found["one ResidentFeed"] = curve(ResidentFeed, Placement(jax.devices()[:1]))
    wait_for_all("done")
    if is_first():
        sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
