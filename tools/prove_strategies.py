"""Compares halving and Optuna with a grid, by what they find and how much they train.

    python -m tools.prove_strategies --seeds 3

The data is the Markov chain of `tools.demo_data`. The grid varies learning rate, dropout and weight decay;
halving has the same combinations, and Optuna ranges around them. Either is to reach the grid's lowest
validation loss to within 1 %, with at most a third of the updates that the grid makes.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from tools import demo_data

RATES, DROPOUTS, DECAYS = [3e-4, 1e-3, 3e-3, 1e-2], [0.0, 0.1, 0.2], [0.0, 0.01, 0.1]
EPOCHS = 9


class Found(NamedTuple):
    """What a search came to."""

    loss: float
    epochs: int
    """Epochs of all runs together; an epoch has equally many updates in all."""


def search(root: Path, name: str, seed: int, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 (keys of a search)
    """The keys of a search; the grid, but for `changes`."""
    rates = changes.pop("learning_rate", RATES)
    count = len(rates) if isinstance(rates, list) else 1
    return {
        "project_root": str(root),
        "metadata_config_path": "configs/metadata_configs/demo.json",
        "hp_search_name": name,
        "model_config_write_path": "configs/hp_search",
        "search_strategy": "grid",
        "seed": seed,
        "override_input": True,
        "export_generative_model": False,
        "export_embedding_model": False,
        "inference_batch_size": 4,
        "input_columns": [["event"]],
        "target_columns": ["event"],
        "target_column_types": {"event": "categorical"},
        "seq_length": [16],
        "model_hyperparameter_sampling": {
            "dim_model": [16],
            "n_head": [2],
            "initial_embedding_dim": [16],
            "joint_embedding_dim": [16],
            "num_layers": [1],
            "dim_feedforward": [32],
            "activation_fn": ["swiglu"],
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
            "batch_size": [32],
            "accumulation_steps": [1],
            "dropout": changes.pop("dropout", DROPOUTS),
            "optimizer": [{"name": "AdamW"}],
            "criterion": {"event": "CrossEntropyLoss"},
            "save_interval_epochs": EPOCHS,
            "log_interval": 1000,
        },
        "other_sampling": {"training_spec.optimizer.weight_decay": changes.pop("weight_decay", DECAYS)},
        **changes,
    }


def project(root: Path, sequences: int) -> None:
    """Writes the data and preprocesses it."""
    import seqjax

    (root / "data").mkdir(parents=True, exist_ok=True)
    process = demo_data.make_process()
    demo_data.write_csv(root / "data/demo.csv", *demo_data.sample(process, sequences, 200))
    seqjax.preprocess(
        {
            "project_root": str(root),
            "data_path": "data/demo.csv",
            "selected_columns": ["event"],
            "split_ratios": [0.8, 0.2],
            "seq_length": 16,
            "stride_by_split": [16, 16],
        }
    )


def run(config: dict[str, Any]) -> Found:
    """Searches."""
    import seqjax

    rows = seqjax.search(config)
    return Found(rows[0]["best_validation_loss"], sum(row["last_epoch"] or 0 for row in rows))


def compare(root: Path, seed: int, *, trials: int, **smaller: Any) -> dict[str, Any]:  # noqa: ANN401
    """The grid, halving and Optuna with a seed.

    Args:
      root: A project.
      seed: Of all runs, and of what is drawn.
      trials: Runs of Optuna.
      smaller: Other lists for the grid.
    """
    grid = run(search(root, f"grid-{seed}", seed, **smaller))
    halving = run(search(root, f"halving-{seed}", seed, search_strategy="halving", **smaller))
    ranges = {
        "learning_rate": {"low": min(RATES), "high": max(RATES), "log": True},
        "dropout": {"low": min(DROPOUTS), "high": max(DROPOUTS)},
        "weight_decay": {"low": min(DECAYS), "high": max(DECAYS)},
    }
    tpe = run(
        search(
            root, f"tpe-{seed}", seed, search_strategy="tpe", n_samples=trials, population_size=4, **ranges
        )
    )
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
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sequences", type=int, default=60)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        project(Path(folder), arguments.sequences)
        for seed in range(arguments.seeds):
            results.append(compare(Path(folder), seed, trials=12))
            print(json.dumps(results[-1]), flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    return 0 if all(holds(result) for result in results) else 1


def holds(result: dict[str, Any]) -> bool:
    """Whether both came close enough, cheaply enough."""
    return all(
        result[name]["loss_above_grid"] <= 0.01 and result[name]["share_of_updates"] <= 1 / 3 + 1e-9
        for name in ("halving", "tpe")
    )


if __name__ == "__main__":
    raise SystemExit(main())
