"""Measures what an epoch costs beside its updates: two batches of a tiny model, trained as a command does.

    python -m tools.bench_epoch --out docs/benchmarks/epoch.json

Runs of few and of many epochs are timed, alone and as members of a population, with their logs but without
checkpoints in between; the difference is what the epochs cost. An update's cost is that of runs with many
batches an epoch. The first runs of a trainer compile, and are not counted.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tools import small_search
from tools.bench_train import machine

LIMIT_MS = 5.0
"""Milliseconds an epoch and run beside its updates."""
LENGTH, BATCH, MANY_BATCHES = 8, 8, 200
FEW, MANY = 10, 110
MEMBERS = 4


def write_project(root: Path, batches: int) -> None:
    """A sequence whose training split has so many batches; the validation split has two."""
    import polars as pl

    training, validation = batches * BATCH + LENGTH, 2 * BATCH + LENGTH
    rows = training + validation
    items = np.random.default_rng(0).integers(0, 4, rows).astype(str)
    table = pl.DataFrame({"sequenceId": np.zeros(rows, int), "itemPosition": np.arange(rows), "item": items})
    ratios = [training / rows, validation / rows]
    small_search.project(root, table, split_ratios=ratios, seq_length=LENGTH, stride_by_split=[1, 1])


def configs(root: Path, name: str, epochs: int, count: int) -> list[Any]:
    """So many runs that differ in their learning rates."""
    from seqjax.config.base import validate
    from seqjax.config.hyperparameter_search import HyperparameterSearchConfig
    from seqjax.config.resolve import load_metadata
    from seqjax.sweep.space import plan

    training = {
        "learning_rate": [0.001 * (number + 1) for number in range(count)],
        "epochs": [epochs] * count,
        "batch_size": [BATCH],
        "save_interval_epochs": 1000,
    }
    top = {"project_root": str(root), "export_generative_model": False, "seq_length": [LENGTH]}
    values = small_search.search(name, {"dim_feedforward": [8]}, training, **top)
    config = validate(HyperparameterSearchConfig, values, name)
    found = plan(config, load_metadata(root / config.metadata_config_path))
    return [candidate.config for candidate in found.candidates]


def milliseconds_of_an_epoch(root: Path, count: int, rounds: int) -> tuple[float, int]:
    """Milliseconds of an epoch and run, and batches of an epoch.

    Args:
      root: A project.
      count: How many runs are trained together.
      rounds: How often the difference is taken; the median counts.
    """
    from seqjax.commands.train import Trainer
    from seqjax.commands.train_run import Task
    from seqjax.errors import SeqjaxError

    trainer = Trainer(runner="loop" if count == 1 else "auto")

    def seconds(name: str, epochs: int) -> float:
        def ended(task: Task, end: object, seconds: float) -> None:
            if isinstance(end, SeqjaxError):
                raise end

        runs = configs(root, name, epochs, count)
        begin = time.perf_counter()
        trainer.train([Task(number, config) for number, config in enumerate(runs)], ended)
        return time.perf_counter() - begin

    seconds("first", FEW)
    found = [seconds(f"many{turn}", MANY) - seconds(f"few{turn}", FEW) for turn in range(rounds)]
    log = root / "logs/sequifier-first-run-0-rank0.jsonl"
    batches = next(
        values["batches"] for values in map(json.loads, log.read_text().splitlines()) if "batches" in values
    )
    return 1000 * statistics.median(found) / (MANY - FEW) / count, batches


def measured(count: int, rounds: int) -> dict[str, Any]:
    """What an epoch of two batches costs each of some runs that are trained together."""
    with tempfile.TemporaryDirectory() as folder:
        short, long = Path(folder) / "short", Path(folder) / "long"
        write_project(short, 2)
        write_project(long, MANY_BATCHES)
        whole, few = milliseconds_of_an_epoch(short, count, rounds)
        longer, many = milliseconds_of_an_epoch(long, count, rounds)
    update = (longer - whole) / (many - few)
    return {
        "runs": count,
        "batches": few,
        "epoch_ms": round(whole, 2),
        "update_ms": round(update, 3),
        "beside_updates_ms": round(whole - few * update, 2),
    }


def main() -> int:
    """Measures, prints a line a number of runs, and writes the file; returns how many are above the limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    before, rows = machine(), []
    for count in (1, MEMBERS):
        rows.append(measured(count, arguments.rounds))
        print(rows[-1], flush=True)
    if arguments.out is not None:
        about = {"date": datetime.now(UTC).date().isoformat(), "machine": before, "limit_ms": LIMIT_MS}
        arguments.out.write_text(json.dumps({**about, "results": rows}, indent=1) + "\n", encoding="utf-8")
    return sum(row["beside_updates_ms"] > LIMIT_MS for row in rows)


if __name__ == "__main__":
    sys.exit(main())
