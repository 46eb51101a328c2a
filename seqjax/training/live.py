"""What a person sees of a run while it is under way: the numbers under the progress bar."""

from collections.abc import Callable

from seqjax.console import Advance
from seqjax.training.events import BatchEvent, EpochEvent, Event, Hook

_MANY_TARGETS = 3
_HEADLINES = {"top_1_accuracy": "top-1", "mae": "MAE"}
"""Of each target's metrics, the one that is shown, and as what."""


def live_view(bar: Advance, memory: Callable[[], int]) -> Hook:
    """A hook that moves a bar of batches, and shows how the run does.

    Args:
      bar: From `seqjax.console.progress`.
      memory: Says how many bytes are in use.
    """

    def hook(event: Event) -> None:
        match event:
            case BatchEvent():
                bar.advance(event.count, **batch_numbers(event), memory=size(memory()))
            case EpochEvent():
                bar.advance(0, **validation_numbers(event))

    return hook


def batch_numbers(event: BatchEvent) -> dict[str, str]:
    """What is shown of some batches."""
    return {
        "epoch": str(event.epoch),
        "loss": f"{event.losses.total:.4g}",
        "lr": f"{event.learning_rate:.3g}",
        "samples/s": f"{event.samples / max(event.seconds, 1e-9):,.0f}",
    }


def validation_numbers(event: EpochEvent) -> dict[str, str]:
    """What is shown of an evaluation: the loss, and of a few targets one metric each."""
    numbers = {"validation": f"{event.evaluation.losses.total:.4g}"}
    metrics = event.evaluation.metrics
    if len(metrics) <= _MANY_TARGETS:
        for target, found in metrics.items():
            shown = [f"{title} {found[name]:.4g}" for name, title in _HEADLINES.items() if name in found]
            numbers |= {target: shown[0]} if shown else {}
    return numbers


def size(count: int) -> str:
    """Bytes as a person reads them."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
