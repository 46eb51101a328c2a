"""Measures what dropout costs: the CPU time of updates with it, over that of updates without.

    python -m tools.bench_dropout [--models small mid] [--repeats 9] [--out docs/benchmarks/dropout.json]

For each model of `tools.bench_train` a process on one core prepares two runs, with dropout 0 and 0.1. They
train an epoch each in turn, so that whatever else the machine does meets both alike; their first epochs, in
which they are compiled, do not count. Each pair of epochs gives a ratio, and the median of the ratios counts.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tools.bench_train import BATCHES, SHAPES, machine, prepared_run, training_config

RATE = 0.1
LIMIT = 1.03
"""Of the ratio."""


def seconds_of_epochs(name: str, dropout: float) -> Iterator[float]:
    """Trains a model on and on; yields the CPU seconds of each epoch's updates."""
    from seqjax.training.events import BatchEvent
    from seqjax.training.loop import Member, Population

    run, state = prepared_run(training_config(SHAPES[name], dropout), BATCHES[name])
    population, begin, seconds = Population(run), 0.0, 0.0

    def clock(event: object) -> None:
        nonlocal begin, seconds
        if isinstance(event, BatchEvent):
            seconds = time.process_time() - begin
        else:
            begin = time.process_time()

    for epoch in range(1, 1001):
        member = Member(run, state, 1000, until=epoch, hooks=[clock])
        population.train([member], lambda _: None)
        state = member.state
        yield seconds


def measure(name: str, repeats: int) -> dict[str, Any]:
    """CPU seconds of epochs without and with dropout, and their ratios, in this process."""
    from seqjax.runtime import keep_freed_memory

    keep_freed_memory()
    without, dropped = seconds_of_epochs(name, 0.0), seconds_of_epochs(name, RATE)
    pairs = []
    for epochs in (without, dropped):
        next(epochs)
    for repeat in range(repeats):
        if repeat % 2:
            pairs.append((next(without), next(dropped)))
        else:
            pairs.append((next(dropped), next(without))[::-1])
    ratios = [with_it / plain for plain, with_it in pairs]
    windows = BATCHES[name] * SHAPES[name]["batch"]
    plain, with_it = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {
        "model": name,
        "ratio": round(statistics.median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "per_cpu_second": {"0.0": round(windows / plain, 1), str(RATE): round(windows / with_it, 1)},
    }


def main() -> int:
    """Measures, prints a line a model, and writes the file; returns the number of models above the limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", choices=SHAPES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.repeats)))
        return 0
    before, rows = machine(), []
    core = max(os.sched_getaffinity(0))
    for name in arguments.models:
        words = [sys.executable, "-m", "tools.bench_dropout", "--measure", name]
        done = subprocess.run(
            [*words, "--repeats", str(arguments.repeats)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{name}: an update with dropout {RATE} takes {rows[-1]['ratio']} of one without", flush=True)
    if arguments.out is not None:
        about = {"date": datetime.now(UTC).date().isoformat(), "machine": before, "limit": LIMIT}
        arguments.out.write_text(json.dumps({**about, "results": rows}, indent=1) + "\n", encoding="utf-8")
    return sum(row["ratio"] > LIMIT for row in rows)


if __name__ == "__main__":
    sys.exit(main())
