"""Reads the JSON log of a run as its readers do: of what was told twice of a place, the last counts."""

import json
from pathlib import Path
from typing import Any

_KINDS = {"batch", "validation", "standing"}
TIMES = {"time", "seconds", "samples_per_second", "memory_bytes"}


def told_last(path: Path) -> list[dict[str, Any]]:
    """What a log tells of batches, validations and the score, times apart."""
    told: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            continue  # A killed process left half of it.
        if values["event"] == "resumed":
            place = (values["epoch"], 0, values["batch"])
            told = [other for other in told if _place(other) <= place]
        elif values["event"] in _KINDS:
            if values["event"] == "validation" and values["epoch"] == 0:
                told = []  # The run was begun anew.
            told.append({key: value for key, value in values.items() if key not in TIMES})
    return told


def _place(values: dict[str, Any]) -> tuple[int, int, int]:
    """Where a record stands; what is told after an epoch stands at the beginning of the next."""
    if values["event"] == "batch":
        return values["epoch"], 0, values["batch"]
    return values["epoch"] + 1, 0, 0
