"""The format `pt`: a folder of torch files as sequifier 1.1 writes and loads them, without torch.

    NAME-split0-0-<k>.pt    windows of so many sequences: a tuple of inputs and targets (a dict each, column
                            to (W, L) int64 ids or float32 values; the targets are the inputs one item
                            later), and of sequence ids, subsequence ids and start item positions, (W,) int64
    metadata.json           {"total_samples": W in all, "batch_files": [{"path", "samples"}, ...]}

Torch has no nulls, so padded slots hold zeros, as those of sequifier do. In our files metadata.json has two
more entries, which sequifier passes over: `padding`, file name to [[window, padded slots], ...] for the
windows that are padded, and `context`, likewise for those whose first items are context alone, with the
number of these. Where `padding` is missing, as in sequifier's own folders, the leading slots that are zero in
every column of the data are taken for padding; the newest slot always holds an item.

`startItemPosition` is the position of slot 0, as in the long format. Windows are ordered by sequence and
subsequence; all windows of a sequence are in one file.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Bool, Int64, Num
from pydantic import ConfigDict, Field, NonNegativeInt

from seqjax.config.base import ConfigModel
from seqjax.config.schema import ColumnKind
from seqjax.data.columns import check_columns, id_dtype
from seqjax.data.shards import read_manifest
from seqjax.errors import ArtifactError, DataError
from seqjax.interop.torch_files import read_torch_file, write_torch_file
from seqjax.interop.unpickle import Value
from seqjax.windows.windows import Windows, listed, orders_of_files

logger = logging.getLogger(__name__)

METADATA = "metadata.json"

Slots = Num[np.ndarray, "W slots"]


class BatchFile(ConfigModel):
    """A torch file: its name in the folder and number of windows."""

    model_config = ConfigDict(extra="ignore")

    path: Annotated[str, Field(pattern=r"^[^/\\\x00]+\.pt$")]
    samples: NonNegativeInt


class Index(ConfigModel):
    """metadata.json: the number of windows in all files, and the files in the order of reading."""

    model_config = ConfigDict(extra="ignore")

    total_samples: NonNegativeInt
    batch_files: list[BatchFile]
    padding: dict[str, list[tuple[NonNegativeInt, NonNegativeInt]]] | None = None
    """By file: each padded window and how many of its slots are padded; None where only zeros tell."""
    context: dict[str, list[tuple[NonNegativeInt, NonNegativeInt]]] = Field(default_factory=dict)
    """By file: each window that begins with items that are context alone, and how many."""


def write(path: Path, windows: Windows, *, stem: str, sequences_per_file: int) -> None:
    """Writes windows as a new folder `path`.

    Args:
      path: Where nothing is yet.
      windows: The windows.
      stem: What the names of the files begin with: NAME-split0.
      sequences_per_file: A file is closed when it has so many sequences.
    """
    path.mkdir()
    orders = orders_of_files(windows, sequences_per_file)
    digits = len(str(len(orders) + 1))
    files, counts = [], {"padding": {}, "context": {}}
    for number, order in enumerate(orders):
        name = f"{stem}-0-{number:0{digits}d}.pt"
        listed_counts = _write_file(path / name, windows, order)
        files.append({"path": name, "samples": len(order)})
        for what, some in listed_counts.items():
            counts[what] |= {name: some} if some else {}
    context = {"context": counts["context"]} if counts["context"] else {}
    index = {"total_samples": len(windows), "batch_files": files, "padding": counts["padding"], **context}
    (path / METADATA).write_text(json.dumps(index, indent=4), encoding="utf-8")


def _write_file(path: Path, windows: Windows, indices: Int64[np.ndarray, "B"]) -> dict[str, list[list[int]]]:
    """Writes some windows, and returns which of them are padded or begin with context, and by how much."""
    batch = windows.gather(indices)
    columns = {
        name: values if values.dtype == np.float32 else values.astype(np.int64)
        for name, values in batch.columns.items()
    }
    inputs = {name: values[:, :-1] for name, values in columns.items()}
    targets = {name: values[:, 1:] for name, values in columns.items()}
    write_torch_file(path, (inputs, targets, *windows.keys(indices)))
    counts = {"padding": batch.padding, "context": windows.first_target(indices)}
    return {
        what: np.stack([np.flatnonzero(count), count[count != 0]], axis=1).tolist()
        for what, count in counts.items()
    }


def read_files(path: Path, column_kinds: Mapping[str, ColumnKind]) -> Iterator[Windows]:
    """Reads a folder, the windows of a file at a time; files without windows are passed over.

    Args:
      path: The folder.
      column_kinds: The columns to read, in the order that the result shall have.

    Raises:
      DataError: A file is missing, damaged or not as metadata.json says, or a column is missing or of another
        kind.
    """
    index = _index(path)
    unlisted = sorted({file.name for file in path.glob("*.pt")} - {file.path for file in index.batch_files})
    if unlisted:
        logger.warning(
            "%s: %s is not listed in %s and is not read (%d such files).",
            path,
            unlisted[0],
            METADATA,
            len(unlisted),
        )
    seq_length: int | None = None
    for file in index.batch_files:
        padding = None if index.padding is None else index.padding.get(file.path, [])
        context = index.context.get(file.path, [])
        windows = _read_file(path / file.path, file.samples, column_kinds, padding, context)
        if not len(windows):
            continue
        seq_length = seq_length or windows.seq_length
        if windows.seq_length != seq_length:
            raise DataError(
                f"{path} holds windows of seq_length {seq_length} and of {windows.seq_length}, so its files "
                "are of different runs. Remove the folder and preprocess again."
            )
        yield windows
    if seq_length is None:
        raise DataError(f"{path} holds no windows. Preprocess again with a larger share for this split.")


def _index(path: Path) -> Index:
    file = path / METADATA
    index = read_manifest(file, Index, "pt")
    names = [entry.path for entry in index.batch_files]
    total = sum(entry.samples for entry in index.batch_files)
    if len(set(names)) != len(names) or total != index.total_samples:
        raise DataError(
            f"{file} lists a file twice, or its total_samples, {index.total_samples}, is not the sum of its "
            f"samples, {total}. Run preprocess again."
        )
    return index


def _read_file(
    path: Path,
    samples: int,
    column_kinds: Mapping[str, ColumnKind],
    padding: list[tuple[int, int]] | None,
    context: list[tuple[int, int]],
) -> Windows:
    if not path.is_file():
        raise DataError(f"{path} is missing, although {METADATA} lists it. Run preprocess again.")
    try:
        content = read_torch_file(path)
    except ArtifactError as error:
        raise DataError(f"{error} Run preprocess again.") from error
    columns, keys = _checked(path, content, samples)
    check_columns(path, {name: str(values.dtype) for name, values in columns.items()}, column_kinds)
    n_slots = next(iter(columns.values())).shape[1]
    n_padded = (
        leading_zeros(columns.values())
        if padding is None
        else _counted(path, "padded", padding, np.full(samples, n_slots))
    )
    first_target = _counted(path, "context", context, n_slots - n_padded)
    return of_slots(path, columns, n_padded, keys, column_kinds=column_kinds, first_target=first_target)


def of_slots(
    path: Path,
    columns: Mapping[str, Slots],
    n_padded: Int64[np.ndarray, "W"],
    keys: Sequence[Int64[np.ndarray, "W"]],
    *,
    column_kinds: Mapping[str, ColumnKind],
    first_target: Int64[np.ndarray, "W"] | None,
) -> Windows:
    """Windows whose slots are all written out.

    Args:
      path: The file, for messages.
      columns: The slots of each column.
      n_padded: Number of leading slots of each window that are padded.
      keys: Sequence, number in it and position of slot 0 of each window.
      column_kinds: The columns of the result.
      first_target: Number of items after the padding that are context alone; None: none of any.

    Raises:
      DataError: A value is not finite, or no id where it must be.
    """
    n_slots = next(iter(columns.values())).shape[1]
    real = np.arange(n_slots) >= n_padded[:, None]
    length = n_slots - n_padded
    return listed(
        {name: _typed(path, name, kind, columns[name][real]) for name, kind in column_kinds.items()},
        start=np.cumsum(length) - length,
        length=length,
        sequence_id=keys[0],
        subsequence_id=keys[1],
        start_item_position=keys[2],
        first_target=first_target,
        seq_length=n_slots - 1,
    )


def _checked(
    path: Path, content: Value, samples: int
) -> tuple[dict[str, Slots], list[Int64[np.ndarray, "W"]]]:
    """All slots of each column, and the three keys, of a file that is as it should be."""
    if type(content) is not tuple or len(content) != 5 or not all(type(part) is dict for part in content[:2]):
        raise DataError(
            f"{path} does not hold windows, which are five: inputs, targets, and three keys. Use a file that "
            "preprocess wrote."
        )
    inputs, targets, *keys = content
    shape = next((values.shape for values in inputs.values() if isinstance(values, np.ndarray)), ())
    named = all(type(name) is str for name in inputs) and inputs.keys() == targets.keys()
    if not named or len(shape) != 2 or 0 in shape[1:]:
        raise DataError(
            f"{path}: inputs ({list(inputs)[:9]}) and targets ({list(targets)[:9]}) must be arrays (windows, "
            "items) of the same columns."
        )
    for values, expected, kinds in [
        *((values, shape, "if") for part in (inputs, targets) for values in part.values()),
        *((key, shape[:1], "i") for key in keys),
    ]:
        if not isinstance(values, np.ndarray) or values.shape != expected or values.dtype.kind not in kinds:
            raise DataError(
                f"{path}: its arrays do not belong together or are of wrong types. Preprocess again."
            )
    if shape[0] != samples:
        raise DataError(
            f"{path} holds {shape[0]} windows, but {METADATA} says {samples}. Run preprocess again."
        )
    for name, values in inputs.items():
        if not np.array_equal(values[:, 1:], targets[name][:, :-1], equal_nan=values.dtype.kind == "f"):
            raise DataError(f"{path}: the targets of column {name!r} are not its inputs one item later.")
    columns = {
        name: np.concatenate([values, targets[name][:, -1:]], axis=1, dtype=values.dtype)
        for name, values in inputs.items()
    }
    return columns, [key.astype(np.int64) for key in keys]


def _counted(
    path: Path, what: str, entries: list[tuple[int, int]], slots: Int64[np.ndarray, "W"]
) -> Int64[np.ndarray, "W"]:
    """The count of each window, which must leave at least one of its slots."""
    counts = np.zeros(len(slots), np.int64)
    for window, count in entries:
        if window >= len(slots) or count >= slots[window]:
            raise DataError(
                f"{path}: {METADATA} says that {count} slots of window {window} are {what}, but there are "
                f"{len(slots)} windows of {slots.max(initial=0)} slots. Run preprocess again."
            )
        counts[window] = count
    return counts


def leading_zeros(columns: Iterable[Num[np.ndarray, "W slots"]]) -> Int64[np.ndarray, "W"]:
    """Number of leading slots that are zero in every column; the newest slot always holds an item.

    Args:
      columns: The slots of each column of the data, not only of those that a model reads.
    """
    zero: Bool[np.ndarray, "W slots"] = np.logical_and.reduce([column == 0 for column in columns])
    zero[:, -1] = False
    return np.argmin(zero, axis=1).astype(np.int64)


def _typed(path: Path, name: str, kind: ColumnKind, values: Num[np.ndarray, "N"]) -> Num[np.ndarray, "N"]:
    """Float32 values, or ids in the smallest type that holds them."""
    if kind == "real":
        values = values.astype(np.float32)
        if np.isinf(values).any():
            raise DataError(f"{path}: column {name!r} holds an infinity. Preprocess again.")
        return values
    wrong = ~(values == np.floor(values)) | (values < 0) | (values > np.iinfo(np.int32).max)
    if wrong.any():
        raise DataError(
            f"{path}: column {name!r} is categorical, but holds {values[np.argmax(wrong)]:g}, which is no "
            "id. Check the column types."
        )
    return values.astype(id_dtype(int(values.max(initial=0))))
