"""Measures training: windows per CPU second of two models, with and without dropout, on one core and on two.

    python -m tools.bench_train [--peer DIR] [--repeats 5] [--out docs/benchmarks/train.json]

Every measurement is a process of its own, pinned to its cores. It prepares a run as `seqjax train` does,
trains one epoch that is not timed (compilation is not training) and then times epochs of updates; writing
logs and checkpoints is left out. CPU seconds are the process's own, so a busy machine blurs them but little.
Measurements of different cases alternate, and the median over the repeats counts.

`--peer` names an environment that holds `bin/sequifier`, whose `train` is then measured in the same run: the
CPU seconds of 1 + n epochs less those of 1 epoch, so that start and export cancel out, on data of the same
size. Its validation set is one batch. Without a peer only seqjax is measured, and the file says so.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

N_CLASSES = {"kind": 22, "place": 9}
"""Classes of the categorical columns; `size` is a real one. All three are targets."""

SHAPES: dict[str, dict[str, int]] = {
    "small": {"dim": 64, "layers": 2, "heads": 4, "feedforward": 128, "length": 48, "batch": 128},
    "mid": {"dim": 256, "layers": 4, "heads": 8, "feedforward": 512, "length": 96, "batch": 64},
}
BATCHES = {"small": 40, "mid": 5}
"""Batches of an epoch: 10 CPU seconds or less."""


def training_config(shape: dict[str, int], dropout: float, device: str = "cpu") -> dict[str, Any]:
    """The keys of `train.yaml` for a model of a shape."""
    columns = [*N_CLASSES, "size"]
    third = shape["dim"] // len(columns)
    return {
        "project_root": ".",
        "metadata_config_path": "none.json",
        "model_name": "bench",
        "input_columns": columns,
        "target_columns": columns,
        "target_column_types": {**dict.fromkeys(N_CLASSES, "categorical"), "size": "real"},
        "seq_length": shape["length"],
        "inference_batch_size": 1,
        "export_generative_model": True,
        "export_embedding_model": False,
        "model_spec": {
            "initial_embedding_dim": shape["dim"],
            "feature_embedding_dims": {"kind": third, "place": third, "size": shape["dim"] - 2 * third},
            "dim_model": shape["dim"],
            "n_head": shape["heads"],
            "dim_feedforward": shape["feedforward"],
            "num_layers": shape["layers"],
            "prediction_length": 1,
            "activation_fn": "swiglu",
            "normalization": "rmsnorm",
        },
        "training_spec": {
            "device": device,
            "epochs": 1000,
            "save_interval_epochs": 1,
            "batch_size": shape["batch"],
            "learning_rate": 1e-3,
            "criterion": {**dict.fromkeys(N_CLASSES, "CrossEntropyLoss"), "size": "MSELoss"},
            "optimizer": {"name": "AdamW"},
            "scheduler": {"name": "StepLR", "step_size": 1, "gamma": 1.0},
            "dropout": dropout,
            "log_interval": 10_000,
        },
    }


def measure(config: dict[str, Any], batches: int, epochs: int) -> dict[str, float]:
    """Trains in this process and returns windows per CPU second and per second.

    Args:
      config: The keys of `train.yaml`.
      batches: Batches of an epoch.
      epochs: Timed epochs; one more comes before them.
    """
    from seqjax.runtime import keep_freed_memory

    keep_freed_memory()
    from seqjax.training.events import BatchEvent
    from seqjax.training.loop import Member, Population

    run, start = prepared_run(config, batches)
    cpu = wall = 0.0
    begin = time.process_time(), time.perf_counter()

    def clock(event: object) -> None:
        nonlocal begin, cpu, wall
        if not isinstance(event, BatchEvent):
            begin = time.process_time(), time.perf_counter()
        elif event.epoch > 1:
            cpu += time.process_time() - begin[0]
            wall += time.perf_counter() - begin[1]

    Population(run).train([Member(run, start, epochs + 1, hooks=[clock])], lambda _: None)
    samples = batches * config["training_spec"]["batch_size"] * epochs
    return {"per_cpu_second": samples / cpu, "per_second": samples / wall}


def prepared_run(values: dict[str, Any], batches: int) -> tuple[Any, Any]:
    """A run on random windows, and its first state.

    Args:
      values: The keys of `train.yaml`.
      batches: Batches of an epoch.
    """
    import jax

    from seqjax.model.functional import init
    from seqjax.training.setup import prepare

    config, schema, data = _run_parts(values, batches)
    graphdef, params = init(schema, config.model_spec, seed=0)
    run = prepare(config, schema, graphdef, data, jax.devices()[0])
    return run, run.begin(params)


def _run_parts(values: dict[str, Any], batches: int) -> tuple[Any, Any, Any]:
    """The config, its columns, and random windows."""
    import numpy as np

    from seqjax.config.base import validate
    from seqjax.config.schema import Schema
    from seqjax.config.train import TrainConfig
    from seqjax.windows.windows import listed, taken

    config = validate(TrainConfig, values, "the benchmark")
    schema = Schema(
        n_classes=N_CLASSES,
        categorical_inputs=tuple(N_CLASSES),
        real_inputs=("size",),
        targets=dict(config.target_column_types),
        seq_length=config.seq_length,
    )
    size, length = config.training_spec.batch_size, config.seq_length
    count = batches * size
    rng = np.random.default_rng(0)
    rows = count + length
    columns: dict[str, Any] = {
        column: rng.integers(2, classes, rows, np.uint8) for column, classes in N_CLASSES.items()
    }
    columns["size"] = rng.normal(size=rows).astype(np.float32)
    lengths = np.full(count, length + 1)
    windows = listed(columns, start=np.arange(count), length=lengths, seq_length=length)
    return config, schema, (windows, taken(windows, np.arange(size)))


def measure_apart(name: str, dropout: float, threads: int, epochs: int) -> dict[str, float]:
    """`measure` in a process of its own, on `threads` cores."""
    words = [sys.executable, "-m", "tools.bench_train", "--measure", name, str(dropout), str(epochs)]
    done = subprocess.run(
        words,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        preexec_fn=lambda: os.sched_setaffinity(0, _cores(threads)),
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure_peer(
    peer: Path, config: dict[str, Any], *, batches: int, cores: set[int], epochs: int
) -> dict[str, float]:
    """The same of another program's `train` command, as a difference of two runs."""
    size = config["training_spec"]["batch_size"]
    with tempfile.TemporaryDirectory() as folder:
        write_project(Path(folder), config["seq_length"], (batches * size, size))
        short = _peer_seconds(peer, Path(folder), config, cores, 1)
        long = _peer_seconds(peer, Path(folder), config, cores, 1 + epochs)
    samples = batches * size * epochs
    return {"per_cpu_second": samples / (long[0] - short[0]), "per_second": samples / (long[1] - short[1])}


