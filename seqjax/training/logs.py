"""Logs of a run: text lines in the documented format, and the same as one JSON object a line.

Text goes through `logging`, and from there to the run's two files and to the screen. `[INFO]` is part of
the lines, as programs that read sequifier's logs expect it. A run that goes on from a checkpoint says so with
a place; what stands in the log after that place is told again, and readers take what was told last.
"""

import json
import logging
import math
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from seqjax.console import Advance
from seqjax.stopping import signal_of
from seqjax.training.ending import Rival, totals
from seqjax.training.evaluate import BEST_OF_EACH, Evaluation
from seqjax.training.events import BatchEvent, EpochEvent, Event, Hook, ResumeEvent, StateEvent
from seqjax.training.objective import Losses

logger = logging.getLogger(__name__)

RULE = "-" * 89
_LOGGER = "seqjax"
_MANY_TARGETS = 3
# Of each target's metrics, the one that is shown under the bar, and as what.
_HEADLINES = {"top_1_accuracy": "top-1", "mae": "MAE"}
_LINE = logging.Formatter("%(asctime)s | %(levelname)s | %(message)s", "%Y-%m-%d %H:%M:%S")


def number(value: float | int) -> str:
    """A number as the log writes it: two decimals, width 5, and a plain exponent, such as ` 4.60e0`."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return f"{value:>5}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa:>5}e{int(exponent)}"


def batch_line(event: BatchEvent) -> str:
    """The line of some batches."""
    return (
        f"[INFO] Epoch {event.epoch:3d} | Batch {event.batch:5d}/{event.batches:5d} "
        f"| Loss: {number(event.losses.total)} | LR: {number(event.learning_rate)} "
        f"| S/Batch {number(event.seconds / event.count)}"
    )


def validation_lines(event: EpochEvent, rival: Rival, labels: Mapping[str, Mapping[int, str]]) -> list[str]:
    """The lines of an evaluation.

    Args:
      event: What was found.
      rival: The best baseline.
      labels: Values of ids, by column.
    """
    losses = event.evaluation.losses
    lines = [
        RULE,
        f"[INFO] Validation | Epoch: {event.epoch:3d} | Loss: {number(losses.total)} "
        f"| Baseline Loss: {number(rival.loss)} | Time: {event.seconds:5.2f}s "
        f"| LR {number(event.learning_rate)}",
        f"[INFO]  - the baseline is the best one: {rival.name}",
    ]
    if event.evaluation.everywhere is not None:
        lines.append(f"[INFO]  - mean over all positions: {number(event.evaluation.everywhere.total)}")
    if len(losses.by_target) > 1:
        parts = ", ".join(f"{name}_loss: {number(loss)}" for name, loss in losses.weighted.items())
        lines.append(f"[INFO]  - {parts}")
    for column, shares in event.evaluation.shares.items():
        names = labels.get(column, {})
        shown = (f"{names.get(index, index)}: {share:.5f}" for index, share in enumerate(shares) if share > 0)
        lines.append(f"[INFO] {column}: {' | '.join(shown)}")
    for target, metrics in event.evaluation.metrics.items():
        lines.append(f"[INFO] Metrics of {target} | {' | '.join(_metric_words(metrics))}")
    return [*lines, RULE]


def baseline_lines(baselines: Mapping[str, Evaluation]) -> list[str]:
    """The lines that compare baselines: in sum, by target where there are several, and by metric."""
    sums = " | ".join(f"{name}: {number(loss)}" for name, loss in totals(baselines).items())
    lines = [f"[INFO] Baselines | {sums}"]
    single = {name: found for name, found in baselines.items() if name != BEST_OF_EACH}
    targets = dict.fromkeys(target for found in single.values() for target in found.losses.by_target)
    for target in targets if len(targets) > 1 else []:
        losses = {name: found.losses.weighted for name, found in single.items()}
        parts = (f"{name}: {number(row[target])}" for name, row in losses.items() if target in row)
        lines.append(f"[INFO] Baselines of {target} | {' | '.join(parts)}")
    for target in targets:
        found = {name: baseline.metrics.get(target, {}) for name, baseline in single.items()}
        words = [f"{name}: {', '.join(_metric_words(metrics))}" for name, metrics in found.items() if metrics]
        lines += [f"[INFO] Baseline metrics of {target} | {' | '.join(words)}"] if words else []
    return lines


def baseline_values(baselines: Mapping[str, Evaluation]) -> dict[str, object]:
    """Evaluations of baselines as JSON; without a total where they predict only some of the targets."""
    known = totals(baselines)
    return {name: evaluation_values(found) | {"loss": known.get(name)} for name, found in baselines.items()}


@contextmanager
def log_files(debug: Path, info: Path) -> Iterator[None]:
    """Appends what seqjax logs to two files while the block runs, and shows it as before: see `LogFiles`."""
    with closing(LogFiles(debug, info)) as files, files.attached():
        yield


class LogFiles:
    """Two files that what seqjax logs is appended to: all of it, and from INFO up.

    Args:
      debug: The file of everything.
      info: The other one.
    """

    def __init__(self, debug: Path, info: Path) -> None:
        self._files = [_file_handler(debug, logging.DEBUG), _file_handler(info, logging.INFO)]

    def close(self) -> None:
        """Closes the files; what is logged later opens them again."""
        for file in self._files:
            file.close()

    @contextmanager
    def attached(self, *, alone: bool = False) -> Iterator[None]:
        """Appends what is logged while the block runs. An exception that ends the block is told there too.

        Args:
          alone: Whether it goes to these files alone, and neither to the screen nor to other files.
        """
        package = logging.getLogger(_LOGGER)
        level, propagate, handlers = package.level, package.propagate, package.handlers[:]
        # The files want more than others may have asked for, who go on to be told of as much as before.
        others = [_Forward(package.getEffectiveLevel())] if propagate and not alone else []
        package.setLevel(logging.DEBUG)
        package.propagate = False
        package.handlers[:] = [*([] if alone else handlers), *self._files, *others]
        try:
            yield
        except BaseException as error:
            # These files alone: the screen will be told by whoever heeds the exception.
            package.handlers[:] = self._files
            if isinstance(error, KeyboardInterrupt):
                logger.info("[INFO] Stopped by %s.", signal.Signals(signal_of(error)).name)
            else:
                logger.error("[ERROR] %s", str(error) or type(error).__name__)
            raise
        finally:
            package.setLevel(level)
            package.propagate = propagate
            package.handlers[:] = handlers


class _Forward(logging.Handler):
    """Hands on to the root logger's handlers what is of a level or above."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.root.callHandlers(record)


