"""Measures a commit against this checkout, by the benchmarks of each, in turn.

    python -m tools.bench_commits caa88f8 [--benchmarks train infer] [--out docs/benchmarks/commits.json]

Each round runs a benchmark of the other commit and then the same one of this checkout, the order swapped from
round to round, with one Python environment, that of this checkout. A figure that both know gives a ratio,
above 1 where this checkout is faster; the median over the rounds counts. They are even in number, since the
second of two runs may find the machine slower, by a tenth where it is shared. Nothing else should run
meanwhile.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tools.bench_train import machine

ROOT = Path(__file__).parents[1]

Results = Mapping[str, Any]
"""What a benchmark writes."""
Figures = dict[str, float]
"""Speed by case: the more the faster."""


@dataclass(frozen=True)
class Benchmark:
    """A tool, how it is run once, and which speeds its JSON holds."""

    tool: str
    arguments: tuple[str, ...]
    output: str
    figures: Callable[[Results], Figures]


def _train(results: Results) -> Figures:
    return {
        f"{row['model']}, dropout {row['dropout']}, {row['threads']} threads": row["seqjax"]["per_cpu_second"]
        for row in results["results"]
    }


def _preprocess(results: Results) -> Figures:
    return {
        f"{row['case']} to {row['write_format']}": 1 / row["cpu_seconds"]
        for row in results["results"]
        if row["program"] == "seqjax"
    }


def _infer(results: Results) -> Figures:
    return {
        f"{row['case']}, {row['model']}, {key}": row[key]
        for row in results["items_per_cpu_second"]
        for key in ("process", "marginal")
        if row["program"] == "seqjax"
    }


def _sweep(results: Results) -> Figures:
    rows = results["population"]["rows"]
    return {f"{row['models']} models": _steps(row["ways"][row["default"]]) for row in rows}


def _steps(way: Mapping[str, float]) -> float:
    return way["model_steps_per_cpu_second"]


BENCHMARKS = {
    "preprocess": Benchmark(
        "bench_preprocess", ("--cases", "2m", "2m-parquet", "2m-shuffled", "short"), "--out", _preprocess
    ),
    "train": Benchmark("bench_train", ("--repeats", "1"), "--out", _train),
    "infer": Benchmark("bench_infer", ("--repeats", "1"), "--out", _infer),
    "sweep": Benchmark(
        "bench_sweep", ("--parts", "population", "--models", "16", "--rounds", "1"), "--output", _sweep
    ),
}


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """The files of a commit in a folder of their own, while the block runs."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "--detach", str(tree), commit], cwd=ROOT, check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


def measure(tree: Path, benchmark: Benchmark) -> Figures:
    """Runs a benchmark of the code in a folder."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        command = [
            *(sys.executable, "-m", f"tools.{benchmark.tool}"),
            *(*benchmark.arguments, benchmark.output, str(out)),
        ]
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        subprocess.run(command, cwd=tree, env=environment, check=True, stdout=subprocess.DEVNULL)
        return benchmark.figures(json.loads(out.read_text()))


def ratios(rounds: list[tuple[Figures, Figures]]) -> dict[str, dict[str, Any]]:
    """The speed of this checkout as a multiple of the other's, by case: the median, and each round.

    Args:
      rounds: Figures of the other commit and of this checkout.
    """
    first, second = rounds[0]
    rows = {}
    for case in first.keys() & second.keys():
        each = [own[case] / other[case] for other, own in rounds]
        rows[case] = {"ratio": round(statistics.median(each), 3), "each": [round(one, 3) for one in each]}
    return dict(sorted(rows.items()))


def compare(tree: Path, benchmark: Benchmark, count: int) -> dict[str, dict[str, Any]]:
    """Runs a benchmark of both, some times in turn."""
    rounds = []
    for number in range(count):
        trees = [tree, ROOT] if number % 2 == 0 else [ROOT, tree]
        figures = {place: measure(place, benchmark) for place in trees}
        rounds.append((figures[tree], figures[ROOT]))
    return ratios(rounds)


def main() -> int:
    """Compares, prints the ratios, and puts them into the JSON file beside those of other benchmarks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commit", help="what this checkout is compared with")
    parser.add_argument("--benchmarks", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS))
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    known = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    with checked_out(options.commit) as tree:
        for name in options.benchmarks:
            rows = compare(tree, BENCHMARKS[name], options.rounds)
            print(
                name, *(f"  {row['ratio']:6.3f}  {case}" for case, row in rows.items()), sep="\n", flush=True
            )
            about = {"date": datetime.now(UTC).date().isoformat(), "against": options.commit}
            known[name] = {**about, "machine": machine(), "ratios": rows}
            if options.out:
                options.out.write_text(json.dumps(known, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