def _peer_seconds(
    peer: Path, project: Path, config: dict[str, Any], cores: set[int], epochs: int
) -> tuple[float, float]:
    """CPU and wall seconds of a run."""
    config = config | {"model_name": f"run{epochs}", "metadata_config_path": "metadata.json"}
    changes = {"epochs": epochs, "save_interval_epochs": 1000, "continue_training": False}
    config["training_spec"] = config["training_spec"] | changes
    (project / "train.yaml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML.
    variables = {"OMP_NUM_THREADS": str(len(cores)), "MKL_NUM_THREADS": str(len(cores))}
    begin, used = time.perf_counter(), os.times()
    subprocess.run(
        [peer / "bin" / "sequifier", "train", "--config-path", "train.yaml"],
        check=True,
        cwd=project,
        capture_output=True,
        env={**os.environ, **variables},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    now = os.times()
    cpu = now.children_user + now.children_system - used.children_user - used.children_system
    return cpu, time.perf_counter() - begin


def write_project(project: Path, length: int, counts: tuple[int, int]) -> None:
    """Preprocessed windows in the documented long format; those to validate on are one batch."""
    import numpy as np
    import polars as pl

    for folder in ("data", "checkpoints", "logs", "models"):
        (project / folder).mkdir()
    rng = np.random.default_rng(0)
    columns = [*N_CLASSES, "size"]
    paths = [f"data/bench-split{split}.parquet" for split in range(2)]
    for path, count in zip(paths, counts, strict=True):
        slots = (count, length + 1)
        values = np.stack(
            [rng.integers(2, classes, slots).astype(np.float64) for classes in N_CLASSES.values()]
            + [rng.normal(size=slots)],
            axis=1,
        ).reshape(-1, slots[1])
        number = np.repeat(np.arange(count), len(columns))
        table = {"sequenceId": number, "subsequenceId": 0 * number, "startItemPosition": 0 * number}
        table |= {"inputCol": columns * count}
        table |= {str(slots[1] - 1 - slot): values[:, slot] for slot in range(slots[1])}
        pl.DataFrame(table).write_parquet(project / path)
    metadata = {
        "n_classes": N_CLASSES,
        "id_maps": {
            column: {f"v{value}": value for value in range(2, count)} for column, count in N_CLASSES.items()
        },
        "split_paths": paths,
        "column_types": {**dict.fromkeys(N_CLASSES, "Int64"), "size": "Float64"},
        "selected_columns_statistics": {"size": {"mean": 0.0, "std": 1.0}},
    }
    (project / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")


def _cores(threads: int) -> set[int]:
    return set(sorted(os.sched_getaffinity(0))[-threads:])


def summary(values: list[dict[str, float]]) -> dict[str, Any]:
    """The median of each number and the CPU figures of all repeats."""
    medians = {key: round(statistics.median(each[key] for each in values), 1) for key in values[0]}
    return medians | {"repeats_per_cpu_second": [round(each["per_cpu_second"], 1) for each in values]}


def machine() -> dict[str, Any]:
    """Where the numbers come from."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        model = next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), model)
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "load_average": list(os.getloadavg()),
        "python": platform.python_version(),
        "versions": {
            package: importlib.metadata.version(package) for package in ("jax", "jaxlib", "flax", "optax")
        },
    }


def main() -> int:
    """Measures, prints a line a case, and writes the file; returns the exit status."""
    parser = argparse.ArgumentParser(description="Windows per CPU second of training.")
    parser.add_argument("--peer", type=Path, help="an environment that holds bin/sequifier")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2, help="timed epochs of a measurement")
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/train.json"))
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        name, dropout, epochs = arguments.measure
        config = training_config(SHAPES[name], float(dropout))
        print(json.dumps(measure(config, BATCHES[name], int(epochs))))
        return 0
    before = machine()
    cases: list[tuple[str, float, int]] = [
        (name, dropout, threads)
        for name in arguments.models
        for dropout in (0.0, 0.1)
        for threads in arguments.threads
    ]
    found: dict[tuple[str, float, int], dict[str, list[dict[str, float]]]] = {case: {} for case in cases}
    for _ in range(arguments.repeats):
        for case in cases:
            found[case].setdefault("seqjax", []).append(measure_apart(*case, arguments.epochs))
            if arguments.peer:
                name, dropout, threads = case
                found[case].setdefault("sequifier", []).append(
                    measure_peer(
                        arguments.peer,
                        training_config(SHAPES[name], dropout),
                        batches=BATCHES[name],
                        cores=_cores(threads),
                        epochs=arguments.epochs,
                    )
                )
    rows = []
    for (name, dropout, threads), programs in found.items():
        row = {"model": name, "dropout": dropout, "threads": threads}
        rows.append(row | {program: summary(values) for program, values in programs.items()})
        figures = (
            f"{program} {row['per_cpu_second']}" for program, row in rows[-1].items() if program in programs
        )
        print(f"{name} dropout {dropout} threads {threads}: {', '.join(figures)} windows per CPU second")
    if not arguments.peer:
        print("sequifier was not measured: no --peer was given")
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": before,
        "peer": "measured in the same run" if arguments.peer else "not measured: no environment was given",
        "shapes": {name: SHAPES[name] for name in arguments.models},
        "results": rows,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
