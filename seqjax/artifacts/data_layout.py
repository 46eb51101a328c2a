"""Where preprocessed data lies in a project, and what it is called."""

import re
import zlib
from pathlib import Path

_OWN_FILES = re.compile(
    r"manifest\.json|metadata\.json|(rows|runs|positions|windows)-\d+\.arrow|.*-\d+\.(pt|parquet)"
)


def data_name(data_path: str) -> str:
    """The name of a data set: the last part of its path, without its last extension."""
    return Path(data_path).stem or Path(data_path).resolve().stem


def results_folder(project_root: str) -> Path:
    """The folder in which the splits of all data sets lie."""
    return Path(project_root) / "data"


def split_path(project_root: str, name: str, split: int, suffix: str) -> str:
    """Where a split lies, as the metadata JSON says it: beginning with `project_root` as the user wrote it.

    Args:
      project_root: Root folder of the project.
      name: Name of the data set.
      split: Number of the split, from 0.
      suffix: End of the name, with its dot; empty for a folder.
    """
    root = project_root if project_root.endswith("/") or not project_root else f"{project_root}/"
    return f"{root}data/{name}-split{split}{suffix}"


def foreign_file(split: Path) -> Path | None:
    """A file in the place of a split that preprocess did not write; null if there is none.

    Args:
      split: Where a split is to be, in whatever format; need not exist.
    """
    entries = sorted(split.iterdir()) if split.is_dir() else []
    return next((entry for entry in entries if not _OWN_FILES.fullmatch(entry.name)), None)


def metadata_path(project_root: str, name: str) -> Path:
    """The metadata JSON of a data set."""
    return Path(project_root) / "configs" / "metadata_configs" / f"{name}.json"


def work_path(project_root: str, name: str) -> Path:
    """The hidden folder in which a data set is prepared."""
    # A name of 255 bytes is the longest that common file systems take.
    return results_folder(project_root) / f".{name[:48]}.{zlib.crc32(name.encode()):08x}.preprocess"
