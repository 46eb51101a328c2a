"""The log of a run: JSON lines, or the text lines that sequifier writes too.

Records have a place, in epochs since the start: batch b of n in epoch e at e - 1 + b/n, the validation after
it at e. A run that goes on from a checkpoint says from where, and what was written after that place is
forgotten; where a place is repeated without that, the last record counts. Lines that cannot be read, such as
the last one of a process that was killed, are left out and named.
"""

import json
import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from seqjax.errors import ArtifactError

_TEXT_BASELINE = "last value"
"""The baseline of sequifier's logs; those of seqjax name it."""
_place_of, _epoch_of = attrgetter("place"), attrgetter("epoch")


@dataclass(frozen=True)
class Measures:
    """Losses and metrics of the predictions of all targets."""

    loss: float
    by_target: Mapping[str, float] = field(default_factory=dict)
    """Loss of each target: before its loss weight, or after it where a text log says no other."""
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By target and name."""


@dataclass(frozen=True)
class Batches:
    """Some batches that were trained on."""

    place: float
    count: int
    measures: Measures
    learning_rate: float
    speed: float
    """Samples a second; of a text log, batches a second."""
    memory: float | None = None


@dataclass(frozen=True)
class Validation:
    """An evaluation after an epoch; epoch 0 is before training."""

    epoch: int
    measures: Measures
    learning_rate: float
    seconds: float
    shares: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Share of each class among the predicted ones, by column and the class's name."""


@dataclass
class RunLog:
    """A run, as its log has it."""

    name: str
    batches: list[Batches] = field(default_factory=list)
    validations: list[Validation] = field(default_factory=list)
    baselines: dict[str, Measures] = field(default_factory=dict)
    config: dict[str, Any] | None = None
    labels: dict[str, list[str]] = field(default_factory=dict)
    """Names of the classes of some columns."""
    finished: bool = False
    speed_unit: str = "samples"
    notes: list[str] = field(default_factory=list)

    @property
    def best(self) -> Validation | None:
        """The validation with the lowest loss after the first epoch, or before it if there is no other."""
        finite = [record for record in self.validations if math.isfinite(record.measures.loss)]
        trained = [record for record in finite if record.epoch > 0]
        return min(trained or finite, key=lambda record: record.measures.loss, default=None)

    @property
    def epochs(self) -> int:
        """The last epoch that was validated."""
        return max((record.epoch for record in self.validations), default=0)

    @property
    def seconds(self) -> float:
        """Time of all epochs in the log."""
        return sum(record.seconds for record in self.validations)

    def add(self, record: Batches | Validation) -> None:
        """Adds a record, in place of what an earlier process wrote from its place on."""
        self.finished = False
        if isinstance(record, Batches):
            del self.batches[bisect_left(self.batches, record.place, key=_place_of) :]
            del self.validations[bisect_left(self.validations, record.place, key=_epoch_of) :]
            self.batches.append(record)
        else:
            # The last batches of an epoch have the same place as the validation after them.
            del self.batches[bisect_right(self.batches, record.epoch, key=_place_of) :]
            del self.validations[bisect_left(self.validations, record.epoch, key=_epoch_of) :]
            self.validations.append(record)

    def resume(self, place: float) -> None:
        """Forgets what an earlier process wrote after the place from which the run goes on."""
        self.finished = False
        del self.batches[bisect_right(self.batches, place, key=_place_of) :]
        del self.validations[bisect_right(self.validations, place, key=_epoch_of) :]


