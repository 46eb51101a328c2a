"""Measures what training learns, on data whose best possible loss is known.

    python -m tools.learning [--only markov ar copy noise] [--seeds 3] [--out docs/benchmarks/learning.json]

* `markov`: a second-order chain; each pair of 8 values has its own distribution of the next, from
  Dirichlet(0.3). Floor: its entropy rate.
* `ar`: x' = a x + b x'' + noise, where a and b go by the category of the item. Floor: the noise's variance.
* `noise`: independent uniform draws of 8 values. Floor: ln 8.
* `copy`: 16 random values, a separator, and the same 16 again. Floor: every copied value is right.

A run is prepared and trained as by `seqjax train`, without its files; the parameters of the lowest validation
loss count. They are judged on other data of the same process, at positions that see enough to know the floor:
from the second item on for `markov` and `ar`, after the separator for `copy`. What the true process itself
reaches there is told beside, since data of finite size differ from their floor by chance.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.config.base import validate
from seqjax.config.schema import Schema
from seqjax.config.train import TrainConfig
from seqjax.model.functional import init
from seqjax.training.loop import Member, Population
from seqjax.training.setup import prepare
from seqjax.windows.order import Order
from seqjax.windows.windows import Batch, Windows, listed

CLASSES = 8
"""Values of a categorical column; as in preprocessed data they are ids from 2 on."""
COPIED = 16


@dataclass(frozen=True)
class Task:
    """A process to learn."""

    draw: Callable[[np.random.Generator, int, int, int], dict[str, np.ndarray]]
    """(generator, sequences, items, seed of the process) -> columns (sequences, items)."""
    target: str
    length: int
    judge: Callable[..., dict[str, float]]
    """(outputs (W, L, _), columns, seed) -> `value`, `floor`, `error` and `oracle`."""
    limit: float
    """Largest `error`."""
    epochs: int = 12
    count: int = 8000
    """Training windows."""
    rate: float = 3e-3


def _transitions(seed: int) -> np.ndarray:
    return np.random.default_rng((seed, 1)).dirichlet(np.full(CLASSES, 0.3), (CLASSES, CLASSES))


def _drawn(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    sums = probabilities.cumsum(-1)
    return np.minimum((rng.random(len(sums))[:, None] * sums[:, -1:] > sums).sum(-1), CLASSES - 1)


def _markov(rng: np.random.Generator, count: int, items: int, seed: int) -> dict[str, np.ndarray]:
    table = _transitions(seed)
    chain = rng.integers(0, CLASSES, (count, items + 50))
    for step in range(2, items + 50):  # The first items are forgotten, so that windows are stationary.
        chain[:, step] = _drawn(table[chain[:, step - 2], chain[:, step - 1]], rng)
    return {"item": chain[:, 50:] + 2}


def entropy_rate(table: np.ndarray) -> float:
    """Mean entropy of the next value under a second-order chain's stationary distribution, in nats."""
    pairs = np.full((CLASSES, CLASSES), 1 / CLASSES**2)
    for _ in range(2000):
        pairs = np.einsum("ab,abc->bc", pairs, table)
    logs = np.log(table, where=table > 0, out=np.zeros_like(table))
    return float(-(pairs[..., None] * table * logs).sum())


def _judge_markov(logits: np.ndarray, columns: dict[str, np.ndarray], seed: int) -> dict[str, float]:
    ids, table = columns["item"] - 2, _transitions(seed)
    true = table[ids[:, :-2], ids[:, 1:-1], ids[:, 2:]]
    floor, value = entropy_rate(table), float(_losses(logits, columns["item"])[:, 1:].mean())
    return {"value": value, "floor": floor, "error": value / floor - 1, "oracle": float(-np.log(true).mean())}


_SLOPES, _SECOND, _SIGMA = np.array([0.9, -0.5, 0.3]), np.array([-0.4, 0.3, 0.5]), 0.5
_SCALE = 0.8
"""About the standard deviation, by which preprocess would divide."""


