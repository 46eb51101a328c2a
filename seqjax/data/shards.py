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

One record batch means one contiguous buffer a column, so that a column of any size is one memory-mapped array
and a batch is gathered by plain indexing. Such a file can still be written bit by bit: its numbers of rows
and windows are known beforehand, so it is laid out at full size, and every chunk is written to its place in
each buffer. That also makes an interrupted run easy to take up, since writing a chunk twice does no harm. So
`ShardWriter` makes a single shard whatever its size; several, as other programs may write, are mapped too and
read as one (see `spliced.py`); only their index of windows is copied.
"""

import hashlib
import json
import mmap
import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from seqjax.config.base import ConfigModel, validate
from seqjax.config.schema import ColumnKind, SeqLength
from seqjax.data.dataset import Windows, joined
from seqjax.errors import ConfigError, DataError

MANIFEST = "manifest.json"
INDEX_TYPES = {
    "sequenceId": "int64",
    "subsequenceId": "int64",
    "start": "int64",
    "length": "int32",
    "startItemPosition": "int64",
}
"""The columns of a file of windows."""
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
    seq_length: SeqLength
    """L, the number of input items of a window."""
    column_types: dict[str, Literal["int8", "int16", "int32", "int64", "float32"]]
    """Arrow type of each encoded column, in order (`float32` is Arrow's `float`)."""
    shards: Annotated[list[Shard], Field(min_length=1)]


class ShardWriter:
    """Writes a data set, the windows of some sequences at a time."""

    def __init__(self, path: Path, size: "DataSize", *, done: tuple[int, int] | None = None) -> None:
        """Lays the files out, or opens those of a writer that did not finish.

        Args:
          path: Where nothing is yet, or the folder of the earlier writer.
          size: What will be written.
          done: Rows and windows that are already there and stay; null starts a new folder.
        """
        row_types = {"sequenceId": "int64", "itemPosition": "int64", **size.column_types}
        rows, windows = path / "rows-00000.arrow", path / "windows-00000.arrow"
        if done is None:
            path.mkdir(parents=True)
            _lay_out(rows, row_types, size.n_rows)
            _lay_out(windows, INDEX_TYPES, size.n_windows)
        n_rows, n_windows = done or (0, 0)
        self._path = path
        self._size = size
        self._rows = _ColumnFile(rows, row_types, size.n_rows, n_rows)
        self._windows = _ColumnFile(windows, INDEX_TYPES, size.n_windows, n_windows)

    @property
    def done(self) -> tuple[int, int]:
        """Rows and windows written so far."""
        return self._rows.done, self._windows.done

    def append(self, windows: Windows) -> None:
        """Writes whole sequences, which follow those before.

        Args:
          windows: Windows with item positions, in the order of their rows; number 0 of each sequence starts
            at its first.
        """
        first_row = self._rows.done
        self._rows.append(_row_arrays(windows))
        self._windows.append(_window_arrays(windows, first_row))

    def sync(self) -> None:
        """Returns when all that was written is on disk."""
        self._rows.sync()
        self._windows.sync()

    def close(self) -> None:
        """Closes the files, finished or not."""
        self._rows.close()
        self._windows.close()

    def finish(self) -> None:
        """Writes the manifest."""
        shard = Shard(rows=self._rows.finish(), windows=self._windows.finish())
        manifest = {
            "format": "seqjax-arrow",
            "version": 1,
            "seq_length": self._size.seq_length,
            "column_types": dict(self._size.column_types),
            "shards": [shard.model_dump()],
        }
        (self._path / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class DataSize:
    """What a data set will hold."""

    seq_length: int
    column_types: Mapping[str, str]
    """NumPy type of each encoded column, in order."""
    n_rows: int
    n_windows: int


def write(path: Path, windows: Windows) -> None:
    """Writes windows as a new folder.

    Args:
      path: Where nothing is yet.
      windows: What `ShardWriter.append` takes.
    """
    types = {name: str(column.dtype) for name, column in windows.columns.items()}
    n_rows = len(next(iter(windows.columns.values())))
    writer = ShardWriter(path, DataSize(windows.seq_length, types, n_rows, len(windows)))
    with closing(writer):
        writer.append(windows)
        writer.finish()


def read(path: Path, column_kinds: Mapping[str, ColumnKind]) -> Windows:
    """Maps a folder of shards into memory.

    Args:
      path: The folder.
      column_kinds: The columns to read, in the order that the result shall have.

    Raises:
      DataError: A file is missing, damaged or not as the manifest says, or a column is missing or of another
        kind.
    """
    manifest = _manifest(path)
    _check_columns(path, manifest, column_kinds)
    parts = [_read_shard(path, shard, manifest, column_kinds) for shard in manifest.shards]
    return parts[0] if len(parts) == 1 else joined(parts)


class _ColumnFile:
    """An Arrow file that was laid out, and is filled from the beginning."""

    def __init__(self, path: Path, types: Mapping[str, str], records: int, done: int) -> None:
        self._path = path
        self._types = {name: np.dtype(dtype) for name, dtype in types.items()}
        self._records = records
        self.done = done
        self._offsets = _offsets(path)
        self._file = path.open("r+b", buffering=0)

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        for name, dtype in self._types.items():
            array = np.ascontiguousarray(arrays[name], dtype)
            self._write(array.view(np.uint8), self._offsets[name] + self.done * dtype.itemsize)
        self.done += len(next(iter(arrays.values())))

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def finish(self) -> ShardFile:
        assert self.done == self._records, "as many records as the file was laid out for"
        self.close()
        return ShardFile(
            path=self._path.name,
            records=self._records,
            bytes=self._path.stat().st_size,
            sha256=_digest(self._path),
        )

    def _write(self, content: np.ndarray, offset: int) -> None:
        view = content.data
        while view:
            n = os.pwrite(self._file.fileno(), view, offset)
            view, offset = view[n:], offset + n


def _lay_out(path: Path, types: Mapping[str, str], records: int) -> None:
    """Writes a file of one record batch of zeros; all columns share the memory they are written from."""
    dtypes = {name: np.dtype(dtype) for name, dtype in types.items()}
    zeros = pa.py_buffer(np.zeros(records * max(dtype.itemsize for dtype in dtypes.values()), np.uint8))
    arrays = [
        pa.Array.from_buffers(
            pa.from_numpy_dtype(dtype), records, [None, zeros.slice(0, records * dtype.itemsize)]
        )
        for dtype in dtypes.values()
    ]
    batch = pa.record_batch(arrays, names=list(types))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def _offsets(path: Path) -> dict[str, int]:
    """Where in the file the values of each column begin."""
    with pa.memory_map(str(path)) as source:
        begin = source.read_buffer().address
        batch = pa.ipc.open_file(source).get_batch(0)
        return {name: batch.column(name).buffers()[1].address - begin for name in batch.schema.names}


def _row_arrays(windows: Windows) -> dict[str, np.ndarray]:
    first = windows.subsequence_id == 0
    assert windows.item_position is not None, "shards keep the position of every item"
    length = np.diff(windows.start[first], append=len(windows.item_position))
    return {
        "sequenceId": np.repeat(windows.sequence_id[first], length),
        "itemPosition": np.asarray(windows.item_position),
        **{name: np.asarray(column) for name, column in windows.columns.items()},
    }


def _window_arrays(windows: Windows, first_row: int) -> dict[str, np.ndarray]:
    return {
        "sequenceId": windows.sequence_id,
        "subsequenceId": windows.subsequence_id,
        "start": windows.start + first_row,
        "length": windows.length,
        "startItemPosition": windows.start_item_position,
    }


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
    except (ValueError, TypeError, RecursionError) as error:
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
    path: Path, shard: Shard, manifest: Manifest, column_kinds: Mapping[str, ColumnKind]
) -> Windows:
    row_types = {"itemPosition": "int64", **{name: manifest.column_types[name] for name in column_kinds}}
    rows, mapped = _read_file(path, shard.rows, row_types)
    index, _ = _read_file(path, shard.windows, INDEX_TYPES)
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
        mapped=(mapped,),
    )


