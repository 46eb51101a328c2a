"""Stops training at random moments and checks that it goes on to the same end, to the bit.

    python -m tools.stop_training --stops 20 --flips 200 [--processes 2]

A project with a small model is trained without disturbance; then copies of it are trained and stopped: every
other one by SIGTERM, whose exit code must be 143, the others by SIGKILL. A stopped run is started again until
it comes through. Parameters, optimizer state, the score and everything the log tells (times apart) must then
be those of the undisturbed run. Of several processes, which train as one run, SIGTERM comes to any one, and
all must stop with its exit code; SIGKILL comes to all.

Then single bits of a checkpoint's files are flipped, one at a time; each must be seen.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seqjax.artifacts.atomic import check_manifest
from seqjax.artifacts.checkpoints import load_info, load_leaves, newest_intact
from seqjax.artifacts.layout import Layout
from seqjax.errors import ArtifactError
from tools.run_logs import told_last

LENGTH, WINDOWS, NAME = 12, 3000, "demo"
CHILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from seqjax.cli import main
sys.exit(main(sys.argv[1:]))
"""


def write_project(root: Path, *, epochs: int, processes: int = 1) -> None:
    """A table, preprocessed, and a configuration that saves often."""
    import polars as pl

    from seqjax.commands.preprocess import preprocess
    from seqjax.config.base import validate
    from seqjax.config.preprocess import PreprocessConfig

    rng = np.random.default_rng(0)
    sequences = 60
    n = WINDOWS + sequences * (LENGTH + 1)
    frame = pl.DataFrame(
        {
            "sequenceId": np.arange(n) * sequences // n,
            "itemPosition": np.arange(n),
            "item": [f"item{value}" for value in rng.integers(0, 9, n)],
            "price": rng.normal(size=n),
        }
    )
    root.mkdir(parents=True)
    frame.write_parquet(root / "table.parquet")
    values = {
        "project_root": str(root),
        "data_path": "table.parquet",
        "read_format": "parquet",
        "write_format": "arrow",
        "split_ratios": [0.8, 0.2],
        "seq_length": LENGTH,
        "stride_by_split": [1, 4],
    }
    preprocess(validate(PreprocessConfig, values, "the project"))
    (root / "train.json").write_text(json.dumps(training(root, epochs, processes)), encoding="utf-8")


def training(root: Path, epochs: int, processes: int) -> dict[str, Any]:
    """The configuration; JSON is YAML."""
    return {
        "project_root": str(root),
        "metadata_config_path": "configs/metadata_configs/table.json",
        "model_name": NAME,
        "target_columns": ["item", "price"],
        "target_column_types": {"item": "categorical", "price": "real"},
        "seq_length": LENGTH,
        "inference_batch_size": 4,
        "export_generative_model": False,
        "export_embedding_model": False,
        "model_spec": {
            "initial_embedding_dim": 16,
            "feature_embedding_dims": {"item": 12, "price": 4},
            "dim_model": 16,
            "n_head": 2,
            "dim_feedforward": 32,
            "num_layers": 2,
        },
        "training_spec": {
            "device": "cpu",
            "distributed": processes > 1,
            "epochs": epochs,
            "save_interval_epochs": 1,
            "save_interval_steps": 37,
            "save_interval_minutes": 0.01,
            "batch_size": 16,
            "accumulation_steps": 2,
            "learning_rate": 0.003,
            "criterion": {"item": "CrossEntropyLoss", "price": "MSELoss"},
            "optimizer": {"name": "AdamW"},
            "scheduler": {"name": "ExponentialLR", "gamma": 0.9},
            "dropout": 0.1,
            "log_interval": 11,
        },
    }