@dataclass(frozen=True)
class TextLog:
    """A hook that writes text lines.

    Args:
      rival: The best baseline.
      labels: Values of ids, by column.
    """

    rival: Rival
    labels: Mapping[str, Mapping[int, str]]

    def __call__(self, event: Event) -> None:
        """Writes the lines of an event."""
        match event:
            case BatchEvent():
                logger.info(batch_line(event))
                if event.skipped:
                    skipped = f"Epoch {event.epoch:3d} | Skipped updates: {event.skipped}"
                    why = "A float16 gradient overflowed; the loss scale was halved each time."
                    logger.info("[INFO] %s | %s", skipped, why)
            case EpochEvent():
                for line in validation_lines(event, self.rival, self.labels):
                    logger.info(line)
            case StateEvent(state=state):
                logger.debug("best epoch %d, %d epochs since", state.best_epoch, state.stale)
            case ResumeEvent():
                place = f"epoch {event.epoch}, batch {event.batch} of {event.batches}"
                logger.info("[INFO] Resumed at %s | What was logged after that is logged again.", place)


@dataclass(frozen=True)
class JsonLog:
    """A hook that writes one JSON object an event, with `event` saying which kind: batch, validation, ...

    A number that is not finite becomes None, since JSON has no name for it.

    Args:
      stream: Where to.
      memory: Says how many bytes are in use; None writes nothing of that.
    """

    stream: IO[str]
    memory: Callable[[], int] | None = None

    def write(self, event: str, values: Mapping[str, object]) -> None:
        """Writes an object with the time, the kind of event, and some values."""
        now = datetime.now().astimezone().isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": event, **values})
        # Python writes NaN and Infinity, which other readers of JSON refuse.
        finite = json.loads(line, parse_constant=lambda _: None)
        self.stream.write(json.dumps(finite) + "\n")
        self.stream.flush()

    def __call__(self, event: Event) -> None:
        """Writes the object of an event."""
        match event:
            case BatchEvent():
                values = {
                    "epoch": event.epoch,
                    "batch": event.batch,
                    "batches": event.batches,
                    "count": event.count,
                    **loss_values(event.losses),
                    "learning_rate": event.learning_rate,
                    "seconds": event.seconds,
                    "samples_per_second": event.samples_per_second,
                    **({"skipped_updates": event.skipped} if event.skipped else {}),
                    **({} if self.memory is None else {"memory_bytes": self.memory()}),
                }
                self.write("batch", values)
            case EpochEvent():
                values = {
                    "epoch": event.epoch,
                    **evaluation_values(event.evaluation),
                    **({} if event.training is None else {"training": loss_values(event.training)}),
                    "learning_rate": event.learning_rate,
                    "seconds": event.seconds,
                    "shares": {name: shares.tolist() for name, shares in event.evaluation.shares.items()},
                }
                self.write("validation", values)
            case StateEvent(state=state):
                score = {name: getattr(state, name) for name in ("epoch", "best_epoch", "best_loss")}
                self.write("standing", {**score, "finished": event.finished})
            case ResumeEvent():
                self.write("resumed", asdict(event))