def _read_file(
    path: Path, file: ShardFile, types: Mapping[str, str]
) -> tuple[dict[str, np.ndarray], mmap.mmap]:
    """Arrays over the mapped file, checked as far as is possible without reading it all; and the map."""
    place = path / file.path
    if not place.is_file():
        raise DataError(f"{place} is missing. Run preprocess again.")
    if place.stat().st_size != file.bytes:
        raise DataError(
            f"{place} has {place.stat().st_size} bytes, but was written with {file.bytes}. Run preprocess "
            "again."
        )
    if file.bytes <= DIGEST_LIMIT and _digest(place) != file.sha256:
        raise DataError(
            f"{place} is not what was written: its SHA-256 differs from the manifest's. Run preprocess again."
        )
    try:
        # Not pyarrow's own map, which cannot be told to give memory back.
        with place.open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        reader = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped)))
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        if len(batches) != 1 or len(batches[0]) != file.records:
            raise DataError(
                f"{place} needs one record batch of {file.records} records (found {list(map(len, batches))})."
            )
        return {name: _array(place, batches[0], name, dtype) for name, dtype in types.items()}, mapped
    # A file of no bytes cannot be mapped, and is a ValueError, of which a wrong encoding is one too.
    except (pa.ArrowException, OSError, ValueError) as error:
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
