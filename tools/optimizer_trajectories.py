"""Writes how torch's and torch_optimizer's optimizers and schedules move: `tests/optim/trajectories.json`.

    python -m tools.optimizer_trajectories OUT.json

Run it where torch >= 2.9 is (for Muon), and then where torch_optimizer is: rows that the file has are kept,
and those that the environment can compute are added. Everything is float64, Muon's Newton-Schulz steps too,
which torch itself makes in bfloat16.
The problem is least squares in a matrix W and a vector b: |A W - B|^2 / 2 + |b - c|^2 / 2.
"""

import argparse
import importlib
import importlib.metadata
import json
import math
from pathlib import Path
from typing import Any

STEPS = 10
ROWS: list[tuple[str, dict[str, Any], float]] = [
    ("Adam", {"amsgrad": True}, 0.05),
    ("AdamW", {"amsgrad": True, "betas": [0.8, 0.9]}, 0.05),
    ("SGD", {"momentum": 0.8, "dampening": 0.3}, 0.05),
    ("SGD", {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1}, 0.05),
    ("RMSprop", {"centered": True, "momentum": 0.5, "weight_decay": 0.1}, 0.01),
    ("Adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.1}, 0.05),
    ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}, 0.05),
    ("RAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True, "betas": [0.9, 0.99]}, 0.05),
    ("Adafactor", {}, 0.01),
    ("Adafactor", {"weight_decay": 0.1, "d": 1.5}, 0.5),
    ("Muon", {}, 0.05),
    ("Muon", {"nesterov": False, "adjust_lr_fn": "match_rms_adamw", "weight_decay": 0.0}, 0.05),
    ("LARS", {"weight_decay": 0.1, "momentum": 0.9}, 0.5),
    ("LARS", {"weight_decay": 0.0, "momentum": 0.9, "dampening": 0.5}, 0.05),
    ("NovoGrad", {}, 0.05),
    ("NovoGrad", {"betas": [0.9, 0.5], "weight_decay": 0.1, "grad_averaging": True, "amsgrad": True}, 0.05),
    ("Yogi", {"weight_decay": 0.1}, 0.05),
    ("QHAdam", {"nus": [0.7, 1.0], "betas": [0.9, 0.99], "weight_decay": 0.1}, 0.05),
    ("QHAdam", {"nus": [0.8, 0.9], "weight_decay": 0.1, "decouple_weight_decay": True}, 0.05),
    ("QHM", {"momentum": 0.9, "nu": 0.7, "weight_decay": 0.1}, 0.05),
    ("QHM", {"momentum": 0.9, "weight_decay": 0.1, "weight_decay_type": "direct"}, 0.05),
    ("ASGD", {"lambd": 0.01, "weight_decay": 0.1}, 0.05),
    ("Rprop", {}, 0.05),
    ("Rprop", {"etas": [0.3, 1.5], "step_sizes": [0.01, 0.2]}, 0.1),
    ("DiffGrad", {"weight_decay": 0.1}, 0.05),
    ("MADGRAD", {"weight_decay": 0.1}, 0.05),
]


SCHEDULES: list[tuple[str, dict[str, Any]]] = [
    ("OneCycleLR", {"max_lr": 0.05, "total_steps": 20}),
    ("OneCycleLR", {"max_lr": 0.05, "total_steps": 20, "three_phase": True, "anneal_strategy": "linear"}),
    ("CyclicLR", {"base_lr": 0.001, "max_lr": 0.1, "step_size_up": 3, "step_size_down": 5}),
    ("CyclicLR", {"base_lr": 0.001, "max_lr": 0.1, "step_size_up": 4, "mode": "exp_range", "gamma": 0.9}),
    ("ReduceLROnPlateau", {"patience": 1}),
    ("ReduceLROnPlateau", {"patience": 0, "factor": 0.5, "cooldown": 2, "min_lr": 0.001}),
    ("ReduceLROnPlateau", {"patience": 2, "factor": 0.3, "threshold": 0.05, "threshold_mode": "abs"}),
    ("ReduceLROnPlateau", {"patience": 1, "mode": "max", "threshold": 0.01}),
]


