"""Measures a search whose runs are trained together, beside one after the other, and beside sequifier's.

    python -m tools.bench_sweep --output docs/benchmarks/sweep.json --peer /path/to/sequifier

All runs of a search have one shape and differ in their learning rate. A *model-step* is one update of one
model. Three things are measured:

* `population`: in one process, the same models together (by each runner) and one after the other with a
  compiled step that is kept. Every way trains an epoch before it is timed (`first_seconds`, which is where
  compiling is). Then the ways take turns, and the median of each counts. CPU seconds are the process's own,
  of everything from the first batch to the last checkpoint: updates, evaluation after each epoch, logs,
  checkpoints. Nothing is exported. `default` is the runner that is chosen where none is set. With
  `--device cuda` it is the wall time that counts.
* `runners`: the same with smaller models, which gain the most by being joined (`seqjax.training.runners`).
* `searches`: the command as a user starts it, a process from its start to its summary, with one torch file
  of the best and one of the last model of each run, since sequifier's search cannot do without. Nothing that
  was compiled before is used. sequifier starts a process for each run; its configuration needs four keys
  that its documents do not name, and a folder that it does not make.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import yaml

from tools import small_search
from tools.bench_train import machine

if TYPE_CHECKING:
    from seqjax.commands.train import Trainer

BATCHES, EPOCHS, TAIL = 25, 4, 0.2
SHAPE = {"dim": 64, "heads": 4, "layers": 2, "feedforward": 256, "length": 24, "batch": 32}
"""107,000 parameters."""
SIZES = (
    {"dim": 8, "heads": 1, "layers": 1, "feedforward": 16, "length": 8, "batch": 8},
    {"dim": 16, "heads": 2, "layers": 1, "feedforward": 32, "length": 16, "batch": 16},
    {"dim": 32, "heads": 2, "layers": 2, "feedforward": 64, "length": 16, "batch": 32},
)
PARTS = ("population", "runners", "searches")
SOLO = "one after the other"
WAYS = ("vmap", "loop", SOLO)
CHILD = """
import json, sys
from seqjax.runtime import keep_freed_memory
keep_freed_memory()
from tools.bench_sweep import population
print(json.dumps(population(*json.loads(sys.argv[1]))))
"""


def project(root: Path, shape: dict[str, int]) -> None:
    """Writes sequences of a category that mostly repeats itself, enough for `BATCHES` batches."""
    rng = np.random.default_rng(0)
    rows = round((shape["batch"] * BATCHES + shape["length"]) / (1 - TAIL))
    items = np.where(rng.random(rows) < 0.6, np.roll(rng.integers(0, 20, rows), 1), rng.integers(0, 20, rows))
    small_search.project(
        root,
        pl.DataFrame(
            {"sequenceId": np.zeros(rows, int), "itemPosition": np.arange(rows), "item": items.astype(str)}
        ),
        split_ratios=[1 - TAIL, TAIL],
        seq_length=shape["length"],
        stride_by_split=[1, 1],
    )


def search(
    count: int,
    shape: dict[str, int],
    *,
    epochs: int = EPOCHS,
    device: str = "cpu",
    **changes: Any,  # noqa: ANN401 (keys of a search)
) -> dict[str, Any]:
    """The keys of a search of `count` runs."""
    rates = [float(f"{rate:.4g}") for rate in np.geomspace(1e-4, 1e-2, count)]
    model = {
        "dim_model": [shape["dim"]],
        "n_head": [shape["heads"]],
        "initial_embedding_dim": [shape["dim"]],
        "joint_embedding_dim": [shape["dim"]],
        "num_layers": [shape["layers"]],
        "dim_feedforward": [shape["feedforward"]],
        "activation_fn": ["gelu"],
    }
    training = {
        "device": device,
        "learning_rate": rates,
        "epochs": [epochs] * count,
        "batch_size": [shape["batch"]],
        "optimizer": [{"name": "AdamW"}],
        "scheduler": [{"name": "StepLR", "step_size": 1, "gamma": 1.0}] * count,
        "save_interval_epochs": epochs,
        "log_interval": BATCHES,
    }
    top = {"column_types": [{"item": "Int64"}], "seq_length": [shape["length"]]}
    return small_search.search("bench", model, training, **top, **changes)


def population(
    count: int, shape: dict[str, int], ways: Sequence[str], rounds: int, device: str
) -> dict[str, Any]:
    """Model-steps per CPU second of each way to train the same models; in a process of its own.

    Args:
      count: Number of models.
      shape: Of each.
      ways: Some of `WAYS`.
      rounds: How often each is measured.
      device: As in a training configuration.
    """
    from seqjax.commands.train import Trainer
    from seqjax.training.devices import find_device
    from seqjax.training.runners import suited

    steps = count * EPOCHS * BATCHES
    seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    first = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        project(root, shape)

        def runs(name: str, epochs: int = EPOCHS) -> list[Any]:
            return _runs(root, search(count, shape, epochs=epochs, device=device), name)

        known = runs("known")
        default = suited(find_device(device), is_resident=True, runs=count)
        trainers: dict[str, Trainer] = {}
        for way in ways:
            alone = way == SOLO
            runner: Any = "loop" if alone else way
            trainers[way] = Trainer(known, runner=runner, size=1 if alone else None)
            first[way] = _trained(trainers[way], runs(f"first {way}", epochs=1))[0]
        for turn in range(rounds):
            for way in ways:
                seconds[way].append(_trained(trainers[way], runs(f"{way} {turn}")))
    rows = {}
    for way, found in seconds.items():
        wall, cpu = (statistics.median(one[place] for one in found) for place in (0, 1))
        rows[way] = {
            "first_seconds": round(first[way], 2),
            "wall_seconds": round(wall, 2),
            "cpu_seconds": round(cpu, 2),
            "model_steps_per_cpu_second": round(steps / cpu, 1),
        }
        if SOLO in seconds:
            # Pairs of one turn are compared, since a machine's speed changes in the meantime.
            pairs = list(zip(seconds[SOLO], found, strict=True))
            for place, kind in enumerate(("wall", "cpu")):
                ratio = statistics.median(alone[place] / one[place] for alone, one in pairs)
                rows[way][f"{kind}_against_sequential"] = round(ratio, 3)
    return {"models": count, "shape": shape, "model_steps": steps, "default": default, "ways": rows}


def _runs(root: Path, values: dict[str, Any], name: str) -> list[Any]:
    """The configurations of a search's runs."""
    from seqjax.config.base import validate
    from seqjax.config.hyperparameter_search import HyperparameterSearchConfig
    from seqjax.config.resolve import load_metadata
    from seqjax.sweep.space import plan

    values |= {"project_root": str(root), "hp_search_name": name.replace(" ", "-")}
    config = validate(HyperparameterSearchConfig, values, name)
    found = plan(config, load_metadata(root / "configs/metadata_configs/t.json"))
    return [candidate.config for candidate in found.candidates]


