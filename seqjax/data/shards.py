"""The native format: a folder of uncompressed Arrow IPC files, mapped into memory as they are.

    rows-00000.arrow      each item once: the encoded columns (the smallest signed integer type that holds the
                          ids, or float32)
    runs-00000.arrow      where sequences lie in the rows, a line a run of rows: the arrays of
                          `seqjax.windows.index.Runs`, from which any window is computed
    positions-00000.arrow itemPosition (int64) of the rows of those runs whose positions are not consecutive,
                          where there are any
    manifest.json         written last: version, seq_length, stride, column types, and each file's size and
                          SHA-256

A shard holds whole runs. Each file is one record batch without nulls.

One record batch means one contiguous buffer a column, so that a column of any size is one memory-mapped
array and a batch is gathered by plain indexing. Such a file can still be written bit by bit: its number of
records is known beforehand, so it is laid out at full size, and every chunk is written to its place in each
buffer. That also makes an interrupted run easy to take up, since writing a chunk twice does no harm. So
`ShardWriter` makes a single shard whatever its size; several, as other programs may write, are mapped too
and read as one (see `seqjax/windows/spliced.py`); only their runs are copied.
"""

import hashlib
import json
import mmap
import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, NonNegativeInt

from seqjax.config.base import Config, ConfigModel, validate
from seqjax.config.schema import ColumnKind, SeqLength, Stride
from seqjax.data.columns import check_columns, id_dtype
from seqjax.errors import ConfigError, DataError
from seqjax.windows.index import CONSECUTIVE, RUN_ARRAYS, Runs, n_windows
from seqjax.windows.windows import Windows, joined

MANIFEST = "manifest.json"
RUN_TYPES: dict[str, str | None] = {
    "sequenceId": "int64",
    "firstSubsequence": None,
    "firstRow": None,
    "rows": None,
    "firstPosition": "int64",
    "positionsAt": None,
    "firstTarget": None,
    "firstWindow": "int64",
}
"""The columns of a file of runs; None is any signed integer type."""
RUN_COLUMNS = dict(zip(RUN_TYPES, RUN_ARRAYS, strict=True))
"""The field of `Runs` that each column holds."""
POSITION_TYPES = {"itemPosition": "int64"}
RUNS_PER_CHECK = 1 << 20
"""Number of runs that are checked at a time."""
DIGEST_LIMIT = 1 << 25
"""Files up to so many bytes are compared with their digest whenever they are read."""


class ShardFile(ConfigModel):
    """One file of a data set, as it was when written: its name in the folder, size and digest."""

    path: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    records: NonNegativeInt
    """Number of rows, runs or positions."""
    bytes: NonNegativeInt
    sha256: str


class Shard(ConfigModel):
    """Whole runs, and where they lie."""

    rows: ShardFile
    runs: ShardFile
    positions: ShardFile | None
    """None where those of every run are consecutive."""


class Manifest(ConfigModel):
    """The contents of a data set."""

    format: Literal["seqjax-arrow"]
    version: Literal[2]
    seq_length: SeqLength
    """L, the number of input items of a window."""
    stride: Stride
    """The largest step between window starts."""
    column_types: dict[str, Literal["int8", "int16", "int32", "int64", "float32"]]
    """Arrow type of each encoded column, in order (`float32` is Arrow's `float`)."""
    shards: Annotated[list[Shard], Field(min_length=1)]


@dataclass(frozen=True)
class DataSize:
    """The contents that a data set will have."""

    seq_length: int
    stride: int
    column_types: Mapping[str, str]
    """NumPy type of each encoded column, in order."""
    rows: int
    runs: int
    positions: int
    """Rows of runs whose positions are not consecutive."""
    last_subsequence: int = 0
    """The largest number in its sequence of a run's first window."""

    @property
    def files(self) -> dict[str, tuple[dict[str, str], int]]:
        """The types of the columns of each file, and its number of records."""
        row, position = str(id_dtype(self.rows)), str(id_dtype(self.positions))
        subsequence = str(id_dtype(self.last_subsequence))
        target = str(id_dtype(self.seq_length))
        narrow = {"firstSubsequence": subsequence, "positionsAt": position, "firstTarget": target}
        runs = {name: kind or narrow.get(name, row) for name, kind in RUN_TYPES.items()}
        files = {"rows": (dict(self.column_types), self.rows), "runs": (runs, self.runs)}
        return files | ({"positions": (POSITION_TYPES, self.positions)} if self.positions else {})


