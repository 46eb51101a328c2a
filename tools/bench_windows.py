"""Measures what windows cost where there are very many: memory, disk, and time to a first batch.

    python -m tools.bench_windows [--items 100000000] [--out docs/benchmarks/windows.json]

A table of a single sequence, of one categorical column, is written and preprocessed at a stride of 1, so that
there are about as many windows as items. Then a process of its own opens the result, whose files are taken
out of the system's cache before, and gathers 128 windows in random order.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seqjax.config.schema import ColumnKind
from tools.bench_preprocess import machine, measure, versions

CLASSES, LENGTH, BATCH = 1024, 256, 128
ROWS_PER_WRITE = 1 << 20
KINDS: dict[str, ColumnKind] = {"item": "categorical"}


def write_table(path: Path, items: int) -> None:
    """Writes one sequence of random values, some rows at a time."""
    rng, writer = np.random.default_rng(0), None
    for begin in range(0, items, ROWS_PER_WRITE):
        n = min(ROWS_PER_WRITE, items - begin)
        columns = {
            "sequenceId": np.zeros(n, np.int64),
            "itemPosition": np.arange(begin, begin + n),
            "item": rng.integers(0, CLASSES, n, np.int16),
        }
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def preprocess(folder: Path, items: int) -> dict[str, Any]:
    """Preprocesses a table at a stride of 1; what it took, and what its result takes."""
    write_table(folder / "t.parquet", items)
    config = {
        "project_root": ".",
        "data_path": "t.parquet",
        "read_format": "parquet",
        "write_format": "arrow",
        "split_ratios": [0.9, 0.1],
        "seq_length": LENGTH,
        "stride_by_split": [1, 1],
        "fit_on": "all",
        "n_cores": 2,
    }
    (folder / "preprocess.yaml").write_text(json.dumps(config))
    command = [sys.executable, "-m", "seqjax", "preprocess", "--config-path", "preprocess.yaml"]
    here = str(Path(__file__).parents[1])
    used = measure(command, folder, {**os.environ, "PYTHONPATH": here})
    files = [file for file in (folder / "data").rglob("*.arrow") if file.is_file()]
    manifests = sum(file.stat().st_size for file in (folder / "data").rglob("manifest.json"))
    size = sum(file.stat().st_size for file in files)
    return asdict(used) | {"bytes_per_item": round(size / items, 4), "manifest_bytes": manifests}


def first_batch(folder: Path) -> dict[str, float]:
    """Opens a data set, and gathers random windows of it."""
    from seqjax.data.formats import load_windows
    from seqjax.windows.order import Order

    begin = time.perf_counter()
    windows = load_windows(folder, "arrow", column_kinds=KINDS, n_classes={"item": CLASSES + 2})
    opened = time.perf_counter()
    batch = windows.gather(Order(len(windows), BATCH, seed=1, epoch=1).batch(0))
    ended = time.perf_counter()
    assert batch.columns["item"].shape == (BATCH, LENGTH + 1)
    return {"windows": len(windows), "open_seconds": opened - begin, "first_batch_seconds": ended - begin}


def first_batch_apart(folder: Path) -> dict[str, float]:
    """`first_batch` in a process of its own, of files that are not in the system's cache."""
    for file in folder.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    words = [sys.executable, "-m", "tools.bench_windows", "--first-batch", str(folder)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    return {name: round(value, 4) for name, value in json.loads(done.stdout.splitlines()[-1]).items()}


def order(n: int) -> dict[str, float]:
    """The memory of an epoch's order with a chunk of its batches, and the time of a batch."""
    from seqjax.windows.batches import BATCHES_PER_CHUNK
    from seqjax.windows.order import Order

    tracemalloc.start()
    epoch = Order(n, BATCH, seed=1, epoch=1)
    epoch.batches(0, BATCHES_PER_CHUNK)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    chunks = 20
    begin = time.process_time()
    for chunk in range(chunks):
        epoch.batches(chunk * BATCHES_PER_CHUNK, (chunk + 1) * BATCHES_PER_CHUNK)
    seconds = (time.process_time() - begin) / chunks / BATCHES_PER_CHUNK
    return {"order_peak_bytes": peak, "order_cpu_microseconds_per_batch": round(seconds * 1e6, 1)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, and prints or writes the result."""
    parser = argparse.ArgumentParser(description="What very many windows cost.")
    parser.add_argument("--items", type=int, default=100_000_000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--first-batch", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.first_batch:
        print(json.dumps(first_batch(options.first_batch)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result = {"items": options.items, "seq_length": LENGTH, "batch_size": BATCH}
        result |= preprocess(folder, options.items)
        result |= first_batch_apart(folder / "data" / "t-split0")
        result |= order(int(result["windows"]))
    print(json.dumps(result))
    if options.out:
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        whole = {"date": date, "machine": machine(), "versions": versions(), "result": result}
        options.out.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
