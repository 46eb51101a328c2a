"""Trains on a data set that is larger than the memory it may use, and measures memory and waiting.

    python -m tools.lazy_training --gigabytes 5 [--out docs/benchmarks/lazy_training.json]

Arrow shards of the given size are written (and removed again), and a run trains on them in a process of its
own with `load_full_data_to_ram: false` and `max_ram_gb: 1`. The files are dropped from the kernel's cache
before, and windows are drawn from all over them. Memory is all that is resident (VmHWM of
/proc/self/status), pages of mapped files included; what is the process's own (RssAnon + RssShmem) is told
beside it. Input wait is the time in which the host waited for a batch to be read, as a share of the time of
the epoch's updates.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

LENGTH, SEQUENCE_ITEMS, ITEM_CLASSES = 48, 200_000, 5000
PARTS = 1000
"""Parts of the data, to say how evenly it is read."""
BYTES_PER_ROW = 2 + 1 + 4 + 4 + 8 + 8  # Two categories, two real columns, position and sequence.


def write_data(folder: Path, gigabytes: float) -> int:
    """Writes random shards; returns the number of windows."""
    from seqjax.data.formats import FORMATS, Files
    from seqjax.data.splits import sequences
    from seqjax.windows.windows import cut

    rows = int(gigabytes * 1e9 / BYTES_PER_ROW)
    rng = np.random.default_rng(0)
    columns = {
        "item": rng.integers(2, ITEM_CLASSES, rows, np.int16),
        "place": rng.integers(2, 100, rows, np.int8),
        "price": rng.standard_normal(rows, np.float32),
        "weight": rng.standard_normal(rows, np.float32),
    }
    slices = sequences(np.arange(rows) // SEQUENCE_ITEMS)
    windows = cut(slices, columns, np.arange(rows) % SEQUENCE_ITEMS, seq_length=LENGTH, stride=4 * LENGTH)
    FORMATS["arrow"].write(folder, windows, Files())
    return len(windows)


def memory() -> dict[str, float]:
    """Resident memory of this process in GB: all of it, its highest, and without mapped files."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}
    return {
        "all": kilobytes["VmRSS"] / 1e6,
        "highest": kilobytes["VmHWM"] / 1e6,
        "own": (kilobytes["RssAnon"] + kilobytes["RssShmem"]) / 1e6,
    }