class ShardWriter:
    """Writes a data set, some runs at a time."""

    def __init__(self, path: Path, size: DataSize, *, done: dict[str, Any] | None = None) -> None:
        """Lays the files out, or opens those of a writer that did not finish.

        Args:
          path: Where nothing is yet, or the folder of the earlier writer.
          size: What will be written.
          done: What is already there and stays; None starts a new folder.
        """
        places = {name: path / f"{name}-00000.arrow" for name in size.files}
        if done is None:
            path.mkdir(parents=True)
            for name, (types, records) in size.files.items():
                _lay_out(places[name], types, records)
        self._path = path
        self._size = size
        self._files = {
            name: _ColumnFile(places[name], types, records, 0 if done is None else done[name])
            for name, (types, records) in size.files.items()
        }
        self._n_windows, self._last = (0, None) if done is None else (done["windows"], done["last"])

    @property
    def done(self) -> dict[str, Any]:
        """Records of each file written so far, windows, and the last run, as JSON has them."""
        records = {name: file.done for name, file in self._files.items()}
        return records | {"windows": self._n_windows, "last": self._last}

    def append(self, windows: Windows) -> None:
        """Writes runs, which follow those before; the first goes on with the last one of the same sequence.

        Args:
          windows: Windows as they were cut: their runs cover their rows, in order.
        """
        runs, files = windows.runs, self._files
        kept = files["positions"].done if "positions" in files else 0
        arrays = {name: np.array(getattr(runs, field), np.int64) for name, field in RUN_COLUMNS.items()}
        arrays["firstRow"] += files["rows"].done
        arrays["positionsAt"][runs.positions_at != CONSECUTIVE] += kept
        if self._last is not None and self._last["sequenceId"] == runs.sequence_id[0]:
            arrays = {name: np.append(self._last[name], values[1:]) for name, values in arrays.items()}
            arrays["rows"][0] += runs.rows[0]
            files["runs"].done -= 1
            self._n_windows = self._last["firstWindow"]
        counts = n_windows(arrays["rows"], seq_length=self._size.seq_length, stride=self._size.stride)
        arrays["firstWindow"] = self._n_windows + np.cumsum(counts) - counts
        files["rows"].append({name: np.asarray(column) for name, column in windows.columns.items()})
        files["runs"].append(arrays)
        if "positions" in files:
            files["positions"].append({"itemPosition": np.asarray(windows.item_position)})
        self._n_windows += int(counts.sum())
        self._last = {name: int(values[-1]) for name, values in arrays.items()}

    def sync(self) -> None:
        """Returns when all that was written is on disk."""
        for file in self._files.values():
            file.sync()

    def close(self) -> None:
        """Closes the files, finished or not."""
        for file in self._files.values():
            file.close()

    def finish(self) -> None:
        """Writes the manifest."""
        files = {name: file.finish().model_dump() for name, file in self._files.items()}
        manifest = {
            "format": "seqjax-arrow",
            "version": 2,
            "seq_length": self._size.seq_length,
            "stride": self._size.stride,
            "column_types": dict(self._size.column_types),
            "shards": [{"positions": None, **files}],
        }
        (self._path / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def write(path: Path, windows: Windows) -> None:
    """Writes windows as a new folder.

    Args:
      path: Where nothing is yet.
      windows: What `ShardWriter.append` takes.
    """
    size = DataSize(
        windows.runs.seq_length,
        windows.runs.stride,
        {name: str(column.dtype) for name, column in windows.columns.items()},
        rows=len(next(iter(windows.columns.values()))),
        runs=len(windows.runs),
        positions=len(windows.item_position),
        last_subsequence=int(np.abs(windows.runs.first_subsequence).max(initial=0)),
    )
    writer = ShardWriter(path, size)
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
    manifest = read_manifest(path / MANIFEST, Manifest, "arrow")
    check_columns(path, manifest.column_types, column_kinds)
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
    """Offsets in the file at which the values of each column begin, in bytes."""
    with pa.memory_map(str(path)) as source:
        begin = source.read_buffer().address
        batch = pa.ipc.open_file(source).get_batch(0)
        return {name: batch.column(name).buffers()[1].address - begin for name in batch.schema.names}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(file: Path, model: type[Config], write_format: str) -> Config:
    """Reads the JSON file that describes a folder.

    Args:
      file: The file.
      model: The content that it must have.
      write_format: The format of the folder, for messages.

    Raises:
      DataError: The file is missing or has another content.
    """
    if not file.is_file():
        raise DataError(
            f"{file.parent} has no {file.name}, so it is no complete {write_format} data set. Run preprocess "
            "again."
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.get("version") == 1:
            raise DataError(f"{file} is of version 1 of the format, and this is 2. Run preprocess again.")
        return validate(model, content, str(file))
    except ConfigError as error:
        raise DataError(f"{error}\nRun preprocess again.") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{file} is no manifest: {error}. Run preprocess again.") from error


def _read_shard(
    path: Path, shard: Shard, manifest: Manifest, column_kinds: Mapping[str, ColumnKind]
) -> Windows:
    rows, row_map = _read_file(path, shard.rows, {name: manifest.column_types[name] for name in column_kinds})
    arrays, _ = _read_file(path, shard.runs, RUN_TYPES)
    positions, mapped = np.zeros(0, np.int64), (row_map,)
    if shard.positions is not None:
        kept, position_map = _read_file(path, shard.positions, POSITION_TYPES)
        positions, mapped = kept["itemPosition"], (row_map, position_map)
    by_field = {field: arrays[name] for name, field in RUN_COLUMNS.items()}
    runs = Runs(**by_field, seq_length=manifest.seq_length, stride=manifest.stride, min_history=None)
    _check_runs(path / shard.runs.path, runs, shard.rows.records, len(positions))
    return Windows(rows, runs, positions, manifest.seq_length, mapped)


def _check_runs(place: Path, runs: Runs, n_rows: int, n_positions: int) -> None:
    """Raises a `DataError` unless every run lies within the rows and has the windows that follow from it."""
    expected = 0
    for begin in range(0, len(runs), RUNS_PER_CHECK):
        some = slice(begin, begin + RUNS_PER_CHECK)
        rows, first_row, at, target, first_window = (
            array[some].astype(np.int64)
            for array in (runs.rows, runs.first_row, runs.positions_at, runs.first_target, runs.first_window)
        )
        counts = n_windows(rows, seq_length=runs.seq_length, stride=runs.stride)
        ends = expected + np.cumsum(counts)
        wrong = {
            f"is not within {n_rows} rows": (rows < 1) | (first_row < 0) | (first_row > n_rows - rows),
            f"is not within {n_positions} positions": (at < CONSECUTIVE)
            | ((at != CONSECUTIVE) & (at > n_positions - rows)),
            "has no target": (target < 0) | (target >= rows),
            "does not begin with the window that follows those before": first_window != ends - counts,
        }
        for what, mask in wrong.items():
            if mask.any():
                run = int(np.argmax(mask))
                raise DataError(
                    f"{place}: run {begin + run} (firstRow {first_row[run]}, rows {rows[run]}, positionsAt "
                    f"{at[run]}, firstTarget {target[run]}, firstWindow {first_window[run]}) {what}. Run "
                    "preprocess again."
                )
        expected = int(ends[-1])


def _read_file(
    path: Path, file: ShardFile, types: Mapping[str, str | None]
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


def _array(place: Path, batch: pa.RecordBatch, name: str, dtype: str | None) -> np.ndarray:
    if name not in batch.schema.names:
        raise DataError(f"{place} has no column {name!r} (columns: {', '.join(batch.schema.names)}).")
    column = batch.column(name)
    expected = "a signed integer type" if dtype is None else pa.from_numpy_dtype(np.dtype(dtype))
    fits = pa.types.is_signed_integer(column.type) if dtype is None else column.type == expected
    if not fits or column.null_count:
        raise DataError(
            f"{place}: column {name!r} must be {expected} without nulls (found {column.type}, "
            f"{column.null_count} nulls)."
        )
    return column.to_numpy(zero_copy_only=True)