@contextmanager
def json_log(path: Path, memory: Callable[[], int] | None = None) -> Iterator[JsonLog]:
    """A `JsonLog` that appends to a file.

    Args:
      path: The file.
      memory: Says how many bytes are in use.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        if _is_cut_short(path):
            stream.write("\n")
        yield JsonLog(stream, memory)


def _is_cut_short(path: Path) -> bool:
    """Tells whether the last line has no end, since the process that wrote it was killed."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        return file.read() not in (b"", b"\n")


def loss_values(losses: Losses) -> dict[str, object]:
    """Losses as JSON: `loss`, and by target before and after its loss weight."""
    by_target = {
        name: {"loss": loss, "weighted": losses.weighted[name]} for name, loss in losses.by_target.items()
    }
    return {"loss": losses.total, "losses": by_target}


def evaluation_values(evaluation: Evaluation) -> dict[str, object]:
    """The result of an evaluation as JSON: the losses, and `metrics` by target."""
    metrics = {target: dict(found) for target, found in evaluation.metrics.items()}
    everywhere = evaluation.everywhere
    return {
        **loss_values(evaluation.losses),
        **({} if everywhere is None else {"everywhere": loss_values(everywhere)}),
        "metrics": metrics,
    }


def _metric_words(metrics: Mapping[str, float]) -> list[str]:
    return [f"{name} {value:.5g}" for name, value in metrics.items()]


def _file_handler(path: Path, level: int) -> logging.Handler:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setLevel(level)
    handler.setFormatter(_LINE)
    return handler


def live_view(bar: Advance, memory: Callable[[], int], *, alone: bool = True) -> Hook:
    """A hook that moves a bar of batches, and shows how the run does.

    Args:
      bar: From `seqjax.console.progress`.
      memory: Says how many bytes are in use.
      alone: Whether the bar is that of one run; nothing but its batches is shown of one among others.
    """

    def hook(event: Event) -> None:
        match event:
            case BatchEvent():
                shown = {
                    "epoch": str(event.epoch),
                    "loss": f"{event.losses.total:.4g}",
                    "lr": f"{event.learning_rate:.3g}",
                    "samples/s": f"{event.samples_per_second:,.0f}",
                    "memory": size(memory()),
                }
                bar.advance(event.count, **(shown if alone else {}))
            case EpochEvent() if alone:
                bar.advance(0, **_validation_numbers(event))

    return hook


def _validation_numbers(event: EpochEvent) -> dict[str, str]:
    """The summary of an evaluation: the loss, and of a few targets one metric each."""
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
