"""The door for preprocessed data: whatever its format, everything behind it reads the native form.

A format is a row of `FORMATS`. Foreign data comes as blocks of windows (`window_blocks`), of bounded size.
Where windows are needed in any order, `load_windows` stores the blocks as arrow in a temporary folder and
maps them, so that data larger than memory can be used whatever its format.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from seqjax.config.schema import ColumnKind
from seqjax.console import progress
from seqjax.data import long_format, shards, torch_shards
from seqjax.data.columns import INFINITE, id_dtype
from seqjax.data.long_format import Padding
from seqjax.errors import DataError
from seqjax.windows.spliced import parts_of
from seqjax.windows.windows import Windows, joined, orders_of_files

ROWS_PER_CHECK = 1 << 18
"""Rows of a column that are checked at a time."""
ROWS_PER_SHARD, MOST_SHARDS = 1 << 20, 64
"""Rows of a stored shard; larger rather than many more, since each is an open file."""


@dataclass(frozen=True)
class Files:
    """The names of the files in a folder, and their sizes, where a format leaves that open."""

    stem: str = "windows"
    """The beginning of their names."""
    sequences: int = 1024
    """Sequences a file."""
    merged: bool = True
    """True where the long format is one file, not a folder."""
    padding: Padding = "null"
    """The mark of padded slots in the long format."""


Blocks = Callable[[Path, Mapping[str, ColumnKind], Padding], Iterator[Windows]]


@dataclass(frozen=True)
class Format:
    """The way in which windows are written and read."""

    suffix: str
    """End of the name of a split, with its dot; empty for a folder."""
    write: Callable[[Path, Windows, Files], None]
    """Writes windows to a path where nothing is yet."""
    blocks: Blocks
    """Reads the named columns in blocks of whole sequences; a `DataError` for what is not as written."""
    marker: str | None = None
    """A file that a folder of this format holds."""
    native: bool = False
    """True where the only block is mapped into memory already."""
    by_file: bool = False
    """True where each block is a file, for which results get a file of their own."""


def load_windows(
    path: Path,
    read_format: str,
    *,
    column_kinds: Mapping[str, ColumnKind],
    padding: Padding = "null",
    n_classes: Mapping[str, int] | None = None,
) -> Windows:
    """Opens preprocessed data, mapped into memory, so that it may be larger than that.

    Foreign data is converted in a stream, into a folder that is no longer seen when this returns and goes
    when the windows do.

    Args:
      path: A file or folder.
      read_format: A key of `FORMATS`.
      column_kinds: The columns to read, in the order that the result shall have.
      padding: The mark of padded slots in the long format; sequifier's own files have zeros.
      n_classes: Where given, ids of a column must be below it.

    Raises:
      DataError: The data is missing, damaged, lacks a column, or there is no space to convert it.
    """
    blocks = window_blocks(path, read_format, column_kinds=column_kinds, padding=padding, n_classes=n_classes)
    if _format(path, read_format).native:
        return next(blocks)
    with closing(blocks), TemporaryDirectory(prefix="seqjax-") as folder:
        parts = []
        try:
            with progress("Converting", None, "windows") as bar:
                for number, windows in enumerate(_grouped(blocks)):
                    place = Path(folder) / f"{number:05d}"
                    shards.write(place, windows)
                    parts.append(shards.read(place, column_kinds))
                    bar.advance(len(windows))
        except OSError as error:
            raise DataError(
                f"{path} cannot be converted in {folder}: {error.strerror or error}. Set TMPDIR to a folder "
                "with more space, or preprocess with write_format: arrow, which is used as it is."
            ) from error
        return joined(parts)


def window_blocks(
    path: Path,
    read_format: str,
    *,
    column_kinds: Mapping[str, ColumnKind],
    padding: Padding = "null",
    n_classes: Mapping[str, int] | None = None,
) -> Generator[Windows, None, None]:
    """Reads preprocessed data in blocks of whole sequences.

    Blocks are of a bounded size, or files where the format's results are written file by file; arrow is one.
    The arguments and errors are those of `load_windows`.
    """
    known = n_classes or {}
    types = {name: id_dtype(classes - 1) for name, classes in known.items()}
    for windows in _format(path, read_format).blocks(path, column_kinds, padding):
        check_values(path, windows, known)
        if FORMATS[read_format].native:
            yield windows
            continue
        columns = {
            name: np.asarray(values, types.get(name, values.dtype))
            for name, values in windows.columns.items()
        }
        yield replace(windows, columns=columns)


def _grouped(blocks: Iterable[Windows]) -> Iterator[Windows]:
    """The windows of blocks in parts of the size of a shard."""
    held: list[Windows] = []
    n_held = n_before = 0
    for block in blocks:
        held.append(block)
        n_held += len(next(iter(block.columns.values())))
        if n_held >= max(ROWS_PER_SHARD, n_before // MOST_SHARDS):
            yield joined(held)
            held, n_held, n_before = [], 0, n_before + n_held
    if held:
        yield joined(held)


def format_of(path: Path) -> str | None:
    """The format of preprocessed data, as far as its name or its folder shows it."""
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    suffix = ".csv" if suffix in (".tsv", ".txt") else suffix
    for name, row in FORMATS.items():
        if (row.suffix and suffix == row.suffix) or (row.marker and (path / row.marker).is_file()):
            return name
    return None


def _format(path: Path, name: str) -> Format:
    if name not in FORMATS:
        raise DataError(f"{path}: {name!r} is no format of preprocessed data. Known: {', '.join(FORMATS)}.")
    if not path.exists():
        raise DataError(f"{path} does not exist. Run preprocess first, or check the path and read_format.")
    return FORMATS[name]


def check_values(path: Path, windows: Windows, n_classes: Mapping[str, int]) -> None:
    """Raises a `DataError` if a number is infinite, or an id not below its number of classes (if given)."""
    for name in windows.columns:
        low, high = _range(windows, name)
        if np.isinf([low, high]).any():
            raise DataError(f"{path}: column {name!r} holds an infinity. {INFINITE}")
        classes = n_classes.get(name)
        if classes is not None and (low < 0 or high >= classes):
            raise DataError(
                f"{path}: column {name!r} holds id {low if low < 0 else high}, but its {classes} classes "
                f"have the ids 0 to {classes - 1}. Data and metadata are of different runs of preprocess."
            )


def _range(windows: Windows, name: str) -> tuple[np.number, np.number]:
    """The smallest and the largest value of a column; what was mapped for it is given back."""
    ends = np.zeros(2, windows.columns[name].dtype)
    for rows in parts_of(windows.columns[name]):
        for first in range(0, len(rows), ROWS_PER_CHECK):
            some = rows[first : first + ROWS_PER_CHECK]
            ends = np.stack([np.fmin.reduce(some, initial=ends[0]), np.fmax.reduce(some, initial=ends[1])])
            windows.release()
    return ends[0], ends[1]


def _write_parquet(path: Path, windows: Windows, files: Files) -> None:
    if files.merged:
        long_format.write_parquet(path, windows, windows.by_sequence(), files.padding)
        return
    path.mkdir()
    for number, order in enumerate(orders_of_files(windows, files.sequences)):
        place = path / f"{files.stem}-{number:05d}.parquet"
        long_format.write_parquet(place, windows, order, files.padding)


def _write_pt(path: Path, windows: Windows, files: Files) -> None:
    torch_shards.write(path, windows, stem=files.stem, sequences_per_file=files.sequences)


FORMATS: dict[str, Format] = {
    "csv": Format(
        ".csv",
        lambda path, windows, files: long_format.write_csv(path, windows, files.padding),
        partial(long_format.read_blocks, table_format="csv"),
    ),
    "parquet": Format(".parquet", _write_parquet, partial(long_format.read_blocks, table_format="parquet")),
    "arrow": Format(
        "",
        lambda path, windows, _: shards.write(path, windows),
        lambda path, kinds, _: iter([shards.read(path, kinds)]),
        marker=shards.MANIFEST,
        native=True,
    ),
    "pt": Format(
        "",
        _write_pt,
        lambda path, kinds, _: torch_shards.read_files(path, kinds),
        marker=torch_shards.METADATA,
        by_file=True,
    ),
}
