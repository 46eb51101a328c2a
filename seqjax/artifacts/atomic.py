"""Files and folders that appear under their name complete, or not at all.

Output is written to a hidden sibling of its final path, forced to disk, and renamed. A failure removes the
sibling and leaves what was there before. A plain rename replaces a file, but no folder: Linux exchanges the
two in one step; elsewhere the old folder is moved aside first, and moved back by the next attempt if the
program is killed in between. A file never replaces a folder, which may hold anything.

A manifest, written last, lists digests of the files of a folder, so that damage and unfinished writing are
seen on loading. It is compared as text with what it would be now; so a change of the manifest itself is
damage too.
"""

import ctypes
import glob
import hashlib
import json
import os
import secrets
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seqjax.errors import ArtifactError

_MANIFEST = "manifest.json"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary sibling of `path` that takes its place when the block ends well.

    The block creates the sibling, as a file or as a folder. Parents of `path` are created.

    Args:
      path: The file or folder to create or to replace.

    Yields:
      A path in the same folder where nothing is yet.

    Raises:
      ArtifactError: The block created a file, and `path` is a folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    recover(path)
    temporary = _sibling(path, "new")
    try:
        yield temporary
        sync(temporary)
        move_over(temporary, path)
    finally:
        remove(temporary)


def write_text(path: Path, text: str) -> None:
    """Writes `text` as the whole of the file `path`, in UTF-8, by way of `replacing`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _sibling(path: Path, role: str) -> Path:
    return path.with_name(_sibling_start(path, role) + secrets.token_hex(6))


def _sibling_start(path: Path, role: str) -> str:
    # A name of 255 bytes is the longest that common file systems take, so the final name is cut.
    return f".{path.name[:48]}.{zlib.crc32(path.name.encode()):08x}.{role}-"


def move_over(source: Path, path: Path) -> None:
    """Renames `source`, a file or a folder on the same file system, to `path` and removes what was there.

    Raises:
      ArtifactError: A file is to be where a folder is.
    """
    if path.is_dir() and not source.is_dir():
        raise ArtifactError(
            f"{path} is to be written as a file, but is a folder. Move the folder away, and start again."
        )
    if not path.is_dir() and not (path.exists() and source.is_dir()):
        source.replace(path)
    elif _exchange(source, path):
        remove(source)
    else:
        old = _sibling(path, "old")
        path.rename(old)
        try:
            source.rename(path)
        except BaseException:
            old.rename(path)
            raise
        for aside in _moved_aside(path):
            remove(aside)
    _sync_one(path.parent)


def recover(path: Path) -> None:
    """Moves back the file or folder of a missing `path` that a killed `move_over` moved aside."""
    if not path.exists():
        for old in _moved_aside(path)[:1]:
            old.rename(path)


def _moved_aside(path: Path) -> list[Path]:
    return sorted(path.parent.glob(glob.escape(_sibling_start(path, "old")) + "*"))


def _exchange(source: Path, path: Path) -> bool:
    """Exchanges two paths in one step, if the system can."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux.
    return rename(here, os.fsencode(source), here, os.fsencode(path), exchange) == 0


def sync(path: Path) -> None:
    """Returns when a file, or a folder with all that is in it, is on disk."""
    if path.is_dir():
        for child in path.iterdir():
            sync(child)
    _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Removes a file, or a folder with all that is in it; neither need exist."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_manifest(folder: Path) -> None:
    """Writes down the SHA-256 of every file that is in `folder` now."""
    (folder / _MANIFEST).write_text(_manifest_text(_digests(folder)), encoding="utf-8")


def check_manifest(folder: Path) -> None:
    """Raises `ArtifactError` if a folder's files are not those that its manifest lists."""
    try:
        written = (folder / _MANIFEST).read_bytes()
        digests = _digests(folder)
    except OSError as error:
        raise ArtifactError(f"{folder} is damaged or was not finished: {error}.") from None
    if written != _manifest_text(digests).encode():
        files = ", ".join(_differing(written, digests)) or _MANIFEST
        raise ArtifactError(f"{folder} is damaged: {files} is not as it was written.")


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: _digest(named[name]) for name in sorted(named) if name != _MANIFEST}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest_text(digests: dict[str, str]) -> str:
    return json.dumps({"sha256": digests}, indent=1) + "\n"


def _differing(written: bytes, digests: dict[str, str]) -> list[str]:
    """Up to three files that the manifest says something else of; none if it cannot be read."""
    try:
        listed = dict(json.loads(written)["sha256"])
    except (ValueError, KeyError, TypeError):
        return []
    names = sorted(listed.keys() | digests.keys())
    return [name for name in names if listed.get(name) != digests.get(name)][:3]
