"""Files and folders that appear under their name complete, or not at all.

Output is written to a hidden sibling of its final path, forced to disk, and renamed. A failure removes the
sibling and leaves what was there before.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary sibling of `path` that takes its place when the block ends well.

    The block creates the sibling, as a file or as a folder. Parents of `path` are created.

    Args:
      path: The file or folder to create or to replace.

    Yields:
      A path in the same folder where nothing is yet.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(path, "new")
    try:
        yield temporary
        _sync(temporary)
        _rename_over(temporary, path)
    finally:
        _remove(temporary)


def write_text(path: Path, text: str) -> None:
    """Writes `text` as the whole of the file `path`, in UTF-8, by way of `replacing`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _sibling(path: Path, role: str) -> Path:
    # A name of 255 bytes is the longest that common file systems take, so the final name is cut.
    return path.with_name(f".{path.name[:48]}.{role}-{secrets.token_hex(6)}")


def _rename_over(temporary: Path, path: Path) -> None:
    """Renames, first moving away what a plain rename cannot replace: a folder, or a file that becomes one."""
    if not path.is_dir() and not (path.exists() and temporary.is_dir()):
        temporary.replace(path)
    else:
        old = _sibling(path, "old")
        path.rename(old)
        try:
            temporary.rename(path)
        except BaseException:
            old.rename(path)
            raise
        _remove(old)
    _sync_one(path.parent)


def _sync(path: Path) -> None:
    if path.is_dir():
        for child in path.iterdir():
            _sync(child)
    _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
