"""Reads TensorBoard's event files back."""

import struct
from pathlib import Path
from typing import Any, cast


def scalars(folder: Path) -> dict[tuple[str, int], list[float]]:
    """(tag, step) -> values, over all files of a folder in the order in which TensorBoard reads them."""
    from tensorboardX.proto import event_pb2

    found: dict[tuple[str, int], list[float]] = {}
    for path in sorted(folder.iterdir()):
        content, place = path.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            event = cast(Any, event_pb2).Event.FromString(content[place + 12 : place + 12 + length])
            for value in event.summary.value:
                found.setdefault((value.tag, event.step), []).append(value.simple_value)
            place += length + 16
        assert place == len(content)
    return found
