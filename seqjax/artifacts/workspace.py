"""A folder for a long piece of work: it survives an interruption, and its results are handed over at once.

The folder is hidden and a sibling of the results. `run.json` says what the work depends on (a fingerprint),
so that only the same work is taken up again; the work keeps its own notes in other files. When all results
are complete, `publish.json` lists where each belongs, and they are renamed one after the other. The next
`workspace` finishes renaming that was cut short. A lock keeps two runs from working in one folder.
"""

import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from seqjax.artifacts.atomic import move_over, remove, sync, write_text
from seqjax.config.base import shown
from seqjax.config.changes import changed_keys
from seqjax.errors import ArtifactError, ConfigError, Problem

logger = logging.getLogger(__name__)

RUN, PUBLISH = "run.json", "publish.json"
Note: TypeAlias = Any
"""A JSON value."""


class Workspace:
    """An open, locked folder."""

    def __init__(self, folder: Path, *, resumed: bool) -> None:
        self.folder = folder
        self.resumed = resumed
        """True if it holds earlier work."""

    def note(self, name: str) -> Note:
        """Reads the note of a name; None if there is none."""
        file = self.folder / f"{name}.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def write_note(self, name: str, value: object) -> None:
        """Writes the note of a name; it is on disk when this returns."""
        write_text(self.folder / f"{name}.json", json.dumps(value))

    def publish(self, results: Mapping[Path, Path]) -> None:
        """Moves finished results to their places; an interruption is made up for by the next `workspace`.

        Args:
          results: Final path of each result by its path inside the folder, in the order of moving.
        """
        for staged, place in results.items():
            sync(staged)
            place.parent.mkdir(parents=True, exist_ok=True)
        moves = [
            (os.path.relpath(staged, self.folder), os.path.relpath(place, self.folder), staged.stat().st_ino)
            for staged, place in results.items()
        ]
        self.write_note(Path(PUBLISH).stem, moves)
        _publish(self.folder)


@contextmanager
def workspace(folder: Path, fingerprint: Mapping[str, Any], *, resume: bool) -> Iterator[Workspace]:
    """Opens a folder to work in; it is removed when the block ends well, or by an error.

    Only an interruption (Ctrl-C, a kill, a power cut) leaves it.

    Args:
      folder: The folder; it need not exist.
      fingerprint: What the work depends on, as JSON can hold it.
      resume: Whether to take up work that was interrupted; otherwise it is discarded.

    Raises:
      ConfigError: The work to take up depends on something else; the message says what.
      ArtifactError: Another run is working in the folder.
    """
    descriptor = _locked(folder)
    try:
        if (folder / PUBLISH).is_file():
            logger.info("Completing the result of an earlier run.")
            _publish(folder)
            _clear(folder)
        resumed = resume and (folder / RUN).is_file()
        if resumed:
            _refuse_changes(folder, fingerprint)
        else:
            _clear(folder)
            write_text(folder / RUN, json.dumps(fingerprint))
        try:
            yield Workspace(folder, resumed=resumed)
        except Exception:
            _remove(folder)
            raise
        _remove(folder)
    finally:
        os.close(descriptor)


def _locked(folder: Path) -> int:
    """Creates the folder if need be and locks it; a kill unlocks it."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last holder may have removed the folder after it was opened here.
            if folder.exists() and os.path.samestat(os.fstat(descriptor), folder.stat()):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise ArtifactError(
                f"Another run is working in {folder}. Wait for it to end, or end it."
            ) from None
        os.close(descriptor)


def _refuse_changes(folder: Path, fingerprint: Mapping[str, Any]) -> None:
    before = json.loads((folder / RUN).read_text(encoding="utf-8"))
    now = json.loads(json.dumps(fingerprint))
    changes = changed_keys(before, now)
    if changes:
        problems = [
            Problem(key, f"was {shown(old)} when the interrupted run began, and is {shown(new)} now.")
            for key, (old, new) in changes.items()
        ]
        remedy = Problem("", "Undo these changes to go on with that run, or leave the key out to start anew.")
        raise ConfigError("continue_preprocessing: true", [*problems, remedy])


def _publish(folder: Path) -> None:
    moves: Sequence[tuple[str, str, int]] = json.loads((folder / PUBLISH).read_text(encoding="utf-8"))
    for staged, place, inode in moves:
        # An earlier attempt may have left there what it replaced.
        if (folder / staged).exists() and (folder / staged).stat().st_ino == inode:
            move_over(folder / staged, Path(os.path.normpath(folder / place)))


def _clear(folder: Path) -> None:
    # The order matters where this is cut short: without run.json nothing is taken up, and a list of results
    # that have been moved does no harm.
    (folder / RUN).unlink(missing_ok=True)
    (folder / PUBLISH).unlink(missing_ok=True)
    for entry in folder.iterdir():
        remove(entry)


def _remove(folder: Path) -> None:
    _clear(folder)
    folder.rmdir()
