"""The native format: a folder of uncompressed Arrow IPC files, mapped into memory as they are.

    rows-00000.arrow      each item once: sequenceId, itemPosition (int64), then the encoded columns (the
                          smallest signed integer type that holds the ids, or float32)
    windows-00000.arrow   sequenceId, subsequenceId, start (row of the first real item, in this shard's
                          rows), length (number of real items; int32), startItemPosition (int64 unless said
                          otherwise)
    manifest.json         written last: version, seq_length, column types, counts, and each file's size and
                          SHA-256

A shard holds whole sequences. Each file is one record batch without nulls. In the windows, a sequence's
number 0 starts at its first row.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from seqjax.config.base import ConfigModel, validate
from seqjax.config.schema import ColumnKind
from seqjax.data.dataset import Windows, joined
from seqjax.errors import ConfigError, DataError

MANIFEST = "manifest.json"
ROWS_PER_SHARD = 1 << 24
DIGEST_LIMIT = 1 << 25
"""Files up to so many bytes are compared with their digest whenever they are read."""

Count = Annotated[int, Field(ge=0)]


class ShardFile(ConfigModel):
    """One file of a data set, as it was when written."""

    path: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    """Its name in the folder."""
    records: Count
    """Number of rows or windows."""
    bytes: Count
    """Its size."""
    sha256: str
    """Digest of its content, in hexadecimal."""


class Shard(ConfigModel):
    """Whole sequences, and the windows over them."""

    rows: ShardFile
    windows: ShardFile


class Manifest(ConfigModel):
    """What a data set consists of."""

    format: Literal["seqjax-arrow"]
    version: Literal[1]
    seq_length: Annotated[int, Field(gt=0)]
    """L, the number of input items of a window."""
    column_types: dict[str, Literal["int8", "int16", "int32", "int64", "float32"]]
    """Arrow type of each encoded column, in order (`float32` is Arrow's `float`)."""
    shards: Annotated[list[Shard], Field(min_length=1)]


def write(path: Path, windows: Windows, *, rows_per_shard: int = ROWS_PER_SHARD) -> None:
    """Writes windows as a new folder `path`.

    Args:
      path: Where nothing is yet.
      windows: Windows with item positions, in the order of their rows; number 0 of each sequence starts at
        its first.
      rows_per_shard: A shard is closed when it has so many rows.
    """
    path.mkdir()
    shards = []
    for number, part in enumerate(_parts(windows, rows_per_shard)):
        rows = _write_file(path / f"rows-{number:05d}.arrow", _row_arrays(windows, part))
        index = _write_file(path / f"windows-{number:05d}.arrow", _window_arrays(windows, part))
        shards.append(Shard(rows=rows, windows=index))
    manifest = {
        "format": "seqjax-arrow",
        "version": 1,
        "seq_length": windows.seq_length,
        "column_types": {name: str(column.dtype) for name, column in windows.columns.items()},
        "shards": [shard.model_dump() for shard in shards],
    }
    (path / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def read(path: Path, column_kinds: Mapping[str, ColumnKind], *, verify: bool = False) -> Windows:
    """Maps a folder of shards into memory; several shards are copied together.

    Args:
      path: The folder.
      column_kinds: The columns to read, in the order that the result shall have.
      verify: Compare the digest of every file; otherwise only of small ones (sizes are always compared).

    Raises:
      DataError: A file is missing, damaged or not as the manifest says, or a column is missing or of another
        kind.
    """
    manifest = _manifest(path)
    _check_columns(path, manifest, column_kinds)
    parts = [_read_shard(path, shard, manifest, column_kinds, verify=verify) for shard in manifest.shards]
    return parts[0] if len(parts) == 1 else joined(parts)


def _parts(windows: Windows, rows_per_shard: int) -> Iterator[tuple[slice, slice]]:
    """The rows and the windows of each shard: whole sequences, a new shard at every so many rows."""
    n_rows = len(next(iter(windows.columns.values())))
    first_windows = np.flatnonzero(windows.subsequence_id == 0)
    first_rows = windows.start[first_windows]
    cuts = np.flatnonzero(np.diff(first_rows // rows_per_shard)) + 1
    row_cuts = [0, *first_rows[cuts].tolist(), n_rows]
    window_cuts = [0, *first_windows[cuts].tolist(), len(windows)]
    for number in range(len(cuts) + 1):
        yield slice(*row_cuts[number : number + 2]), slice(*window_cuts[number : number + 2])


def _row_arrays(windows: Windows, part: tuple[slice, slice]) -> dict[str, np.ndarray]:
    rows, index = part
    first = windows.subsequence_id[index] == 0
    length = np.diff(windows.start[index][first], append=rows.stop)
    assert windows.item_position is not None, "shards keep the position of every item"
    return {
        "sequenceId": np.repeat(windows.sequence_id[index][first], length),
        "itemPosition": windows.item_position[rows],
        **{name: column[rows] for name, column in windows.columns.items()},
    }


def _window_arrays(windows: Windows, part: tuple[slice, slice]) -> dict[str, np.ndarray]:
    rows, index = part
    return {
        "sequenceId": windows.sequence_id[index],
        "subsequenceId": windows.subsequence_id[index],
        "start": windows.start[index] - rows.start,
        "length": windows.length[index],
        "startItemPosition": windows.start_item_position[index],
    }


def _write_file(path: Path, arrays: Mapping[str, np.ndarray]) -> ShardFile:
    batch = pa.record_batch([pa.array(array) for array in arrays.values()], names=list(arrays))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return ShardFile(path=path.name, records=len(batch), bytes=path.stat().st_size, sha256=_digest(path))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest(path: Path) -> Manifest:
    file = path / MANIFEST
    if not file.is_file():
        raise DataError(
            f"{path} has no {MANIFEST}, so it is no complete arrow data set. Run preprocess again."
        )
    try:
        return validate(Manifest, json.loads(file.read_text(encoding="utf-8")), str(file))
    except ConfigError as error:
        raise DataError(f"{error}\nRun preprocess again.") from error
    except (ValueError, TypeError) as error:
        raise DataError(f"{file} is no manifest: {error}. Run preprocess again.") from error


def _check_columns(path: Path, manifest: Manifest, column_kinds: Mapping[str, ColumnKind]) -> None:
    for name, kind in column_kinds.items():
        found = manifest.column_types.get(name)
        if found is None:
            columns = ", ".join(manifest.column_types)
            raise DataError(
                f"{path} has no column {name!r} (columns: {columns}). Check the columns, or preprocess again."
            )
        if (found == "float32") != (kind == "real"):
            raise DataError(
                f"{path}: column {name!r} is of type {found}, but expected to be {kind}. Check column_types."
            )


def _read_shard(
    path: Path, shard: Shard, manifest: Manifest, column_kinds: Mapping[str, ColumnKind], *, verify: bool
) -> Windows:
    row_types = {"itemPosition": "int64", **{name: manifest.column_types[name] for name in column_kinds}}
    rows = _read_file(path, shard.rows, row_types, verify=verify)
    long = ("sequenceId", "subsequenceId", "start", "startItemPosition")
    index = _read_file(
        path, shard.windows, {**dict.fromkeys(long, "int64"), "length": "int32"}, verify=verify
    )
    start, length = index["start"], index["length"]
    beyond = (
        (start < 0)
        | (length < 1)
        | (length > manifest.seq_length + 1)
        | (start > shard.rows.records - length)
    )
    if beyond.any():
        window = int(np.argmax(beyond))
        raise DataError(
            f"{path / shard.windows.path}: window {window} (start {start[window]}, length {length[window]}) "
            f"is not within {shard.rows.records} rows or longer than {manifest.seq_length + 1} items. Run "
            "preprocess again."
        )
    return Windows(
        columns={name: rows[name] for name in column_kinds},
        start=start,
        length=length,
        sequence_id=index["sequenceId"],
        subsequence_id=index["subsequenceId"],
        start_item_position=index["startItemPosition"],
        item_position=rows["itemPosition"],
        seq_length=manifest.seq_length,
    )


def _read_file(
    path: Path, file: ShardFile, types: Mapping[str, str], *, verify: bool
) -> dict[str, np.ndarray]:
    """Arrays over the memory-mapped file, checked as far as is possible without reading it all."""
    place = path / file.path
    if not place.is_file():
        raise DataError(f"{place} is missing. Run preprocess again.")
    if place.stat().st_size != file.bytes:
        raise DataError(
            f"{place} has {place.stat().st_size} bytes, but was written with {file.bytes}. Run preprocess "
            "again."
        )
    if (verify or file.bytes <= DIGEST_LIMIT) and _digest(place) != file.sha256:
        raise DataError(
            f"{place} is not what was written: its SHA-256 differs from the manifest's. Run preprocess again."
        )
    try:
        with pa.memory_map(str(place)) as source:
            reader = pa.ipc.open_file(source)
            batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        if len(batches) != 1 or len(batches[0]) != file.records:
            raise DataError(
                f"{place} needs one record batch of {file.records} records (found {list(map(len, batches))})."
            )
        return {name: _array(place, batches[0], name, dtype) for name, dtype in types.items()}
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{place} cannot be read as an Arrow file: {error}. Run preprocess again.") from error


def _array(place: Path, batch: pa.RecordBatch, name: str, dtype: str) -> np.ndarray:
    if name not in batch.schema.names:
        raise DataError(f"{place} has no column {name!r} (columns: {', '.join(batch.schema.names)}).")
    column = batch.column(name)
    expected = pa.from_numpy_dtype(np.dtype(dtype))
    if column.type != expected or column.null_count:
        raise DataError(
            f"{place}: column {name!r} must be {expected} without nulls (found {column.type}, "
            f"{column.null_count} nulls)."
        )
    return column.to_numpy(zero_copy_only=True)