def read_log(name: str, path: Path) -> RunLog:
    """Reads a run's log.

    Args:
      name: The name of the run.
      path: A `.jsonl` file, or a text log.

    Raises:
      ArtifactError: It holds no record of training.
    """
    run = RunLog(name)
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        lines = list(file)
    is_json = path.suffix == ".jsonl"
    run.speed_unit = "samples" if is_json else "batches"
    damaged = []
    for number, line in enumerate(lines, 1):
        try:
            (_read_json if is_json else _read_text)(run, line)
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError):
            damaged.append(number)
    if damaged:
        run.notes.append(f"{path.name}: {_lines(damaged)} could not be read, and the page does without.")
    if not run.validations and not run.batches:
        what = "is empty" if not any(line.strip() for line in lines) else "tells of no training yet"
        raise ArtifactError(
            f"{path} {what}: it holds neither a batch nor a validation of {name!r}. Run seqjax train first, "
            "or wait until it has logged something."
        )
    return run


def _lines(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:5]))
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return f"line {shown}" if len(numbers) == 1 else f"lines {shown}{more}"


def _read_json(run: RunLog, line: str) -> None:
    if not line.strip():
        return
    values = json.loads(line)
    match values["event"]:
        case "start":
            run.config = values["config"]
            run.labels = values.get("labels", {})
            run.finished = False
        case "baselines":
            run.baselines = {
                name: _measures(value) for name, value in values.items() if isinstance(value, dict)
            }
        case "resumed":
            run.resume(_place(values["epoch"], values["batch"], values["batches"]))
        case "batch":
            run.add(_batches(values))
        case "validation":
            run.add(_validation(run, values))
        case "end":
            run.finished = True


def _measures(values: Mapping[str, Any]) -> Measures:
    by_target = {name: _number(loss["loss"]) for name, loss in values["losses"].items()}
    metrics = {
        target: {name: _number(value) for name, value in row.items()}
        for target, row in values.get("metrics", {}).items()
    }
    return Measures(_number(values["loss"]), by_target, metrics)


def _number(value: float | None) -> float:
    """A number of a log, in which what is not finite is None."""
    return math.nan if value is None else float(value)


def _place(epoch: int, batch: int, batches: int) -> float:
    return epoch - 1 + batch / batches


def _batches(values: Mapping[str, Any]) -> Batches:
    return Batches(
        _place(values["epoch"], values["batch"], values["batches"]),
        int(values["count"]),
        _measures(values),
        _number(values["learning_rate"]),
        _number(values["samples_per_second"]),
        values.get("memory_bytes"),
    )


def _validation(run: RunLog, values: Mapping[str, Any]) -> Validation:
    shares = {
        column: _named(row, run.labels.get(column, [])) for column, row in values.get("shares", {}).items()
    }
    return Validation(
        int(values["epoch"]),
        _measures(values),
        _number(values["learning_rate"]),
        float(values["seconds"]),
        shares,
    )


def _named(shares: list[float | None], labels: list[str]) -> dict[str, float]:
    names = [*labels, *map(str, range(len(labels), len(shares)))]
    return {name: n for name, share in zip(names, shares, strict=False) if (n := _number(share)) > 0}


_NUMBER = r"\s*([^\s|,]+)"
_BATCH = re.compile(
    rf"\[INFO\] Epoch\s+(\d+) \| Batch\s+(\d+)/\s*(\d+) \| Loss:{_NUMBER} \| LR:{_NUMBER}"
    rf" \| S/Batch{_NUMBER}\s*\n"
)
_VALIDATION = re.compile(
    rf"\[INFO\] Validation \| Epoch:\s*(\d+) \| Loss:{_NUMBER} \| Baseline Loss:{_NUMBER}"
    rf" \| Time:{_NUMBER}s \| LR{_NUMBER}\s*\n"
)
_RESUMED = re.compile(r"\[INFO\] Resumed at epoch\s+(\d+), batch\s+(\d+) of\s+(\d+)")
_CUT_SHORT = re.compile(r"\[INFO\] (Epoch\s+\d|Validation \|)")
_BASELINE = re.compile(r"\[INFO\]  - the baseline is the best one: (.*)")
_TARGETS = re.compile(r"\[INFO\]  - (.*)")
_TARGET = re.compile(rf"(.+?)_loss:{_NUMBER}(?:, |$)")
_SHARES = re.compile(r"\[INFO\] (.+?): (.+: \d+\.\d{5}(?: \| .+: \d+\.\d{5})*)$")
_SHARE = re.compile(r"(.+?): (\d+\.\d{5})(?: \| |$)")


