"""Measures preprocess: CPU seconds, peak memory of the process tree, and how fast its result is read.

    python -m tools.bench_preprocess [--cases 2m short] [--peer DIR] [--out docs/benchmarks/preprocess.json]

Every measurement is a process of its own, from start to end, imports included. CPU seconds are user and
system time of the process and all that it starts. Memory is sampled every 20 ms from /proc: the sum of the
resident memory of the process and its descendants. Mapped files count, though the system takes their pages
back when it needs them; shared pages count once a process.

`--peer` names a folder with `bin/sequifier`, which then preprocesses the same tables in the same run.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from seqjax.config.schema import ColumnKind
from seqjax.data.formats import load_windows
from seqjax.windows.batches import Loader
from seqjax.windows.order import Order
from seqjax.windows.spliced import spliced
from seqjax.windows.windows import Windows

ROWS_PER_WRITE = 500_000
SHARDS = 16
KINDS: dict[str, ColumnKind] = {
    "catA": "categorical",
    "catB": "categorical",
    "realA": "real",
    "realB": "real",
}
PACKAGES = ("seqjax", "numpy", "polars", "pyarrow")


@dataclass(frozen=True)
class Case:
    """A table, and what is made of it."""

    sequences: int
    length: int
    read_format: str
    seq_length: int
    strides: tuple[int, int, int]
    write_formats: tuple[str, ...]
    in_order: bool = True


CASES = {
    "2m": Case(2_000, 1_000, "csv", 48, (48, 48, 1), ("arrow", "parquet", "pt")),
    "2m-parquet": Case(2_000, 1_000, "parquet", 48, (48, 48, 1), ("arrow",)),
    "2m-shuffled": Case(2_000, 1_000, "parquet", 48, (48, 48, 1), ("arrow",), in_order=False),
    "short": Case(20_000, 20, "csv", 8, (8, 8, 1), ("arrow", "parquet", "pt")),
    "20m": Case(20_000, 1_000, "parquet", 48, (48, 48, 1), ("arrow",)),
    "20m-csv": Case(20_000, 1_000, "csv", 48, (48, 48, 1), ("arrow",)),
    "20m-shuffled": Case(20_000, 1_000, "parquet", 48, (48, 48, 1), ("arrow",), in_order=False),
}


@dataclass(frozen=True)
class Measured:
    """What a process used."""

    cpu_seconds: float
    wall_seconds: float
    peak_mb: float


def write_table(path: Path, case: Case) -> None:
    """Writes a table of two categorical columns (500 texts, 40 numbers) and two real ones."""
    rng = np.random.default_rng(0)
    names = pl.Series([f"item{number:03d}" for number in range(500)])
    step = max(ROWS_PER_WRITE // case.length, 1)
    ids = np.arange(case.sequences) if case.in_order else rng.permutation(case.sequences)
    writer: pq.ParquetWriter | None = None
    for begin in range(0, case.sequences, step):
        chosen = ids[begin : begin + step]
        n = len(chosen) * case.length
        columns: dict[str, Any] = {
            "sequenceId": np.repeat(chosen, case.length),
            "itemPosition": np.tile(np.arange(case.length), len(chosen)),
            "catA": names.gather(rng.integers(0, 500, n)),
            "catB": rng.integers(0, 40, n),
            "realA": rng.normal(size=n),
            "realB": rng.normal(size=n).round(3),
        }
        frame = pl.DataFrame(columns)
        if not case.in_order:
            frame = frame.sample(fraction=1.0, shuffle=True, seed=begin)
        if case.read_format == "csv":
            with path.open("ab") as file:
                frame.write_csv(file, include_header=begin == 0)
        else:
            table = frame.to_arrow()
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
    if writer is not None:
        writer.close()


def measure(command: Sequence[str], folder: Path, environment: dict[str, str]) -> Measured:
    """Runs a command to its end."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    child = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    peak, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            peak[0] = max(peak[0], _tree_bytes(child.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    said, _ = child.communicate()
    ended.set()
    watcher.join()
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{said.decode()[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Measured(round(cpu, 2), round(time.perf_counter() - begin, 2), round(peak[0] / 2**20))


def _tree_bytes(root: int) -> int:
    """Resident memory of a process and its descendants."""
    parents, sizes = {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            sizes[int(entry.name)] = int((entry / "statm").read_text().split()[1]) * resource.getpagesize()
        except (OSError, IndexError):
            continue  # It has just ended.
    total, tree = 0, [root]
    for number in tree:
        total += sizes.get(number, 0)
        tree += [child for child, parent in parents.items() if parent == number]
    return total


def measure_case(name: str, folder: Path, peer: Path | None) -> list[dict[str, Any]]:
    """Runs one case in all its formats, and the peer where it has the format."""
    case = CASES[name]
    table = folder / f"t.{case.read_format}"
    write_table(table, case)
    results = []
    for write_format in case.write_formats:
        for program in ["seqjax", *(["sequifier"] if peer and write_format != "arrow" else [])]:
            root = folder / f"{program}-{write_format}"
            root.mkdir()
            config = {
                "project_root": ".",
                "data_path": str(table),
                "read_format": case.read_format,
                "write_format": write_format,
                "merge_output": write_format in ("csv", "parquet"),
                "split_ratios": [0.8, 0.1, 0.1],
                "seq_length": case.seq_length,
                "stride_by_split": list(case.strides),
                "n_cores": 2,
                **({"fit_on": "all"} if program == "seqjax" else {"max_rows": None}),
            }
            (root / "preprocess.yaml").write_text(json.dumps(config))
            found = measure(_command(program, peer), root, _environment(peer))
            row = {"case": name, "rows": case.sequences * case.length, "sequences": case.sequences}
            row |= {"read_format": case.read_format, "in_order": case.in_order}
            row |= {"write_format": write_format, "program": program, **asdict(found)}
            if write_format == "arrow":
                windows = load_windows(root / "data" / "t-split2", "arrow", column_kinds=KINDS)
                row["windows_read_per_cpu_second"] = reading_speed(windows)
                row[f"windows_read_per_cpu_second_of_{SHARDS}_shards"] = reading_speed(cut_up(windows))
            print(json.dumps(row), flush=True)
            results.append(row)
    return results


def cut_up(windows: Windows) -> Windows:
    """The same memory-mapped rows in several parts, as other programs may write them in several shards."""
    begins = windows.runs.first_row
    cuts = begins[np.arange(1, SHARDS) * len(begins) // SHARDS]
    parts = {name: np.split(np.asarray(column), cuts) for name, column in windows.columns.items()}
    return replace(windows, columns={name: spliced(part) for name, part in parts.items()})


def reading_speed(windows: Windows) -> int:
    """Windows per CPU second in shuffled batches of 128."""
    loader, n = Loader(windows), len(windows)
    for _ in loader.batches(Order(n, 128, epoch=0)):
        pass
    begin, read = time.process_time(), 0
    for batch in loader.batches(Order(n, 128, epoch=1)):
        read += int((batch.padding <= windows.seq_length).sum())
    return round(read / (time.process_time() - begin))


def _command(program: str, peer: Path | None) -> list[str]:
    begin = (
        [sys.executable, "-m", "seqjax"]
        if program == "seqjax"
        else [str(peer / "bin" / "sequifier")]
        if peer
        else []
    )
    return [*begin, "preprocess", "--config-path", "preprocess.yaml"]


def _environment(peer: Path | None) -> dict[str, str]:
    paths = [str(peer / "bin")] if peer else []
    here = str(Path(__file__).parents[1])
    return {**os.environ, "PATH": ":".join([*paths, os.environ["PATH"]]), "PYTHONPATH": here}


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "memory_gb": round(memory, 1)}


def versions() -> dict[str, str]:
    """Python's version and those of the packages that matter."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "source"
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Measures, prints a line a measurement, and writes the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(words)
    results = []
    for name in options.cases:
        with tempfile.TemporaryDirectory() as folder:
            results += measure_case(name, Path(folder), options.peer)
    about = {
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions(),
    }
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({**about, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