def _autoregression(rng: np.random.Generator, count: int, items: int, seed: int) -> dict[str, np.ndarray]:
    del seed
    kinds = rng.integers(0, 3, (count, items + 50))
    noise, values = rng.normal(0, _SIGMA, kinds.shape), np.zeros(kinds.shape)
    for step in range(2, items + 50):
        kind = kinds[:, step - 1]
        values[:, step] = _SLOPES[kind] * values[:, step - 1] + _SECOND[kind] * values[:, step - 2]
        values[:, step] += noise[:, step]
    return {"kind": kinds[:, 50:] + 2, "value": (values[:, 50:] / _SCALE).astype(np.float32)}


def _judge_autoregression(outputs: np.ndarray, columns: dict[str, np.ndarray], seed: int) -> dict[str, float]:
    del seed
    kind, x = columns["kind"][:, 1:-1] - 2, columns["value"].astype(np.float64)
    best = _SLOPES[kind] * x[:, 1:-1] + _SECOND[kind] * x[:, :-2]
    value = float(np.square(outputs[:, 1:, 0] - x[:, 2:]).mean()) * _SCALE**2
    oracle = float(np.square(best - x[:, 2:]).mean()) * _SCALE**2
    return {"value": value, "floor": _SIGMA**2, "error": value / _SIGMA**2 - 1, "oracle": oracle}


def _uniform(rng: np.random.Generator, count: int, items: int, seed: int) -> dict[str, np.ndarray]:
    del seed
    return {"item": rng.integers(2, CLASSES + 2, (count, items))}


def _judge_uniform(logits: np.ndarray, columns: dict[str, np.ndarray], seed: int) -> dict[str, float]:
    del seed
    value, floor = float(_losses(logits, columns["item"]).mean()), float(np.log(CLASSES))
    return {"value": value, "floor": floor, "error": abs(value - floor), "oracle": floor}


def _copies(rng: np.random.Generator, count: int, items: int, seed: int) -> dict[str, np.ndarray]:
    del items, seed
    first = rng.integers(3, CLASSES + 2, (count, COPIED))
    return {"item": np.concatenate([first, np.full((count, 1), 2), first], axis=1)}


def _judge_copies(logits: np.ndarray, columns: dict[str, np.ndarray], seed: int) -> dict[str, float]:
    del seed
    right = float((logits[:, -COPIED:].argmax(-1) == columns["item"][:, -COPIED:]).mean())
    return {"value": right, "floor": 1.0, "error": 1 - right, "oracle": 1.0}


TASKS = {
    "markov": Task(_markov, "item", 64, _judge_markov, 0.01, epochs=8),
    "ar": Task(_autoregression, "value", 48, _judge_autoregression, 0.02),
    "noise": Task(_uniform, "item", 64, _judge_uniform, 0.002, epochs=2, rate=1e-3),
    "copy": Task(_copies, "item", 2 * COPIED, _judge_copies, 0.01, epochs=16),
}


def learn(task: Task, seed: int, *, epochs: int | None = None, count: int | None = None) -> dict[str, float]:
    """Trains on a task, and says how near its floor the model came.

    Args:
      task: What to learn.
      seed: Of the process, its data and the model.
      epochs: In place of the task's.
      count: Training windows, in place of the task's.

    Returns:
      What the task's judge says, with the epoch of the parameters, and CPU and wall seconds.
    """
    begin = time.process_time(), time.perf_counter()
    rng, items = np.random.default_rng((seed, 2)), task.length + 1
    sets = [task.draw(rng, size, items, seed) for size in (count or task.count, 1000, 2000)]
    config, schema = _config(task, sets[0], seed, epochs or task.epochs)
    training, validation, test = (_windows(columns, task.length) for columns in sets)
    graphdef, params = init(schema, config.model_spec, seed=seed)
    run = prepare(config, schema, graphdef, (training, validation), jax.devices()[0])
    member = Member(run, run.begin(params), config.training_spec.epochs)
    Population(run).train([member], lambda _: None)
    predict = jax.jit(lambda params, batch: run.recipe.apply(params, batch, None)[task.target])
    best, parts = jax.tree.map(jnp.asarray, member.state.best), []
    for rows in Order(len(test), 250, shuffle=False).batches():
        host = test.gather(rows)
        batch = Batch(*jax.tree.map(jnp.asarray, tuple(host)))
        parts.append(np.asarray(predict(best, batch)))
    found = task.judge(np.concatenate(parts), sets[2], seed)
    seconds = {"cpu_seconds": time.process_time() - begin[0], "seconds": time.perf_counter() - begin[1]}
    return (
        found
        | {"best_epoch": member.state.best_epoch}
        | {key: round(value, 1) for key, value in seconds.items()}
    )