def measure(folder: Path, batches: int, workers: int, max_ram_gb: float) -> dict[str, Any]:
    """Trains on batches from all over the data, in this process."""
    import jax

    from seqjax.config.base import validate
    from seqjax.config.schema import Schema
    from seqjax.config.train import TrainConfig
    from seqjax.data.formats import load_windows
    from seqjax.model.functional import init
    from seqjax.training.events import BatchEvent, EpochEvent
    from seqjax.training.feed import StreamedFeed
    from seqjax.training.loop import Member, Population
    from seqjax.training.setup import prepare
    from seqjax.windows.order import Order
    from seqjax.windows.windows import taken

    config = validate(TrainConfig, training(workers, max_ram_gb), "the measurement")
    spec = config.training_spec
    categories = {"item": ITEM_CLASSES, "place": 100}
    schema = Schema(
        n_classes=categories,
        categorical_inputs=tuple(categories),
        real_inputs=("price", "weight"),
        targets=dict(config.target_column_types),
        seq_length=LENGTH,
    )
    windows = load_windows(folder, "arrow", column_kinds=schema.columns, n_classes=categories)
    size = spec.batch_size
    windows = taken(windows, Order(len(windows), size, seed=1).batches(0, batches + 1).ravel())
    data = (windows, taken(windows, np.arange(size)))
    graphdef, params = init(schema, config.model_spec, seed=0)
    run = prepare(config, schema, graphdef, data, jax.devices()[0])
    feed = run.training
    assert isinstance(feed, StreamedFeed)
    starts = windows.start()
    read = np.unique(starts * PARTS // (starts.max() + 1))
    highest, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.05):
            highest = max(highest, memory()["own"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    seconds = waited = 0.0
    begin = time.perf_counter(), feed.waited

    def clock(event: object) -> None:
        nonlocal begin, seconds, waited
        if isinstance(event, BatchEvent):
            seconds, waited = time.perf_counter() - begin[0], feed.waited - begin[1]
        elif isinstance(event, EpochEvent) and event.epoch == 1:  # It compiled, and is not timed.
            begin = time.perf_counter(), feed.waited

    Population(run).train([Member(run, run.begin(params), 2, hooks=[clock])], lambda _: None)
    done.set()
    watcher.join()
    return {
        "windows": len(windows),
        "batches": len(run.order(1)),
        "parts_read": f"{len(read)} of {PARTS}",
        "read_from_disk_gb": round(_read_from_disk() / 1e9, 3),
        "own_memory_gb": round(highest, 3),
        "highest_resident_gb": round(memory()["highest"], 3),
        "seconds_per_batch": round(seconds / len(run.order(1)), 5),
        "input_wait_share": round(waited / seconds, 5),
        "num_workers": workers,
    }


def training(workers: int, max_ram_gb: float) -> dict[str, Any]:
    """The keys of `train.yaml`."""
    kinds = {"item": "categorical", "place": "categorical", "price": "real"}
    return {
        "project_root": ".",
        "metadata_config_path": "none.json",
        "model_name": "lazy",
        "input_columns": ["item", "place", "price", "weight"],
        "target_columns": list(kinds),
        "target_column_types": kinds,
        "seq_length": LENGTH,
        "inference_batch_size": 1,
        "export_generative_model": True,
        "export_embedding_model": False,
        "model_spec": {
            "initial_embedding_dim": 64,
            "feature_embedding_dims": {"item": 40, "place": 16, "price": 4, "weight": 4},
            "dim_model": 64,
            "n_head": 4,
            "dim_feedforward": 128,
            "num_layers": 2,
        },
        "training_spec": {
            "device": "cpu",
            "epochs": 2,
            "save_interval_epochs": 1,
            "batch_size": 64,
            "learning_rate": 1e-3,
            "criterion": {"item": "CrossEntropyLoss", "place": "CrossEntropyLoss", "price": "MSELoss"},
            "load_full_data_to_ram": False,
            "max_ram_gb": max_ram_gb,
            "num_workers": workers,
        },
    }


def _read_from_disk() -> int:
    """Bytes that this process has fetched from disk."""
    lines = Path("/proc/self/io").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def _forget(folder: Path) -> None:
    """Drops files from the kernel's cache, so that they are read from disk."""
    for file in (path for path in folder.rglob("*") if path.is_file()):
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def main(words: Sequence[str] | None = None) -> int:
    """Writes the data, measures in another process, and prints what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--max-ram-gb", type=float, default=1.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.measure:
        found = measure(options.measure, options.batches, options.workers, options.max_ram_gb)
        sys.stdout.write(json.dumps(found) + "\n")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        if shutil.disk_usage(folder).free < 2e9 * options.gigabytes:
            raise SystemExit(f"{folder} has too little space for {options.gigabytes} GB")
        subprocess.run([sys.executable, "-c", WRITE, folder, str(options.gigabytes)], check=True)
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        _forget(Path(folder))
        command = [sys.executable, "-m", "tools.lazy_training", "--measure", f"{folder}/data"]
        command += ["--batches", str(options.batches), "--workers", str(options.workers)]
        command += ["--max-ram-gb", str(options.max_ram_gb)]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found = {"data_gb": round(size / 1e9, 3), **json.loads(done.stdout.splitlines()[-1])}
    text = json.dumps(found, indent=1) + "\n"
    sys.stdout.write(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    return 0 if found["highest_resident_gb"] < 2 and found["input_wait_share"] < 0.05 else 1


WRITE = """
import sys
from pathlib import Path
from tools.lazy_training import write_data
write_data(Path(sys.argv[1]) / "data", float(sys.argv[2]))
"""

if __name__ == "__main__":
    sys.exit(main())
