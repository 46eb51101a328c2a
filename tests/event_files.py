"""Reads TensorBoard's event files back."""

import struct
from pathlib import Path
from typing import Any, cast


def scalars(folder: Path) -> dict[tuple[str, int], list[float]]:
    """(tag, step) -> values, over all files of a folder in the order in which TensorBoard reads them.

    A file of a run that goes on takes back what earlier ones say of its steps, as it does for TensorBoard.
    """
    from tensorboardX.proto import event_pb2

    start = cast(Any, event_pb2).SessionLog.START
    found: dict[tuple[str, int], list[float]] = {}
    for path in sorted(folder.iterdir()):
        content, place = path.read_bytes(), 0
        while place + 12 <= len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            if place + length + 16 > len(content):
                break  # What a killed process left half written.
            event = cast(Any, event_pb2).Event.FromString(content[place + 12 : place + 12 + length])
            if event.session_log.status == start:
                found = {key: values for key, values in found.items() if key[1] < event.step}
            for value in event.summary.value:
                found.setdefault((value.tag, event.step), []).append(value.simple_value)
            place += length + 16
    return found
