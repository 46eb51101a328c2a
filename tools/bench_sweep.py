"""Measures a search whose runs are trained together, beside one after the other, and beside sequifier's.

    python -m tools.bench_sweep --output docs/benchmarks/sweep.json --peer /path/to/sequifier

The runs have 0.1 million parameters and one shape, and differ in their learning rate. Each search is a
process of its own, from its start to its summary, exports left out; a run costs about the same whichever it
is, so that fewer of them are trained one after the other, and by sequifier, which starts a process for each.
A model-step is one update of one model.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

ROOT = Path(__file__).resolve().parents[1]
LENGTH, BATCH, BATCHES, EPOCHS = 24, 32, 25, 4
CHILD = """
import json, sys
from seqjax.allocator import keep_freed_memory
keep_freed_memory()
import seqjax
seqjax.search(json.loads(sys.argv[1]))
"""


def table(path: Path) -> None:
    """Writes sequences of a category that mostly repeats itself, enough for `BATCHES` batches."""
    rng = np.random.default_rng(0)
    count = BATCH * BATCHES
    rows = count + 2 * (LENGTH + 1)
    items = np.where(rng.random(rows) < 0.6, np.roll(rng.integers(0, 20, rows), 1), rng.integers(0, 20, rows))
    frame = {"sequenceId": np.zeros(rows, int), "itemPosition": np.arange(rows), "item": items.astype(str)}
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(frame).write_csv(path)


def search(root: Path, count: int, **changes: object) -> dict[str, Any]:
    """The keys of a search of `count` runs."""
    rates = [float(rate) for rate in np.geomspace(1e-4, 1e-2, count)]
    return {
        "project_root": str(root),
        "metadata_config_path": "configs/metadata_configs/t.json",
        "hp_search_name": "bench",
        "model_config_write_path": "configs/hp_search",
        "search_strategy": "grid",
        "override_input": True,
        "export_generative_model": False,
        "export_embedding_model": False,
        "inference_batch_size": 4,
        "input_columns": [["item"]],
        "column_types": [{"item": "Int64"}],
        "target_columns": ["item"],
        "target_column_types": {"item": "categorical"},
        "seq_length": [LENGTH],
        "model_hyperparameter_sampling": {
            "dim_model": [64],
            "n_head": [4],
            "initial_embedding_dim": [64],
            "joint_embedding_dim": [64],
            "num_layers": [2],
            "dim_feedforward": [128],
            "activation_fn": ["gelu"],
            "normalization": ["rmsnorm"],
            "norm_first": [True],
            "positional_encoding": ["learned"],
            "rope_theta": [10000.0],
            "attention_type": ["mha"],
            "n_kv_heads": [None],
        },
        "training_hyperparameter_sampling": {
            "device": "cpu",
            "learning_rate": rates,
            "epochs": [EPOCHS] * count,
            "batch_size": [BATCH],
            "accumulation_steps": [1],
            "optimizer": [{"name": "AdamW"}],
            "scheduler": [{"name": "StepLR", "step_size": 1, "gamma": 1.0}] * count,
            "criterion": {"item": "CrossEntropyLoss"},
            "save_interval_epochs": EPOCHS,
            "log_interval": BATCHES,
        },
        **changes,
    }


def timed(command: list[str], folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds of a process and its children."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        command,
        check=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(command: list[str], folder: Path, count: int) -> dict[str, float]:
    """What a search of `count` runs takes."""
    wall, cpu = timed(command, folder)
    steps = count * EPOCHS * BATCHES
    return {
        "runs": count,
        "model_steps": steps,
        "wall_seconds": round(wall, 2),
        "cpu_seconds": round(cpu, 2),
        "model_steps_per_cpu_second": round(steps / cpu, 2),
        "wall_seconds_per_run": round(wall / count, 3),
    }


def ours(count: int, **changes: object) -> dict[str, float]:
    """A search by seqjax, in a new project."""
    import seqjax

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        table(root / "data/t.csv")
        seqjax.preprocess(
            {
                "project_root": folder,
                "data_path": "data/t.csv",
                "split_ratios": [0.9, 0.1],
                "seq_length": LENGTH,
                "stride_by_split": [1, 1],
            }
        )
        config = json.dumps(search(root, count, **changes))
        return measure([sys.executable, "-c", CHILD, config], root, count)


def peers(program: Path, count: int) -> dict[str, float]:
    """The same by sequifier."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        table(root / "data/t.csv")
        preprocess = {
            "project_root": ".",
            "data_path": "data/t.csv",
            "read_format": "csv",
            "write_format": "parquet",
            "merge_output": True,
            "selected_columns": ["item"],
            "split_ratios": [0.9, 0.1],
            "seq_length": LENGTH,
            "stride_by_split": [1, 1],
            "max_rows": None,
            "seed": 1,
            "n_cores": 1,
        }
        config = search(Path(), count, export_generative_model=True, export_onnx=False, export_pt=True)
        config["project_root"] = "."
        config["training_hyperparameter_sampling"]["layer_type_dtypes"] = None
        for name, values in (("preprocess", preprocess), ("search", config)):
            (root / "configs").mkdir(exist_ok=True)
            (root / f"configs/{name}.yaml").write_text(yaml.safe_dump(values))
        timed([str(program), "preprocess", "--config-path", "configs/preprocess.yaml"], root)
        command = [str(program), "hyperparameter-search", "--config-path", "configs/search.yaml"]
        return measure(command, root, count)


def main() -> int:
    """Runs the benchmark and returns the exit status."""
    parser = argparse.ArgumentParser(description="Measure a search whose runs are trained together.")
    parser.add_argument("--models", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--sequential", type=int, default=4, help="runs that are trained one after the other")
    parser.add_argument("--runners", nargs="+", default=["loop", "vmap"])
    parser.add_argument("--peer", type=Path, help="the program sequifier")
    parser.add_argument("--peer-runs", type=int, default=3)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    results: dict[str, Any] = {
        "machine": {"cpus": os.cpu_count(), "processor": platform.processor(), "load": os.getloadavg()},
        "shape": {"seq_length": LENGTH, "batch_size": BATCH, "batches": BATCHES, "epochs": EPOCHS},
        "sequential": ours(arguments.sequential, engine="sequential"),
        "together": [
            {"runner": runner, **ours(count, population_runner=runner)}
            for count in arguments.models
            for runner in arguments.runners
        ],
    }
    if arguments.peer:
        results["sequifier"] = peers(arguments.peer, arguments.peer_runs)
    one = results["sequential"]
    for row in results["together"]:
        row["cpu_against_sequential"] = round(
            row["model_steps_per_cpu_second"] / one["model_steps_per_cpu_second"], 2
        )
        if arguments.peer:
            their = results["sequifier"]["wall_seconds_per_run"]
            row["wall_against_sequifier"] = round(their / row["wall_seconds_per_run"], 2)
    text = json.dumps(results, indent=1)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
