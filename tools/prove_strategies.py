"""Compares halving and Optuna with a grid, by what they find and how much they train.

    python -m tools.prove_strategies [--seeds 0 1 2 3 4 5] [--output docs/benchmarks/strategies.json]

The data is the Markov chain of `tools.demo_data`. The grid varies learning rate, dropout and weight decay;
halving and Optuna have the same lists. Either is to reach the grid's lowest validation loss to within 1 %,
with at most a third of the updates that the grid makes.
"""

import argparse
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from tools import demo_data, small_search
from tools.bench_train import machine

RATES, DROPOUTS, DECAYS = [3e-4, 1e-3, 3e-3, 1e-2], [0.0, 0.1, 0.2], [0.0, 0.01, 0.1]
EPOCHS, LENGTH, ITEMS = 9, 16, 200


class Found(NamedTuple):
    """What a search came to."""

    loss: float
    epochs: int
    """Epochs of all runs together; an epoch has equally many updates in all."""


def search(name: str, seed: int, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 (keys of a search)
    """The keys of a search; the grid, but for `changes`."""
    rates = changes.pop("learning_rate", RATES)
    model = {
        "dim_model": [16],
        "n_head": [2],
        "initial_embedding_dim": [16],
        "joint_embedding_dim": [16],
        "dim_feedforward": [32],
        "activation_fn": ["swiglu"],
    }
    training = {
        "learning_rate": rates,
        "epochs": [EPOCHS] * len(rates),
        "batch_size": [32],
        "dropout": changes.pop("dropout", DROPOUTS),
        "optimizer": [{"name": "AdamW"}],
        "save_interval_epochs": EPOCHS,
        "log_interval": 1000,
    }
    decays = {"training_spec.optimizer.weight_decay": changes.pop("weight_decay", DECAYS)}
    top = {"seed": seed, "seq_length": [LENGTH], "other_sampling": decays}
    return small_search.search(name, model, training, **top, **changes)


def project(root: Path, sequences: int) -> None:
    """Writes the data and preprocesses it."""
    events = demo_data.sample(demo_data.make_process(), sequences, ITEMS)[0]
    table = pl.DataFrame(
        {
            "sequenceId": np.arange(sequences).repeat(ITEMS),
            "itemPosition": np.tile(np.arange(ITEMS), sequences),
            "item": events.ravel().astype(str),
        }
    )
    steps = {"seq_length": LENGTH, "stride_by_split": [LENGTH, LENGTH]}
    small_search.project(root, table, split_ratios=[0.8, 0.2], **steps)


def run(root: Path, config: dict[str, Any]) -> Found:
    """Searches."""
    import seqjax

    rows = seqjax.search({**config, "project_root": str(root)})
    return Found(rows[0]["best_validation_loss"], sum(row["last_epoch"] or 0 for row in rows))


def compare(root: Path, seed: int, *, trials: int, **smaller: Any) -> dict[str, Any]:  # noqa: ANN401
    """The grid, halving and Optuna with a seed.

    Args:
      root: A project.
      seed: Of all runs, and of what is drawn.
      trials: Runs of Optuna.
      smaller: Other lists for the grid.
    """
    grid = run(root, search(f"grid-{seed}", seed, **smaller))
    halving = run(root, search(f"halving-{seed}", seed, search_strategy="halving", **smaller))
    asked = {"search_strategy": "tpe", "n_samples": trials, "population_size": 2}
    tpe = run(root, search(f"tpe-{seed}", seed, **asked, **smaller))
    result: dict[str, Any] = {"seed": seed, "grid": grid._asdict()}
    for name, found in (("halving", halving), ("tpe", tpe)):
        result[name] = {
            **found._asdict(),
            "loss_above_grid": round(found.loss / grid.loss - 1, 5),
            "share_of_updates": round(found.epochs / grid.epochs, 4),
        }
    return result


def main() -> int:
    """Runs the comparison and returns the exit status."""
    parser = argparse.ArgumentParser(description="Compare halving and Optuna with a grid.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5])
    parser.add_argument("--sequences", type=int, default=60)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        project(Path(folder), arguments.sequences)
        for seed in arguments.seeds:
            results.append(compare(Path(folder), seed, trials=12))
            print(json.dumps(results[-1]), flush=True)
    if arguments.output:
        report = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine(),
            "note": "Updates are counted in epochs of all runs together; an epoch has equally many in each.",
            "grid": {"learning_rate": RATES, "dropout": DROPOUTS, "weight_decay": DECAYS, "epochs": EPOCHS},
            "rows": results,
        }
        arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if all(holds(result) for result in results) else 1


def holds(result: dict[str, Any]) -> bool:
    """Whether both came close enough, cheaply enough."""
    return all(
        result[name]["loss_above_grid"] <= 0.01 and result[name]["share_of_updates"] <= 1 / 3 + 1e-9
        for name in ("halving", "tpe")
    )


if __name__ == "__main__":
    raise SystemExit(main())