def _losses(logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Negative log-likelihoods (W, L), in float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    logs = wide - np.log(np.exp(wide).sum(-1, keepdims=True))
    return -np.take_along_axis(logs, ids[:, 1:, None], -1)[..., 0]


def _windows(columns: dict[str, np.ndarray], length: int) -> Windows:
    """A window for each sequence."""
    count = len(next(iter(columns.values())))
    flat: dict[str, Any] = {
        name: values.reshape(-1).astype(np.float32 if values.dtype.kind == "f" else np.int8)
        for name, values in columns.items()
    }
    number = np.arange(count)
    return listed(
        flat,
        start=number * (length + 1),
        length=np.full(count, length + 1),
        seq_length=length,
        sequence_id=number,
    )


def _config(task: Task, columns: dict[str, np.ndarray], seed: int, epochs: int) -> tuple[TrainConfig, Schema]:
    kinds: dict[str, Any] = {
        name: "real" if values.dtype.kind == "f" else "categorical" for name, values in columns.items()
    }
    n_classes = {name: int(columns[name].max()) + 1 for name in columns if kinds[name] == "categorical"}
    inputs = [name for name in kinds if kinds[name] == "categorical"]
    reals = [name for name in kinds if kinds[name] == "real"]
    width = 64
    values = {
        "project_root": ".",
        "metadata_config_path": "none.json",
        "model_name": "learning",
        "input_columns": [*inputs, *reals],
        "target_columns": [task.target],
        "target_column_types": {task.target: kinds[task.target]},
        "seq_length": task.length,
        "inference_batch_size": 1,
        "export_generative_model": True,
        "export_embedding_model": False,
        "seed": seed,
        "model_spec": {
            "initial_embedding_dim": width,
            "feature_embedding_dims": dict.fromkeys(kinds, width // len(kinds)),
            "dim_model": width,
            "n_head": 4,
            "dim_feedforward": 2 * width,
            "num_layers": 2,
        },
        "training_spec": {
            "device": "cpu",
            "epochs": epochs,
            "save_interval_epochs": 1,
            "batch_size": 64,
            "learning_rate": task.rate,
            "criterion": {
                task.target: "CrossEntropyLoss" if kinds[task.target] == "categorical" else "MSELoss"
            },
            "optimizer": {"name": "AdamW"},
            "scheduler": {"name": "WarmupCosine", "warmup_ratio": 0.05},
            "scheduler_step_on": "batch",
            "log_interval": 1000,
        },
    }
    schema = Schema(
        n_classes=n_classes,
        categorical_inputs=tuple(inputs),
        real_inputs=tuple(reals),
        targets={task.target: kinds[task.target]},
        seq_length=task.length,
    )
    return validate(TrainConfig, values, "the learning task"), schema


def main() -> None:
    """Prints a row a run, and writes them all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = []
    print(f"{'task':8} {'seed':>4} {'value':>9} {'floor':>9} {'oracle':>9} {'error':>9} {'limit':>7}  cpu s")
    for name in arguments.only:
        for seed in range(arguments.seeds):
            task = TASKS[name]
            found = learn(task, seed)
            row = {"task": name, "seed": seed, **found, "limit": task.limit}
            rows.append(row | {"passed": found["error"] <= task.limit})
            print(
                f"{name:8} {seed:4} {found['value']:9.5f} {found['floor']:9.5f} {found['oracle']:9.5f} "
                f"{found['error']:9.5f} {task.limit:7.3f} {found['cpu_seconds']:6.0f} "
                f"{'' if rows[-1]['passed'] else 'FAILED'}",
                flush=True,
            )
    if arguments.out is not None:
        about = {
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "jax": jax.__version__,
            "cpu": platform.machine(),
        }
        arguments.out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