def _trained(trainer: "Trainer", configs: Sequence[Any]) -> tuple[float, float]:
    """Wall and CPU seconds of training some runs."""
    from seqjax.commands.train_run import Task
    from seqjax.errors import SeqjaxError

    def ended(task: Task, end: object, seconds: float) -> None:
        if isinstance(end, SeqjaxError):
            raise end

    begin, before = time.perf_counter(), time.process_time()
    trainer.train([Task(number, config) for number, config in enumerate(configs)], ended)
    return time.perf_counter() - begin, time.process_time() - before


def in_a_process(*given: object) -> dict[str, Any]:
    """`population` in a process of its own."""
    words = [sys.executable, "-c", CHILD, json.dumps(given)]
    found = subprocess.run(words, check=True, capture_output=True, text=True, env=small_search.environment())
    return json.loads(found.stdout)


def timed(command: list[str], folder: Path, **variables: str) -> tuple[float, float]:
    """Wall and CPU seconds of a process and its children.

    Raises:
      RuntimeError: It fails; the message is the end of what it wrote.
    """
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**small_search.environment(), **variables}
    done = subprocess.run(command, check=False, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def ours(count: int, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 (keys of a search)
    """A search by seqjax, in a new project."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        project(root, SHAPE)
        config = search(count, SHAPE, export_generative_model=True, export_onnx=False, export_pt=True)
        command = small_search.command(root, {**config, **changes})
        return _row(count, *timed(command, root, JAX_COMPILATION_CACHE_DIR=str(root / "compiled")))


def peers(program: Path, count: int) -> dict[str, Any]:
    """The same by sequifier.

    Raises:
      RuntimeError: It did not train all runs, which it does not tell by its status.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        project(root, SHAPE)
        preprocess = {
            "project_root": ".",
            "data_path": "data/t.csv",
            "read_format": "csv",
            "write_format": "parquet",
            "merge_output": True,
            "selected_columns": ["item"],
            "split_ratios": [1 - TAIL, TAIL],
            "seq_length": SHAPE["length"],
            "stride_by_split": [1, 1],
            "max_rows": None,
            "seed": 1,
            "n_cores": 1,
        }
        config = search(count, SHAPE, export_generative_model=True, export_onnx=False, export_pt=True)
        # It starts `sequifier` by name, and writes into a folder that has to be there.
        path = {"PATH": f"{program.absolute().parent}{os.pathsep}{os.environ['PATH']}"}
        (root / "configs/hp_search").mkdir(parents=True)
        config["n_samples"] = None
        config["model_hyperparameter_sampling"] |= {"feature_embedding_dims": None, "prediction_length": 1}
        config["training_hyperparameter_sampling"] |= {"layer_type_dtypes": None, "continue_training": True}
        for name, values in (("preprocess", preprocess), ("search", config)):
            (root / f"configs/{name}.yaml").write_text(yaml.safe_dump(values))
        timed([str(program), "preprocess", "--config-path", "configs/preprocess.yaml"], root, **path)
        command = [str(program), "hyperparameter-search", "--config-path", "configs/search.yaml"]
        seconds = timed(command, root, **path)
        trained = len(list((root / "models").glob(f"sequifier-bench-run-*-last-{EPOCHS}.pt")))
        if trained != count:
            raise RuntimeError(f"sequifier trained {trained} of {count} runs")
        return _row(count, *seconds)


def _row(count: int, wall: float, cpu: float) -> dict[str, Any]:
    return {"runs": count, "wall_seconds": round(wall, 1), "cpu_seconds": round(cpu, 1)}


def searches(program: Path | None, counts: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """Whole searches, of each number of runs: sequifier's between two of ours, whose mean counts.

    Args:
      program: sequifier; null measures ours alone.
      counts: Numbers of runs.
      rounds: How often sequifier's is measured; the median of the ratios counts.
    """
    rows: list[dict[str, Any]] = []
    for count in counts:
        own, theirs = [ours(count)], []
        for _ in range(rounds):
            theirs += [] if program is None else [peers(program, count)]
            own.append(ours(count))
        row = _joined("seqjax", count, own)
        rows.append(row)
        if theirs:
            for kind in ("wall", "cpu"):
                key = f"{kind}_seconds"
                ratios = [
                    2 * one[key] / (before[key] + after[key])
                    for one, (before, after) in zip(theirs, pairwise(own), strict=True)
                ]
                row[f"{kind}_against_sequifier"] = round(statistics.median(ratios), 2)
                row[f"each_{kind}_against_sequifier"] = [round(ratio, 2) for ratio in ratios]
            rows.append(_joined("sequifier", count, theirs))
    return rows


def _joined(program: str, count: int, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The medians of several measurements, and each of them."""
    row: dict[str, Any] = {"program": program, "runs": count}
    for key in ("wall_seconds", "cpu_seconds"):
        row[key] = round(statistics.median(one[key] for one in found), 1)
        row[f"each_{key}"] = [one[key] for one in found]
    return row


def main() -> int:
    """Runs the benchmark and returns the exit status."""
    parser = argparse.ArgumentParser(description="Measure a search whose runs are trained together.")
    parser.add_argument("--models", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peer", type=Path, help="the program sequifier")
    parser.add_argument("--device", default="cpu", help="of population and runners")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="the others are kept")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    results: dict[str, Any] = {
        "note": "A model-step is one update of one model; tools/bench_sweep.py says what is counted.",
        "batches": BATCHES,
        "epochs": EPOCHS,
    }
    if arguments.output and arguments.output.exists():
        before = json.loads(arguments.output.read_text())
        results |= {part: before[part] for part in PARTS if part in before}
    how = WAYS, arguments.rounds, arguments.device
    for part in arguments.parts:
        begin = {"date": datetime.now(UTC).date().isoformat(), "machine": machine()}
        if part == "population":
            rows = [in_a_process(count, SHAPE, *how) for count in arguments.models]
        elif part == "runners":
            rows = [in_a_process(arguments.models[0], size, *how) for size in SIZES]
        else:
            rows = searches(arguments.peer, arguments.models, arguments.rounds)
        results[part] = {**begin, "rows": rows}
    text = json.dumps(results, indent=1)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