def _read_text(run: RunLog, line: str) -> None:
    """Reads a documented text line; raises `ValueError` for one that is not whole."""
    if match := _BATCH.search(line):
        _add_batch(run, match)
    elif match := _VALIDATION.search(line):
        _add_validation(run, match)
    elif match := _RESUMED.search(line):
        epoch, batch, batches = map(int, match.groups())
        run.resume(_place(epoch, batch, batches))
    elif _CUT_SHORT.search(line):
        raise ValueError("the line is not whole")
    elif match := _BASELINE.search(line):
        run.baselines = dict(zip([match[1]], run.baselines.values(), strict=True))
    elif "--- Training Complete ---" in line:
        run.finished = True
    elif run.validations:
        run.validations[-1] = _detailed(run.validations[-1], line)


def _detailed(validation: Validation, line: str) -> Validation:
    """A validation with what a later line says about it."""
    if match := _TARGETS.search(line):
        by_target = {name: float(text) for name, text in _TARGET.findall(match[1])}
        return replace(validation, measures=replace(validation.measures, by_target=by_target))
    if match := _SHARES.search(line):
        # Sequifier writes numbers of predictions here.
        counts = {name: float(text) for name, text in _SHARE.findall(match[2])}
        total = sum(counts.values()) or 1.0
        shares = {name: count / total for name, count in counts.items()}
        return replace(validation, shares={**validation.shares, match[1]: shares})
    return validation


def _add_batch(run: RunLog, match: re.Match[str]) -> None:
    epoch, batches = int(match[1]), int(match[3])
    place = _place(epoch, int(match[2]), batches)
    before = run.batches[-1].place if run.batches else 0.0
    count = round((place - max(before if before < place else 0.0, epoch - 1)) * batches)
    seconds = float(match[6])
    speed = 1 / seconds if seconds else math.nan
    run.add(Batches(place, max(count, 1), Measures(float(match[4])), float(match[5]), speed))


def _add_validation(run: RunLog, match: re.Match[str]) -> None:
    measures = Measures(float(match[2]))
    run.add(Validation(int(match[1]), measures, float(match[5]), float(match[4])))
    run.baselines = {_TEXT_BASELINE: Measures(float(match[3]))}


def averaged(batches: Sequence[Batches], bucket: int | None, points: int) -> list[Batches]:
    """Means over neighbouring records of an epoch, each at the place of its last one.

    Args:
      batches: The records.
      bucket: The least number of batches of a mean; None takes as few as leave at most `points` means.
      points: The largest number of means, if `bucket` is None.
    """
    size = bucket or math.ceil(sum(record.count for record in batches) / points)
    means = []
    for _, epoch in groupby(batches, key=lambda record: math.ceil(record.place - 1e-9)):
        records: list[Batches] = []
        for record in epoch:
            records.append(record)
            if sum(record.count for record in records) >= size:
                means.append(_mean(records))
                records = []
        means += [_mean(records)] if records else []
    return means


def _mean(records: Sequence[Batches]) -> Batches:
    if len(records) == 1:
        return records[0]
    count = sum(record.count for record in records)

    def mean(values: Iterable[float]) -> float:
        return sum(record.count * value for record, value in zip(records, values, strict=True)) / count

    by_target = {
        target: mean(record.measures.by_target[target] for record in records)
        for target in records[0].measures.by_target
    }
    measures = Measures(mean(record.measures.loss for record in records), by_target)
    # A mean of speeds weighs by time.
    speed = 1 / mean(1 / record.speed if record.speed else math.nan for record in records)
    return replace(records[-1], count=count, measures=measures, speed=speed)
