"""Feeds damaged and odd files to everything that reads files, and counts how that ends.

    python -m tools.fuzz_readers [--cases 10000] [--readers csv pt] [--jobs 2] [--seed 0] [--out FILE.json]

A reader may return, or refuse with a `SeqjaxError`; that is all. Whatever else happens is a finding, and is
printed with the number of its case: another exception, a crash of the process, a case that takes more than
10 CPU seconds or a minute, or raises the peak of memory by more than 1 GB. A case depends on the seed, its
reader and its number alone: `--first N --cases 1` repeats it.

Readers: config (YAML of each command), metadata, id-map, manifest, shard (arrow files whose digests fit), pt
(torch files and their index), csv and parquet (raw tables), long-csv and long-parquet (preprocessed data).
"""

import argparse
import faulthandler
import hashlib
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
import pyarrow as pa

from seqjax.config.base import ConfigModel
from seqjax.config.hyperparameter_search import HyperparameterSearchConfig
from seqjax.config.infer import InferConfig
from seqjax.config.load import load_config
from seqjax.config.preprocess import PreprocessConfig
from seqjax.config.resolve import load_metadata
from seqjax.config.schema import ColumnKind
from seqjax.config.train import TrainConfig
from seqjax.config.yaml_text import parse_yaml
from seqjax.data import long_format, shards
from seqjax.data.fitting import read_id_map
from seqjax.data.formats import FORMATS, Files, load_windows, window_blocks
from seqjax.data.long_format import Padding
from seqjax.data.sorting import OrderedRows
from seqjax.data.splits import sequences
from seqjax.data.tables import MissingReal, Selection, TableReader, open_files
from seqjax.errors import SeqjaxError
from seqjax.interop.torch_files import write_torch_file
from seqjax.windows.windows import Windows, cut
from tools import fuzz_inputs
from tools.fuzz_mutations import csv_in_a_dialect, json_of, mutated_bytes, mutated_tree, odd_value

SECONDS_A_CASE, MOST_SECONDS = 10, 60
MEGABYTES_A_CASE = 1000
KINDS: dict[str, ColumnKind] = {"item": "categorical", "price": "real"}
N_CLASSES = {"item": 9}

CONFIGS: dict[str, type[ConfigModel]] = {
    fuzz_inputs.PREPROCESS: PreprocessConfig,
    fuzz_inputs.TRAIN: TrainConfig,
    fuzz_inputs.INFER: InferConfig,
    fuzz_inputs.SEARCH: HyperparameterSearchConfig,
}


# One case of each reader
# ------------------------------------------------------------------------------------


def fuzz_config(rng: random.Random, folder: Path) -> None:
    """The YAML of a command."""
    text, model = rng.choice(list(CONFIGS.items()))
    if rng.random() < 0.5:
        (folder / "c.yaml").write_bytes(mutated_bytes(rng, text.encode()))
    else:
        _write(rng, folder / "c.yaml", parse_yaml(text, "c.yaml"))
    load_config(model, folder / "c.yaml")


def fuzz_metadata(rng: random.Random, folder: Path) -> None:
    """The metadata JSON."""
    _write(rng, folder / "m.json", parse_yaml(fuzz_inputs.METADATA, "m.json"))
    load_metadata(folder / "m.json")


def fuzz_id_map(rng: random.Random, folder: Path) -> None:
    """An id map that a user prepares."""
    _write(rng, folder / "m.json", parse_yaml(fuzz_inputs.ID_MAP, "m.json"))
    read_id_map(folder / "m.json")


def fuzz_manifest(rng: random.Random, folder: Path) -> None:
    """What describes a folder of shards."""
    data = _copied("arrow", folder)
    _write(rng, data / shards.MANIFEST, json.loads((data / shards.MANIFEST).read_text()))
    _use(load_windows(data, "arrow", column_kinds=KINDS, n_classes=N_CLASSES))


