"""Digests of the files of a folder, written last, so that damage and unfinished writing are seen on loading.

The manifest is compared as text with what it would be now; so a change of the manifest itself is damage too.
"""

import hashlib
import json
from pathlib import Path

from seqjax.errors import ArtifactError

_NAME = "manifest.json"


def write_manifest(folder: Path) -> None:
    """Writes down the SHA-256 of every file that is in `folder` now."""
    (folder / _NAME).write_text(_text(_digests(folder)), encoding="utf-8")


def check_manifest(folder: Path) -> None:
    """Raises `ArtifactError` if a folder's files are not those that its manifest lists."""
    try:
        written = (folder / _NAME).read_bytes()
        digests = _digests(folder)
    except OSError as error:
        raise ArtifactError(f"{folder} is damaged or was not finished: {error}.") from None
    if written != _text(digests).encode():
        files = ", ".join(_differing(written, digests)) or _NAME
        raise ArtifactError(f"{folder} is damaged: {files} is not as it was written.")


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: _digest(named[name]) for name in sorted(named) if name != _NAME}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text(digests: dict[str, str]) -> str:
    return json.dumps({"sha256": digests}, indent=1) + "\n"


def _differing(written: bytes, digests: dict[str, str]) -> list[str]:
    """Up to three files that the manifest says something else of; none if it cannot be read."""
    try:
        listed = dict(json.loads(written)["sha256"])
    except (ValueError, KeyError, TypeError):
        return []
    names = sorted(listed.keys() | digests.keys())
    return [name for name in names if listed.get(name) != digests.get(name)][:3]
