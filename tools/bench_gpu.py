"""Measures training on an accelerator: three sizes of model in bfloat16, beside a step written out by hand.

    python -m tools.bench_gpu [--peer DIR] [--models tiny small large] [--out docs/benchmarks/gpu.json]

For models of 0.1, 3 and 100 million parameters it prints and writes: windows per second of the training loop
as `seqjax train` runs it (its data resident on the device, its losses read), those of `tools.plain_step`,
whose batches wait on the device, their ratio, and the model FLOPs utilisation (MFU): forward and backward
take 6 FLOPs a parameter and token, and 12 L D a layer and token for attention (L the length, D the width;
nothing is taken off for causality), over the device's dense bfloat16 peak. Repeats alternate, the medians
count; compilation is never timed.

`--peer` names an environment that holds `bin/sequifier` and a torch that sees the accelerator: its `train` is
then measured in the same run, as `tools.bench_train` does. On a CPU the figures mean nothing; `--batches 2`
with `--models tiny` shows there that the program works.
"""

import argparse
import json
import os
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tools import bench_train

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"dim": 64, "layers": 2, "heads": 4, "feedforward": 128, "length": 48, "batch": 512},
    "small": {"dim": 256, "layers": 4, "heads": 8, "feedforward": 512, "length": 96, "batch": 256},
    "large": {"dim": 768, "layers": 12, "heads": 12, "feedforward": 2560, "length": 512, "batch": 32},
}
"""About 0.1, 3 and 100 million parameters."""

BATCHES = {"tiny": 200, "small": 100, "large": 30}
"""Batches of an epoch."""

PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12}
"""Dense bfloat16 FLOP/s by what the device calls itself, from the maker's data sheets."""


def measure_plain(shape: dict[str, int], batches: int, epochs: int) -> dict[str, float]:
    """Windows per second of the step written out by hand."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from tools.plain_step import Shape, build_step, init

    rng, slots = np.random.default_rng(0), (shape["batch"], shape["length"] + 1)
    data = [
        {
            **{
                name: jnp.asarray(rng.integers(2, count, slots), jnp.int32)
                for name, count in bench_train.N_CLASSES.items()
            },
            "size": jnp.asarray(rng.normal(size=slots), jnp.float32),
        }
        for _ in range(min(batches, 16))
    ]
    sizes = Shape(**shape)
    start, step = build_step(
        sizes, bench_train.N_CLASSES, "size", learning_rate=1e-3, dtype=jnp.dtype(jnp.bfloat16)
    )
    state = start(init(sizes, bench_train.N_CLASSES, 0))
    state, loss = step(state, data[0])
    loss.block_until_ready()
    begin = time.perf_counter()
    for index in range(batches * epochs):
        state, loss = step(state, data[index % len(data)])
    jax.block_until_ready(state)
    return {"per_second": batches * epochs * shape["batch"] / (time.perf_counter() - begin)}


def flops_per_window(shape: dict[str, int]) -> float:
    """Forward and backward FLOPs of one window, of the matrix products of the blocks and heads."""
    dim, width = shape["dim"], shape["feedforward"]
    heads = dim * (sum(bench_train.N_CLASSES.values()) + 1)
    parameters = shape["layers"] * (4 * dim**2 + 3 * dim * width) + heads
    attention = 12 * shape["layers"] * shape["length"] * dim
    return shape["length"] * (6 * parameters + attention)


def peak(device: str) -> float | None:
    """The device's dense bfloat16 FLOP/s, where it is known."""
    return next((flops for name, flops in PEAKS.items() if name in device), None)


def measure_model(name: str, arguments: argparse.Namespace, device: str) -> dict[str, Any]:
    """One row of the result."""
    shape, batches = SHAPES[name], arguments.batches or BATCHES[name]
    config = bench_train.training_config(shape, 0.0, "auto")
    found: dict[str, list[float]] = {"seqjax": [], "plain": []}
    for _ in range(arguments.repeats):
        ours = bench_train.measure(config, batches, arguments.epochs)
        found["seqjax"].append(ours["per_second"])
        found["plain"].append(measure_plain(shape, batches, arguments.epochs)["per_second"])
        if arguments.peer:
            peer = bench_train.measure_peer(
                arguments.peer,
                bench_train.training_config(shape, 0.0, "cuda"),
                batches=batches,
                cores=os.sched_getaffinity(0),
                epochs=arguments.epochs,
            )
            found.setdefault("sequifier", []).append(peer["per_second"])
    medians = {program: statistics.median(values) for program, values in found.items()}
    most = peak(device)
    row: dict[str, Any] = {"model": name, "shape": shape, "windows_per_second": medians, "repeats": found}
    row["ratio_to_plain"] = medians["seqjax"] / medians["plain"]
    for program in ("seqjax", "plain"):
        used = medians[program] * flops_per_window(shape)
        row[f"mfu_{program}"] = used / most if most else None
    if "sequifier" in medians:
        row["ratio_to_sequifier"] = medians["seqjax"] / medians["sequifier"]
    return row


def described(row: dict[str, Any]) -> str:
    """A row as a line."""
    speeds = ", ".join(f"{name} {speed:,.0f}" for name, speed in row["windows_per_second"].items())
    mfu = "unknown here" if row["mfu_seqjax"] is None else f"{row['mfu_seqjax']:.1%}"
    return f"{row['model']}: {speeds} windows/s; {row['ratio_to_plain']:.2f} x the plain step; MFU {mfu}"


def main() -> int:
    """Measures, prints a line a model, and writes the file; returns the exit status."""
    import jax

    parser = argparse.ArgumentParser(description="Windows per second of training on an accelerator.")
    parser.add_argument("--peer", type=Path, help="an environment that holds bin/sequifier")
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--batches", type=int, help="batches of an epoch, where not the usual number")
    parser.add_argument("--epochs", type=int, default=2, help="timed epochs of a measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/gpu.json"))
    arguments = parser.parse_args()
    device = jax.devices()[0]
    rows = []
    for name in arguments.models:
        rows.append(measure_model(name, arguments, device.device_kind))
        print(described(rows[-1]), flush=True)
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "device": device.device_kind,
        "machine": bench_train.machine(),
        "results": rows,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