def fuzz_shard(rng: random.Random, folder: Path) -> None:
    """An arrow file, of whatever content, whose digest fits."""
    data = _copied("arrow", folder)
    manifest = json.loads((data / shards.MANIFEST).read_text())
    file = manifest["shards"][0][rng.choice(["rows", "runs"])]
    path = data / file["path"]
    if rng.random() < 0.6:
        path.write_bytes(mutated_bytes(rng, path.read_bytes()))
    else:
        file["records"] = _odd_arrow_file(rng, path)
    file |= {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    (data / shards.MANIFEST).write_text(json.dumps(manifest))
    _use(load_windows(data, "arrow", column_kinds=KINDS, n_classes=N_CLASSES))


def _odd_arrow_file(rng: random.Random, path: Path) -> int:
    """Rewrites an arrow file with a column that is another, and returns its number of records."""
    with pa.ipc.open_file(path) as reader:
        table = reader.read_all()
    place = rng.randrange(table.num_columns)
    name, n = table.column_names[place], table.num_rows
    other = rng.choice(
        [
            pa.array([rng.choice([0, 1, -1, 9, 2**31 - 1, -(2**31)]) for _ in range(n)], pa.int32()),
            pa.array([rng.choice([0, 1, 2**62, -1]) for _ in range(n)], pa.int64()),
            pa.array([rng.choice([0.0, float("nan"), float("inf"), 1e30]) for _ in range(n)], pa.float32()),
            pa.array([rng.randint(-128, 127) for _ in range(n)], pa.int8()),
            pa.array([None] * n, pa.int64()),
            pa.array(["x"] * n),
            pa.nulls(n),
            pa.array([[1]] * n),
            pa.array([b"x"] * n).dictionary_encode(),
        ]
    )
    table = table.set_column(place, rng.choice([name, name, name, "other", ""]), other)
    if rng.random() < 0.3:
        table = table.select(rng.sample(table.column_names, rng.randint(1, table.num_columns)))
    rows = rng.choice([n, n, n - 1, 0])
    options = pa.ipc.IpcWriteOptions(compression=rng.choice([None, None, None, "lz4", "zstd"]))
    with pa.ipc.new_file(path, table.schema, options=options) as writer:
        writer.write_table(table.slice(0, rows), max_chunksize=rng.choice([None, None, None, 5]))
    return rng.choice([rows, rows, rows, n + 1, 0])


def fuzz_pt(rng: random.Random, folder: Path) -> None:
    """A folder of torch files."""
    data = _copied("pt", folder)
    path = rng.choice(sorted(data.glob("*.pt")))
    kind = rng.choice(["index", "bytes", "bytes", "object"])
    if kind == "index":
        index = data / "metadata.json"
        _write(rng, index, json.loads(index.read_text()))
    elif kind == "bytes":
        path.write_bytes(mutated_bytes(rng, path.read_bytes()))
    else:
        write_torch_file(path, _odd_object(rng))
    _use(load_windows(data, "pt", column_kinds=KINDS, n_classes=N_CLASSES))


def _odd_object(rng: random.Random) -> Any:  # noqa: ANN401
    """What a file of windows holds, with something else in one place."""
    ids, values = np.arange(12).reshape(3, 4) % 9, np.zeros((3, 4), np.float32)
    keys = [np.arange(3), np.zeros(3, np.int64), np.zeros(3, np.int64)]
    inputs = {"item": ids[:, :-1], "price": values[:, :-1]}
    targets = {"item": ids[:, 1:], "price": values[:, 1:]}
    parts: list[Any] = [inputs, targets, *keys]
    others = [
        *(np.zeros(shape) for shape in [(0, 3), (3, 0), (3,), (3, 3, 1)]),
        *(
            np.full((3, 3), -1),
            np.full((3, 3), np.nan),
            np.zeros((3, 3), np.bool_),
            np.zeros((2, 3), np.int64),
        ),
        *(None, "x", 3, 1.5, True, [], {}, ()),
    ]
    place = rng.randrange(5)
    if place < 2 and rng.random() < 0.8:
        parts[place] = {**parts[place], rng.choice(["item", "price", "", "é", "more"]): rng.choice(others)}
    else:
        parts[place] = rng.choice(others)
    return rng.choice([tuple(parts), tuple(parts), tuple(parts), parts, tuple(parts[:4])])


def fuzz_csv(rng: random.Random, folder: Path) -> None:
    """A raw table of comma-separated values, in whatever dialect."""
    rows = [[str(n // 5), str(n), rng.choice("abc"), f"{rng.gauss(0, 1):.3f}", str(n % 3)] for n in range(20)]
    data = csv_in_a_dialect(rng, ["sequenceId", "itemPosition", "item", "price", "number"], rows)
    (folder / "t.csv").write_bytes(mutated_bytes(rng, data) if rng.random() < 0.3 else data)
    _read_raw(rng, folder / "t.csv", "csv")


def fuzz_parquet(rng: random.Random, folder: Path) -> None:
    """A raw table in parquet, with columns of whatever type."""
    path = folder / "t.parquet"
    if rng.random() < 0.5:
        path.write_bytes(mutated_bytes(rng, _raw_parquet()))
    else:
        columns = {
            "sequenceId": pl.Series([0, 0, 1]),
            "itemPosition": pl.Series([0, 1, 0]),
            "item": pl.Series("abc"),
        }
        columns |= {"item": pl.Series(["a", "b", "a"])}
        name = rng.choice([*columns, "price", "", "é", "item "])
        columns[name] = _odd_column(rng)
        if rng.random() < 0.1:
            del columns[rng.choice(list(columns))]
        frame = pl.DataFrame({name: column.alias(name) for name, column in columns.items()})
        frame.head(rng.choice([3, 3, 3, 0])).write_parquet(path, row_group_size=rng.choice([None, 1]))
    _read_raw(rng, path, "parquet")


@cache
def _raw_parquet() -> bytes:
    n = 200
    frame = pl.DataFrame(
        {
            "sequenceId": np.arange(n) // 10,
            "itemPosition": np.arange(n),
            "item": [f"i{k % 7}" for k in range(n)],
            "price": np.linspace(-1, 1, n),
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        frame.write_parquet(Path(folder) / "t.parquet", row_group_size=80)
        return (Path(folder) / "t.parquet").read_bytes()


def _odd_column(rng: random.Random) -> pl.Series:
    values: list[Any] = rng.choice(
        [
            *([0, 1, 0], [0, 1, None], [None] * 3, [2**63 - 1, -(2**63), 0], [0, 0, 0]),
            *([0.5, 1.5, 2.0], [0.0, 1.0, 0.0], [float("nan"), 1.0, 2.0], [float("inf"), 1.0, None]),
            *(["a", "b", "a"], ["1", "2", "1"], ["é", "", "\x00"], [b"x", b"y", b""]),
            *([True, False, None], [[1], [2], []], [{"a": 1}] * 3),
        ]
    )
    numbers = [pl.UInt64, pl.Int8, pl.UInt8, pl.Int128, pl.Float32, pl.Decimal(10, 2), pl.Boolean]
    others = [pl.Date, pl.Datetime("us"), pl.Duration, pl.Time, pl.Categorical, pl.String, pl.Binary, pl.Null]
    column, target = pl.Series(values, strict=False), rng.choice([None, None, *numbers, *others])
    try:
        return column if target is None else column.cast(target, strict=False)
    except pl.exceptions.PolarsError:
        return column


def fuzz_long_csv(rng: random.Random, folder: Path) -> None:
    """Preprocessed data in csv."""
    path = _copied("csv", folder)
    if rng.random() < 0.5:
        lines = [line.split(",") for line in path.read_text().splitlines()]
        path.write_bytes(csv_in_a_dialect(rng, lines[0], lines[1:]))
    if rng.random() < 0.6:
        path.write_bytes(mutated_bytes(rng, path.read_bytes()))
    _read_long(rng, path, "csv")


def fuzz_long_parquet(rng: random.Random, folder: Path) -> None:
    """Preprocessed data in parquet."""
    path = _copied("parquet", folder)
    if rng.random() < 0.5:
        path.write_bytes(mutated_bytes(rng, path.read_bytes()))
    else:
        frame = pl.read_parquet(path)
        name = rng.choice(frame.columns)
        column = _odd_column(rng).gather([rng.randrange(3) for _ in range(len(frame))])
        frame = frame.with_columns(column.alias(rng.choice([name, name, name, "x", "9"])))
        frame.select(rng.sample(frame.columns, rng.choice([len(frame.columns)] * 3 + [2]))).write_parquet(
            path
        )
    _read_long(rng, path, "parquet")


FUZZERS: dict[str, Callable[[random.Random, Path], None]] = {
    "config": fuzz_config,
    "metadata": fuzz_metadata,
    "id-map": fuzz_id_map,
    "manifest": fuzz_manifest,
    "shard": fuzz_shard,
    "pt": fuzz_pt,
    "csv": fuzz_csv,
    "parquet": fuzz_parquet,
    "long-csv": fuzz_long_csv,
    "long-parquet": fuzz_long_parquet,
}


def _write(rng: random.Random, path: Path, values: Any) -> None:  # noqa: ANN401
    """Writes JSON, which is YAML too, with values changed, bytes changed, or both."""
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        values = mutated_tree(rng, values)
    if rng.random() < 0.02:
        values = odd_value(rng)
    data = json_of(values).encode()
    path.write_bytes(mutated_bytes(rng, data) if rng.random() < 0.4 else data)


def _read_raw(rng: random.Random, path: Path, read_format: Any) -> None:  # noqa: ANN401
    """Reads a raw table as far as a step would."""
    roles: dict[str, ColumnKind] = rng.choice([{}, {}, {"number": "real"}, {"price": "categorical"}])
    missing: MissingReal = rng.choice(["error", "mean"])
    most = rng.choice([None, None, 3])
    chosen = Selection(max_rows=most, roles=roles, missing_real=missing)
    reader = TableReader(open_files(path, read_format), chosen)
    with tempfile.TemporaryDirectory() as folder:
        rows = OrderedRows(reader.typed(Path(folder) / "table"), Path(folder) / "sorted")
        deque(rows.chunks(), maxlen=0)


def _read_long(rng: random.Random, path: Path, read_format: str) -> None:
    """Reads preprocessed data in the long format, whole or in blocks."""
    padding: Padding = rng.choice(["null", "null", "zero"])
    if rng.random() < 0.5:
        _use(load_windows(path, read_format, column_kinds=KINDS, padding=padding, n_classes=N_CLASSES))
        return
    with patch.multiple(long_format, CELLS_PER_BLOCK=64):
        for block in window_blocks(
            path, read_format, column_kinds=KINDS, padding=padding, n_classes=N_CLASSES
        ):
            _use(block)


def _use(windows: Windows) -> None:
    """Touches every row and window, as training would."""
    step = max(min(64, (1 << 20) // (windows.seq_length + 1)), 1)
    for begin in range(0, len(windows), step):
        windows.gather(np.arange(begin, min(begin + step, len(windows))))
    windows.in_ram()


@cache
def _valid() -> Windows:
    lengths = [12, 1, 5, 9]
    n = sum(lengths)
    columns = {"item": (np.arange(n) % 9).astype(np.int8), "price": np.linspace(-1, 1, n, dtype=np.float32)}
    ids = np.repeat(np.arange(len(lengths)), lengths)
    return cut(sequences(ids), columns, np.arange(n), seq_length=3, stride=2)


def _copied(name: str, folder: Path) -> Path:
    """A valid data set of a format."""
    path = folder / f"x{FORMATS[name].suffix}"
    for part, content in _content(name).items():
        (path / part).parent.mkdir(parents=True, exist_ok=True)
        (path / part if part else path).write_bytes(content)
    return path


@cache
def _content(name: str) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{FORMATS[name].suffix}"
        FORMATS[name].write(path, _valid(), Files("x", sequences=2))
        files = [path] if path.is_file() else sorted(path.iterdir())
        return {"" if file == path else file.name: file.read_bytes() for file in files}


# Many cases
# ------------------------------------------------------------------------------------


def run_case(reader: str, number: int, folder: Path, seed: int = 0) -> str:
    """How a case ends: "read", "refused", or a description of what should not be.

    Args:
      reader: A key of `FUZZERS`.
      number: Number of the case.
      folder: An empty folder; it is emptied again.
      seed: Seed of all cases.
    """
    rng = random.Random(f"{seed}/{reader}/{number}")
    before, begin = _peak_megabytes(), time.process_time()
    try:
        FUZZERS[reader](rng, folder)
        end = "read"
    except SeqjaxError:
        end = "refused"
    except Exception:
        end = traceback.format_exc()[-1500:]
    finally:
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    grown, seconds = _peak_megabytes() - before, time.process_time() - begin
    if grown > MEGABYTES_A_CASE:
        return f"took {grown:.0f} MB"
    return f"took {seconds:.1f} s" if seconds > SECONDS_A_CASE else end


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_here(reader: str, numbers: range, seed: int) -> None:
    """Runs cases in this process, which is ended if one hangs, and prints a JSON line for each."""
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            faulthandler.dump_traceback_later(MOST_SECONDS, exit=True)
            end = run_case(reader, number, Path(folder), seed)
            faulthandler.cancel_dump_traceback_later()
            print(json.dumps([number, end]), flush=True)


def run_apart(reader: str, numbers: range, seed: int) -> tuple[Counter[str], dict[int, str]]:
    """Runs cases in another process, and in a new one where it crashes.

    Returns:
      How many cases were read, refused, and neither; and what happened in the latter.
    """
    ends: Counter[str] = Counter()
    findings: dict[int, str] = {}
    while numbers:
        words = [f"--child={reader}", f"--first={numbers.start}", f"--cases={len(numbers)}", f"--seed={seed}"]
        command = [sys.executable, "-m", "tools.fuzz_readers", *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stderr is not None
            for line in child.stdout:
                number, end = json.loads(line)
                numbers = range(number + 1, numbers.stop)
                ends[end if end in ("read", "refused") else "finding"] += 1
                if end not in ("read", "refused"):
                    findings[number] = end
            said = child.stderr.read()
        if numbers:
            ends["finding"] += 1
            findings[numbers.start] = f"the process ended with {child.returncode}: {said[-2000:]}"
            numbers = numbers[1:]
    return ends, findings


def main(words: Sequence[str] | None = None) -> None:
    """Runs cases of all readers, prints the findings, and exits with 1 if there are any."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=10_000, help="of each reader")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--readers", nargs="+", choices=FUZZERS, default=list(FUZZERS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", choices=FUZZERS, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    numbers = range(options.first, options.first + options.cases)
    if options.child:
        run_here(options.child, numbers, options.seed)
        return
    with ThreadPoolExecutor(options.jobs) as pool:
        running = {name: pool.submit(run_apart, name, numbers, options.seed) for name in options.readers}
        counts = {}
        for name, future in running.items():
            ends, findings = future.result()
            counts[name] = {end: ends[end] for end in ("read", "refused", "finding")}
            print(f"{name}: {counts[name]}", flush=True)
            for number, what in findings.items():
                print(f"  case {number} of {name}: {what}", flush=True)
    if options.out is not None:
        about = {"seed": options.seed, "first": options.first, "cases": options.cases * len(options.readers)}
        options.out.write_text(json.dumps({**about, "readers": counts}, indent=2) + "\n")
    if any(ends["finding"] for ends in counts.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