def losses() -> list[float]:
    """Validation losses that fall, and then no longer do."""
    return [round(1 / (1 + min(step, 6)) + 0.05 * math.sin(2.1 * step), 4) for step in range(20)]


def problem() -> dict[str, list[Any]]:
    """A, B and c, and where W and b start: numbers without a pattern."""
    numbers = iter(round(math.sin(3.7 * index + 1.3), 3) for index in range(100))

    def matrix(rows: int, columns: int) -> list[list[float]]:
        return [[next(numbers) for _ in range(columns)] for _ in range(rows)]

    return {
        "A": matrix(4, 3),
        "B": matrix(4, 2),
        "c": matrix(1, 2)[0],
        "W": matrix(3, 2),
        "b": matrix(1, 2)[0],
    }


def trajectory(
    optimizer: type, arguments: dict[str, Any], rate: float, *, matrix_only: bool
) -> dict[str, Any]:
    """W and b after each step."""
    torch = importlib.import_module("torch")
    numbers = {name: torch.tensor(value, dtype=torch.float64) for name, value in problem().items()}
    weight, bias = (torch.nn.Parameter(numbers[name].clone()) for name in ("W", "b"))
    moved = [weight] if matrix_only else [weight, bias]
    tuples = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    running, found = optimizer(moved, lr=rate, **tuples), []
    for _ in range(STEPS):
        running.zero_grad()
        loss = (numbers["A"] @ weight - numbers["B"]).square().sum() / 2
        (loss + (bias - numbers["c"]).square().sum() / 2).backward()
        running.step()
        found.append({"W": weight.tolist()} | ({} if matrix_only else {"b": bias.tolist()}))
    return {"path": found}


def curve(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Learning rate and momentum at each step of torch's schedule; plateaus are told the loss after it."""
    torch = importlib.import_module("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01, momentum=0.5)
    schedule = getattr(torch.optim.lr_scheduler, name)(optimizer, **arguments)
    rates, momenta = [], []
    for loss in losses():
        rates.append(optimizer.param_groups[0]["lr"])
        momenta.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        if name == "ReduceLROnPlateau":
            schedule.step(loss)
        elif len(rates) < len(losses()):
            schedule.step()
    return {"name": name, "arguments": arguments, "rates": rates, "momenta": momenta}


def find(name: str) -> tuple[type, str] | None:
    """An optimizer by name, and the package and version it is from."""
    for package in ("torch.optim", "torch_optimizer"):
        try:
            module = importlib.import_module(package)
        except ImportError:
            continue
        if hasattr(module, name):
            root = importlib.import_module(package.split(".")[0])
            version = getattr(root, "__version__", "") or importlib.metadata.version(package)
            return getattr(module, name), f"{package} {version}"
    return None


def main() -> None:
    """Writes the rows that this environment can compute."""
    torch = importlib.import_module("torch")
    torch.Tensor.bfloat16 = torch.Tensor.clone
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    known = json.loads(out.read_text())["rows"] if out.exists() else []
    rows = []
    for name, arguments, rate in ROWS:
        row = {"name": name, "arguments": arguments, "learning_rate": rate}
        there = [old for old in known if all(old[key] == value for key, value in row.items())]
        optimizer = find(name)
        if not there and optimizer is not None:
            computed = trajectory(optimizer[0], arguments, rate, matrix_only=name == "Muon")
            there = [{**row, "origin": optimizer[1], **computed}]
        rows += there
    lines = ",\n".join(json.dumps(row) for row in rows)
    known_curves = json.loads(out.read_text())["schedules"] if out.exists() else []
    curves = known_curves or [curve(name, arguments) for name, arguments in SCHEDULES]
    curve_lines = ",\n".join(json.dumps(row) for row in curves)
    head = f'"origin": "tools/optimizer_trajectories.py",\n"problem": {json.dumps(problem())}'
    head += f',\n"losses": {losses()},\n"schedules": [\n{curve_lines}\n]'
    out.write_text(f'{{{head},\n"rows": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
