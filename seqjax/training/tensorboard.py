"""The log of a run as TensorBoard reads it: event files in one folder, written with tensorboardX.

All scalars stand at the number of batches since the start of the run. A run that goes on repeats the steps
since its checkpoint: what an earlier process wrote of them is taken out first, so that each is there once.

| tag | what |
|---|---|
| `train/loss`, `train/loss/<target>` | loss of the batches since the last log line |
| `train/learning_rate`, `train/samples_per_second`, `train/memory_bytes` | |
| `validation/loss`, `validation/loss/<target>` | after each epoch, and before the first |
| `validation/<metric>/<target>` | rows of `seqjax.metrics.METRICS` |
| `<train or validation>/weighted_loss/<target>` | times the loss weight, where that is not 1 |
"""

import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias, cast

from seqjax.errors import MissingPackageError
from seqjax.training.events import BackEvent, BatchEvent, EpochEvent, Event, Hook
from seqjax.training.metrics import Losses

_HEADER, _FOOTER = 12, 4
"""Bytes around each event: its length with a checksum, and its own checksum."""


def require_tensorboard() -> None:
    """Raises `MissingPackageError` unless event files can be written."""
    if find_spec("tensorboardX") is None:
        raise MissingPackageError(
            "training_spec.log_to: tensorboard", package="tensorboardX", extra="tensorboard"
        )


@contextmanager
def tensorboard_log(folder: Path, batches: int, memory: Callable[[], int]) -> Iterator[Hook]:
    """A hook that writes event files while the block runs.

    Args:
      folder: Where they lie; those of earlier processes of the run are there already.
      batches: Batches of an epoch.
      memory: Says how many bytes are in use.
    """
    log = _TensorBoardLog(folder, batches, memory)
    try:
        yield log
    finally:
        log.close()


_Writer: TypeAlias = Any
"""A `tensorboardX.event_file_writer.EventsWriter`."""
_Record: TypeAlias = Any
"""An `Event` of TensorBoard's protocol: a class that protobuf makes at run time."""
_Place: TypeAlias = tuple[int, bool]
"""Step, and whether it is the validation after it: the order in which scalars are written."""


class _TensorBoardLog:
    def __init__(self, folder: Path, batches: int, memory: Callable[[], int]) -> None:
        self._folder = folder
        self._batches = batches
        self._memory = memory
        self._writer: _Writer = None

    def __call__(self, event: Event) -> None:
        """Writes the scalars of an event."""
        match event:
            case BatchEvent():
                step = (event.epoch - 1) * self._batches + event.batch
                scalars = _batch_scalars(event) | {"train/memory_bytes": float(self._memory())}
                self._write(scalars, step, first=(step - event.count + 1, False))
            case EpochEvent():
                step = event.epoch * self._batches
                self._write(_validation_scalars(event), step, first=(step, True))
            case BackEvent():
                self.close()  # The next file takes out of this one what will be there again.

    def close(self) -> None:
        """Closes the event file, if there is one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, scalars: Mapping[str, float], step: int, *, first: _Place) -> None:
        if self._writer is None:
            self._writer = self._open(first)
        values = [{"tag": name, "simple_value": value} for name, value in scalars.items()]
        self._writer.write_event(_record(step=step, summary={"value": values}))
        self._writer.flush()  # A process that is killed leaves what it logged.

    def _open(self, first: _Place) -> _Writer:
        """A new file, after everything from `first` on is taken out of the files that are there."""
        from tensorboardX.event_file_writer import EventsWriter

        self._folder.mkdir(parents=True, exist_ok=True)
        before = sorted(self._folder.glob("events.out.tfevents.*"))
        for path in before:
            shortened = path.with_name(f".{path.name}")
            shortened.write_bytes(b"".join(_records_before(path.read_bytes(), first)))
            shortened.replace(path)
        # Two files of one second would have one name, and are read in the order of their names.
        writer = EventsWriter(str(self._folder / "events"), f".{len(before):04d}")
        # A TensorBoard that is looking on forgets what it has seen from there on.
        writer.write_event(_record(step=first[0] + first[1], session_log={"status": "START"}))
        return writer


def _record(**fields: object) -> _Record:
    from tensorboardX.proto import event_pb2

    return cast(Any, event_pb2).Event(wall_time=time.time(), **fields)


def _records_before(content: bytes, first: _Place) -> Iterator[bytes]:
    """The records of an event file, less those from `first` on, and half a one that a killed process left."""
    place = 0
    while len(content) - place > _HEADER:
        (length,) = struct.unpack_from("<Q", content, place)
        end = place + _HEADER + length + _FOOTER
        if end > len(content):
            return
        record = _record()
        record.ParseFromString(content[place + _HEADER : end - _FOOTER])
        validation = any(value.tag.startswith("validation/") for value in record.summary.value)
        if (record.step, validation) < first or record.HasField("file_version"):
            yield content[place:end]
        place = end


def _batch_scalars(event: BatchEvent) -> dict[str, float]:
    return {
        **_loss_scalars("train", event.losses),
        "train/learning_rate": event.learning_rate,
        "train/samples_per_second": event.samples / max(event.seconds, 1e-9),
    }


def _validation_scalars(event: EpochEvent) -> dict[str, float]:
    scalars = _loss_scalars("validation", event.evaluation.losses)
    for target, metrics in event.evaluation.metrics.items():
        scalars |= {f"validation/{name}/{target}": value for name, value in metrics.items()}
    return scalars


def _loss_scalars(part: str, losses: Losses) -> dict[str, float]:
    scalars = {f"{part}/loss": losses.total}
    for target, loss in losses.by_target.items():
        scalars[f"{part}/loss/{target}"] = loss
        if losses.weights[target] != 1:
            scalars[f"{part}/weighted_loss/{target}"] = losses.weighted[target]
    return scalars
