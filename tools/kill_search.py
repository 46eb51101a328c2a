"""Kills a hyperparameter search at random moments and checks that it ends as if nothing had happened.

    python -m tools.kill_search --kills 5

A search is run undisturbed. Then the same search is begun anew, killed (SIGKILL) and continued as often as is
asked for, and left to its end. Every run must have been trained to its end exactly once: since it was begun
for the last time (what was killed before its first checkpoint is begun anew), its log tells of each epoch
once, and in all of one end. The ranking must be that of the undisturbed search, and so must the losses, up to
rounding: which runs are computed together depends on when the search was killed.
"""

import argparse
import json
import math
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tools import small_search
from tools.run_logs import told_last

NAME, LENGTH, ROUNDING = "s", 8, 1e-5
SEARCH = small_search.search(
    NAME,
    {"dim_feedforward": [8, 16]},
    {"learning_rate": [0.01, 0.003, 0.001], "epochs": [12, 10, 8]},
    seq_length=[LENGTH],
)


def project(root: Path) -> None:
    """Writes the data of a search."""
    rows = 600
    table = pl.DataFrame(
        {
            "sequenceId": np.arange(rows) // 60,
            "itemPosition": np.arange(rows) % 60,
            "item": np.random.default_rng(3).integers(0, 4, rows).astype(str),
        }
    )
    small_search.project(root, table, split_ratios=[0.7, 0.3], seq_length=LENGTH, stride_by_split=[2, 2])


def start(root: Path, changes: dict[str, Any]) -> "subprocess.Popen[bytes]":
    """The search as a process."""
    return subprocess.Popen(
        small_search.command(root, {**SEARCH, **changes}),
        cwd=root,
        env=small_search.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def ranking(root: Path) -> list[tuple[str, str, int, float]]:
    """Run, status, last epoch and loss of each, the best first."""
    report = json.loads((root / f"outputs/hyperparameter_search/{NAME}.json").read_text())
    keys = ("run", "status", "last_epoch", "best_validation_loss")
    return [tuple(row[key] for key in keys) for row in report["runs"]]


def faults(root: Path, expected: list[tuple[str, str, int, float]]) -> list[str]:
    """What is wrong with a search that is done."""
    found = []
    came = ranking(root)
    if [row[:3] for row in came] != [row[:3] for row in expected] or not all(
        math.isclose(row[3], other[3], rel_tol=ROUNDING) for row, other in zip(came, expected, strict=True)
    ):
        found.append(f"the ranking is {came}, not {expected}")
    for run, _, last, _ in expected:
        events = told_last(root / f"logs/sequifier-{run}-rank0.jsonl")
        epochs = [event["epoch"] for event in events if event["event"] == "validation"]
        begun = len(epochs) - 1 - epochs[::-1].index(0)
        if epochs[begun:] != list(range(last + 1)):
            found.append(f"{run} was trained for the epochs {epochs}")
        ends = sum(event["event"] == "standing" and event["finished"] for event in events)
        if ends != 1:
            found.append(f"{run} was trained to its end {ends} times")
    return found


def is_at_work(root: Path, since: float) -> bool:
    """Whether a run has come to the end of an epoch since a moment (seconds of the clock of files)."""
    logs = (root / "logs").glob("sequifier-*.jsonl")
    return any(
        path.stat().st_mtime > since
        and json.loads(path.read_text().rpartition("\n")[0].rpartition("\n")[2] or "{}").get("event")
        == "standing"
        for path in logs
    )


def until_at_work(root: Path, child: "subprocess.Popen[bytes]", since: float) -> bool:
    """Waits until a search trains; whether it came to that before it ended."""
    while child.poll() is None:
        if is_at_work(root, since):
            return True
        time.sleep(0.01)
    return False


def trial(folder: Path, kills: int, seed: int, **changes: object) -> tuple[list[str], int]:
    """Runs a search undisturbed, and one that is killed.

    Args:
      folder: An empty folder.
      kills: How often to kill.
      seed: Of the moments.
      changes: Keys of the search.

    Returns:
      What is wrong, and how many kills met a search while it trained.
    """
    generator = random.Random(seed)
    calm, upset = folder / "calm", folder / "upset"
    project(calm)
    project(upset)
    child = start(calm, changes)
    until_at_work(calm, child, 0.0)
    begin = time.monotonic()
    if child.wait():
        return ["the undisturbed search failed"], 0
    seconds = time.monotonic() - begin
    met = 0
    for _ in range(kills):
        since = time.time()
        child = start(upset, changes)
        if not until_at_work(upset, child, since):
            continue
        time.sleep(generator.uniform(0, 1 / kills) * seconds)
        met += child.poll() is None
        child.send_signal(signal.SIGKILL)
        child.wait()
    if start(upset, changes).wait():
        return ["the search that was killed failed in the end"], met
    return faults(upset, ranking(calm)), met


def main() -> int:
    """Runs the check and returns the exit status."""
    parser = argparse.ArgumentParser(description="Kill a search at random moments, and check how it ends.")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", default="vmap")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wrong, met = trial(Path(folder), arguments.kills, arguments.seed, engine=arguments.engine)
    print(f"{met} of {arguments.kills} kills met a search while it trained; faults: {len(wrong)}")
    for fault in wrong:
        print(fault)
    return 1 if wrong or met < arguments.kills else 0


if __name__ == "__main__":
    raise SystemExit(main())
