"""Kills a hyperparameter search at random moments and checks that it ends as if nothing had happened.

    python -m tools.kill_search --kills 5

A search is run undisturbed. Then the same search is begun anew, killed (SIGKILL) and continued as often as is
asked for, and left to its end. Every run must have been trained to its end exactly once: since it was begun
for the last time (what was killed before its first checkpoint is begun anew), its log tells of each epoch
once, and in all of one end. The ranking and the losses must be those of the undisturbed search.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

NAME, LENGTH = "s", 8
SEARCH: dict[str, Any] = {
    "metadata_config_path": "configs/metadata_configs/t.json",
    "hp_search_name": NAME,
    "model_config_write_path": "configs/hp_search",
    "search_strategy": "grid",
    "override_input": True,
    "export_generative_model": False,
    "export_embedding_model": False,
    "inference_batch_size": 4,
    "input_columns": [["item"]],
    "target_columns": ["item"],
    "target_column_types": {"item": "categorical"},
    "seq_length": [LENGTH],
    "model_hyperparameter_sampling": {
        "dim_model": [8],
        "n_head": [1],
        "initial_embedding_dim": [8],
        "joint_embedding_dim": [None],
        "num_layers": [1],
        "dim_feedforward": [8, 16],
        "activation_fn": ["relu"],
        "normalization": ["rmsnorm"],
        "norm_first": [True],
        "positional_encoding": ["learned"],
        "rope_theta": [10000.0],
        "attention_type": ["mha"],
        "n_kv_heads": [None],
    },
    "training_hyperparameter_sampling": {
        "device": "cpu",
        "learning_rate": [0.01, 0.003, 0.001],
        "epochs": [6, 5, 4],
        "batch_size": [8],
        "accumulation_steps": [1],
        "criterion": {"item": "CrossEntropyLoss"},
        "save_interval_epochs": 1,
    },
}
CHILD = """
import json, sys
import seqjax
seqjax.search(json.loads(sys.argv[1]))
"""


def project(root: Path) -> None:
    """Writes the data of a search."""
    import seqjax

    rng = np.random.default_rng(3)
    rows = 600
    frame = pl.DataFrame(
        {
            "sequenceId": np.arange(rows) // 60,
            "itemPosition": np.arange(rows) % 60,
            "item": rng.integers(0, 4, rows).astype(str),
        }
    )
    (root / "data").mkdir(parents=True)
    frame.write_csv(root / "data/t.csv")
    seqjax.preprocess(
        {
            "project_root": str(root),
            "data_path": "data/t.csv",
            "split_ratios": [0.7, 0.3],
            "seq_length": LENGTH,
            "stride_by_split": [2, 2],
        }
    )


def start(root: Path, changes: dict[str, Any]) -> "subprocess.Popen[bytes]":
    """The search as a process."""
    config = json.dumps({**SEARCH, **changes, "project_root": str(root)})
    return subprocess.Popen([sys.executable, "-c", CHILD, config], stderr=subprocess.DEVNULL)


def ranking(root: Path) -> list[tuple[str, str, int, float]]:
    """Run, status, last epoch and loss of each, the best first."""
    report = json.loads((root / f"outputs/hyperparameter_search/{NAME}.json").read_text())
    keys = ("run", "status", "last_epoch", "best_validation_loss")
    return [tuple(row[key] for key in keys) for row in report["runs"]]


def faults(root: Path, expected: list[tuple[str, str, int, float]]) -> list[str]:
    """What is wrong with a search that is done."""
    found = []
    if ranking(root) != expected:
        found.append(f"the ranking is {ranking(root)}, not {expected}")
    for run, _, last, _ in expected:
        lines = (root / f"logs/sequifier-{run}-rank0.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in lines]
        epochs = [event["epoch"] for event in events if event["event"] == "validation"]
        begun = len(epochs) - 1 - epochs[::-1].index(0)
        if epochs[begun:] != list(range(last + 1)):
            found.append(f"{run} was trained for the epochs {epochs}")
        ends = sum(event["event"] == "standing" and event["finished"] for event in events)
        if ends != 1:
            found.append(f"{run} was trained to its end {ends} times")
    return found


def trial(folder: Path, kills: int, seed: int, **changes: object) -> tuple[list[str], int]:
    """Runs a search undisturbed, and one that is killed.

    Args:
      folder: An empty folder.
      kills: How often to kill.
      seed: Of the moments.
      changes: Keys of the search.

    Returns:
      What is wrong, and how many kills met a search that was at work.
    """
    generator = random.Random(seed)
    calm, upset = folder / "calm", folder / "upset"
    project(calm)
    project(upset)
    begin = time.monotonic()
    if start(calm, changes).wait():
        return ["the undisturbed search failed"], 0
    seconds = time.monotonic() - begin
    met = 0
    for _ in range(kills):
        child = start(upset, changes)
        try:
            child.wait(timeout=generator.uniform(0.1, 0.5) * seconds)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
            met += 1
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
    print(f"{met} of {arguments.kills} kills met a search at work; faults: {len(wrong)}")
    for fault in wrong:
        print(fault)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
