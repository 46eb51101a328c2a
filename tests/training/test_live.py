from seqjax.training.live import live_view, size

from seqjax.console import Advance
from seqjax.training.evaluate import Evaluation
from seqjax.training.events import BatchEvent, EpochEvent
from seqjax.training.metrics import Losses

LOSSES = Losses({"item": 1.23456, "price": 0.5}, {"item": 1.0, "price": 2.0})
METRICS = {"item": {"perplexity": 3.4, "top_1_accuracy": 0.51239}, "price": {"mae": 12.0, "rmse": 20.0}}
BATCH = BatchEvent(
    epoch=2, batch=30, batches=40, count=10, losses=LOSSES, learning_rate=0.00125, seconds=0.5, samples=640
)


class Bar(Advance):
    def __init__(self):
        self.count = 0
        self.shown = {}

    def advance(self, n=1, **shown):
        self.count += n
        self.shown |= shown


def test_the_bar_moves_by_batches_and_shows_how_the_run_does():
    bar = Bar()
    hook = live_view(bar, lambda: 56_700_000)
    hook(BATCH)
    hook(EpochEvent(2, Evaluation(LOSSES, {}, METRICS), 0.001, 3.0))
    assert bar.count == 10
    assert bar.shown == {
        "epoch": "2",
        "loss": "2.235",
        "lr": "0.00125",
        "samples/s": "1,280",
        "memory": "57 MB",
        "validation": "2.235",
        "item": "top-1 0.5124",
        "price": "MAE 12",
    }


def test_many_targets_are_left_to_the_log():
    bar = Bar()
    metrics = {str(index): METRICS["item"] for index in range(4)}
    live_view(bar, int)(EpochEvent(2, Evaluation(LOSSES, {}, metrics), 0.001, 3.0))
    assert list(bar.shown) == ["validation"]


def test_sizes():
    assert size(1_234_000_000) == "1.23 GB"
    assert size(56_700_000) == "57 MB"
