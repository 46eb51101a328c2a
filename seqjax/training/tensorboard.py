"""The log of a run as TensorBoard reads it: event files in one folder, written with tensorboardX.

All scalars stand at the number of batches since the start of the run. A run that goes on repeats the steps
since its checkpoint, in a new file that tells TensorBoard to forget what earlier files say of them.

| tag | what |
|---|---|
| `train/loss`, `train/loss/<target>` | loss of the batches since the last log line |
| `train/learning_rate`, `train/samples_per_second`, `train/memory_bytes` | |
| `validation/loss`, `validation/loss/<target>` | after each epoch, and before the first |
| `validation/<metric>/<target>` | rows of `seqjax.metrics.METRICS` |
| `<train or validation>/weighted_loss/<target>` | times the loss weight, where that is not 1 |
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias, cast

from seqjax.errors import MissingPackageError
from seqjax.training.events import BatchEvent, EpochEvent, Event, ResumeEvent
from seqjax.training.objective import Losses


def require_tensorboard() -> None:
    """Raises `MissingPackageError` unless event files can be written."""
    if find_spec("tensorboardX") is None:
        raise MissingPackageError(
            "training_spec.log_to: tensorboard", package="tensorboardX", extra="tensorboard"
        )


_Writer: TypeAlias = Any  # A `tensorboardX.event_file_writer.EventsWriter`.


@dataclass
class TensorBoardLog:
    """A hook that writes event files, until it is closed.

    Args:
      folder: Where they lie; those of earlier processes of the run are there already.
      batches: Batches of an epoch.
      memory: Says how many bytes are in use.
    """

    folder: Path
    batches: int
    memory: Callable[[], int]
    _writer: _Writer = None

    def __call__(self, event: Event) -> None:
        """Writes the scalars of an event."""
        match event:
            case BatchEvent():
                scalars = _loss_scalars("train", event.losses) | {
                    "train/learning_rate": event.learning_rate,
                    "train/samples_per_second": event.samples_per_second,
                    "train/memory_bytes": float(self.memory()),
                }
                self._write(scalars, (event.epoch - 1) * self.batches + event.batch)
            case EpochEvent(evaluation=evaluation):
                scalars = _loss_scalars("validation", evaluation.losses)
                if evaluation.everywhere is not None:
                    scalars["validation/loss_everywhere"] = evaluation.everywhere.total
                for target, metrics in evaluation.metrics.items():
                    scalars |= {f"validation/{name}/{target}": value for name, value in metrics.items()}
                self._write(scalars, event.epoch * self.batches)
            case ResumeEvent():
                self.close()
                self._writer = self._open((event.epoch - 1) * self.batches + event.batch + 1)
            case _:
                pass

    def close(self) -> None:
        """Closes the event file, if there is one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, scalars: Mapping[str, float], step: int) -> None:
        if self._writer is None:
            self._writer = self._open(0)
        values = [{"tag": name, "simple_value": value} for name, value in scalars.items()]
        self._writer.write_event(_record(step=step, summary={"value": values}))
        self._writer.flush()  # A process that is killed leaves what it logged.

    def _open(self, first: int) -> _Writer:
        """A new file, whose steps from `first` on stand for those of the files that are there."""
        from tensorboardX.event_file_writer import EventsWriter

        self.folder.mkdir(parents=True, exist_ok=True)
        # Two files of one second would have one name, and are read in the order of their names.
        before = len(list(self.folder.glob("events.out.tfevents.*")))
        writer = EventsWriter(str(self.folder / "events"), f".{before:04d}")
        if before:  # As `SummaryWriter(purge_step=first)`, which writes in a thread that a signal kills.
            writer.write_event(_record(step=first, session_log={"status": "START"}))
        return writer


def _record(**fields: object) -> Any:  # noqa: ANN401
    from tensorboardX.proto import event_pb2

    return cast(Any, event_pb2).Event(wall_time=time.time(), **fields)


def _loss_scalars(split: str, losses: Losses) -> dict[str, float]:
    scalars = {f"{split}/loss": losses.total}
    for target, loss in losses.by_target.items():
        scalars[f"{split}/loss/{target}"] = loss
        if losses.weights[target] != 1:
            scalars[f"{split}/weighted_loss/{target}"] = losses.weighted[target]
    return scalars
