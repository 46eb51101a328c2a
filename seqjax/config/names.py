"""Names that a user chose and that become names of files or columns of results: one rule for each sort."""

import unicodedata
import zlib
from collections.abc import Iterable

MAX_NAME_BYTES = 200
"""Of a name of a user's: file systems take 255, and the names of files add to it."""
_NO_CHARACTERS = ("Cc", "Cs", "Zl", "Zp")
"""Categories of characters that are no part of a file's name: controls, halves of pairs, ends of lines."""


def checked_name(name: str, longest: int = MAX_NAME_BYTES) -> str:
    """The name, if files can be called after it; raises `ValueError` otherwise.

    Args:
      name: The name.
      longest: How many bytes it may have in UTF-8.
    """
    if not name.strip():
        raise ValueError("must be text that is not empty: it becomes part of file names.")
    if name in (".", ".."):
        raise ValueError(f"must be a name of its own, since files are called after it (found {name!r}).")
    if "/" in name or "\\" in name:
        raise ValueError(f"must not contain a slash: it becomes part of file names (found {name!r}).")
    if not all(map(_is_plain, name)):
        raise ValueError(f"must not contain control characters: it becomes part of file names ({name!r}).")
    size = len(name.encode())
    if size > longest:
        raise ValueError(f"must have at most {longest} bytes: it becomes part of file names (found {size}).")
    return name


def file_names(names: Iterable[str], longest: int = MAX_NAME_BYTES) -> dict[str, str]:
    """By name, what stands for it in the names of files: all different, on any file system.

    A slash and what else no file is called becomes `_`, and a long name is cut. Where two would be called
    alike (small and capital letters are alike on some systems), one that stays as it is has its own name, and
    others get underscores.

    Args:
      names: The names.
      longest: How many bytes each may have in UTF-8.
    """
    plain = {name: "".join(c if _is_plain(c) and c not in "/\\" else "_" for c in name) for name in names}
    parts = {name: _shortened(part, longest) for name, part in plain.items()}
    taken = Names(ignore_case=True)
    free = {name: taken.free(parts[name]) for name in sorted(parts, key=lambda name: parts[name] != name)}
    return {name: free[name] for name in parts}


def _is_plain(character: str) -> bool:
    return unicodedata.category(character) not in _NO_CHARACTERS


def _shortened(name: str, longest: int) -> str:
    if len(name.encode()) <= longest:
        return name
    digest = f"{zlib.crc32(name.encode()):08x}"
    return name.encode()[: max(longest - len(digest), 0)].decode(errors="ignore") + digest


class Names:
    """Names that differ from each other and from those that are taken."""

    def __init__(self, taken: Iterable[str] = (), *, ignore_case: bool = False) -> None:
        self._key = str.casefold if ignore_case else str
        self._taken = set(map(self._key, taken))

    def free(self, name: str) -> str:
        """The name, with as many underscores behind it as make it differ from the others."""
        while self._key(name) in self._taken:
            name += "_"
        self._taken.add(self._key(name))
        return name