def start(root: Path, processes: int = 1) -> list[subprocess.Popen[bytes]]:
    """The processes of a run that was just started."""
    words = [sys.executable, "-c", CHILD, "train", "--config-path", str(root / "train.json")]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    if processes > 1:
        words += ["--coordinator", f"127.0.0.1:{_free_port()}", "--num-processes", str(processes)]
    ids = [["--process-id", str(number)] if processes > 1 else [] for number in range(processes)]
    return [
        subprocess.Popen([*words, *own], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for own in ids
    ]


def finish(root: Path, processes: int = 1) -> None:
    """Runs until the end."""
    for code, said in ended(start(root, processes)):
        if code:
            raise SystemExit(f"a run failed with {code}: {said[-2000:]}")


def ended(children: Sequence[subprocess.Popen[bytes]]) -> list[tuple[int, str]]:
    """Exit code and standard error of each process, once all have ended."""
    said = [child.communicate()[1].decode() for child in children]
    return [(child.returncode, text) for child, text in zip(children, said, strict=True)]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def told(root: Path) -> list[dict[str, Any]]:
    """What the log tells of losses and the score, times apart; of what it tells twice, the last counts."""
    return told_last(Layout(root, NAME).json_log())


def last_state(root: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """All arrays of the newest checkpoint by name, and the score."""
    layout = Layout(root, NAME)
    place = newest_intact(layout).place
    assert place is not None
    path = layout.checkpoint(*place)
    info = load_info(path)
    score = {key: info[key] for key in ("epoch", "best_epoch", "best_loss", "stale")}
    return load_leaves(path), score


def differences(root: Path, expected: Path) -> list[str]:
    """What differs between two runs; empty if nothing does."""
    (one, score), (other, other_score) = last_state(root), last_state(expected)
    found = sorted(one.keys() ^ other.keys())
    found += [name for name in one.keys() & other.keys() if one[name].tobytes() != other[name].tobytes()]
    found += [] if score == other_score else ["the score"]
    return found + ([] if told(root) == told(expected) else ["the log"])


def trial(root: Path, chance: random.Random, *, events: int, number: int, processes: int) -> list[str]:
    """Stops a run at a random moment, lets it come through, and returns what went wrong.

    Args:
      root: The project.
      chance: Chooses the moment, and the process that SIGTERM comes to.
      events: What an undisturbed run tells; the run is stopped soon after it has told a part of that.
      number: The trial's number, which decides about the signal.
      processes: How many processes a run has.
    """
    gently, until = number % 2 == 0, chance.randrange(events)
    log = Layout(root, NAME).json_log()
    children = start(root, processes)
    while all(child.poll() is None for child in children) and not (
        log.exists() and log.read_bytes().count(b"\n") > until + 2
    ):
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.02))
    for child in [chance.choice(children)] if gently else children:
        child.send_signal(signal.SIGTERM if gently else signal.SIGKILL)
    exits = ended(children)
    places = [f"{place.epoch}+{place.batch}" for place in Layout(root, NAME).saved()]
    sys.stdout.write(
        f"stop {number}: {'SIGTERM' if gently else 'SIGKILL'} after {until} of {events} events, exit "
        f"{' '.join(str(code) for code, _ in exits)}, saved (epochs+batches) "
        f"{' '.join(places) or 'nothing'}: "
    )
    allowed = {0, 143} if gently else {0, -signal.SIGKILL}
    finish(root, processes)
    return [f"exit {code}: {said[-500:]}" for code, said in exits if code not in allowed]


def flips(root: Path, count: int, chance: random.Random) -> int:
    """Flips single bits of the newest checkpoint; returns how many were not seen."""
    layout = Layout(root, NAME)
    path = layout.checkpoint(*layout.saved()[-1])
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.stat().st_size)
    unseen = 0
    for _ in range(count):
        file = chance.choice(files)
        content = file.read_bytes()
        damaged, bit = bytearray(content), chance.randrange(8 * len(content))
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        try:
            check_manifest(path)
            unseen += 1
        except ArtifactError:
            pass
        file.write_bytes(content)
    check_manifest(path)
    return unseen


def main(words: Sequence[str] | None = None) -> int:
    """Runs all trials; returns the number of faults."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--processes", type=int, default=1, help="that train together")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(words)
    chance, faults = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as folder:
        # All runs are in one place, one after the other, since a configuration names its own.
        root, whole, template = Path(folder) / "project", Path(folder) / "whole", Path(folder) / "template"
        processes = options.processes
        write_project(root, epochs=options.epochs, processes=processes)
        shutil.copytree(root, template)
        finish(root, processes)
        root.rename(whole)
        events = len(told(whole))
        for number in range(options.stops):
            shutil.copytree(template, root)
            wrong = trial(root, chance, events=events, number=number, processes=processes)
            wrong += differences(root, whole)
            sys.stdout.write(f"{'differs: ' + ', '.join(wrong) if wrong else 'equal to the bit'}\n")
            sys.stdout.flush()
            faults += bool(wrong)
            shutil.rmtree(root)
        unseen = flips(whole, options.flips, chance)
    sys.stdout.write(f"{options.stops - faults} of {options.stops} stopped runs ended equal to the bit\n")
    sys.stdout.write(f"{options.flips - unseen} of {options.flips} flipped bits were seen\n")
    return faults + unseen


if __name__ == "__main__":
    sys.exit(main())
