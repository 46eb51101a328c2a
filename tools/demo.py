"""`make demo`: the whole pipeline on a small table whose best possible loss is known.

Runs the installed `seqjax` as a user would, in a new project: make, preprocess, train, infer, with the
configurations of `configs/recipes/demo/`. Then it compares the validation loss that training logged, and
those of the baselines that training logged beside it, with the optimum on the very same windows.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from seqjax.config.metadata import Metadata
from seqjax.data.columns import denormalise
from seqjax.data.formats import load_windows
from seqjax.windows.windows import newest, target_mask
from tools import demo_data

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "configs" / "recipes" / "demo"
COMMAND = Path(sys.executable).with_name("seqjax")
COLUMNS = ("event", "level")


class Score(NamedTuple):
    """A row of the final table."""

    name: str
    losses: dict[str, float]
    """Cross entropy of `event` in nats, squared error of `level` in standard deviations squared."""

    @property
    def total(self) -> float:
        """What training minimises: the sum over the columns."""
        return sum(self.losses.values())


class StepError(Exception):
    """A command of the demo failed; its own message is above."""


def main() -> int:
    """Runs the demo and returns the exit status."""
    parser = argparse.ArgumentParser(description="Train on a table whose best possible loss is known.")
    parser.add_argument(
        "--project", type=Path, default=ROOT / "demo", help="folder to create; replaced if it is a demo"
    )
    parser.add_argument("--sequences", type=int, default=demo_data.SEQUENCES, help="sequences of the table")
    parser.add_argument(
        "--train", nargs=argparse.REMAINDER, default=[], help="further arguments of seqjax train"
    )
    arguments = parser.parse_args()
    console = Console(soft_wrap=True)
    began = time.monotonic()
    try:
        process = create_project(arguments.project, arguments.sequences)
        for words in (["preprocess"], ["train", *arguments.train], ["infer"]):
            seqjax(words, arguments.project)
        scores = read_scores(arguments.project, process)
    except StepError as error:
        console.print(f"The demo stopped: {error}", style="red", highlight=False)
        return 1
    console.print()
    console.print(comparison(scores))
    console.print(closing(arguments.project, time.monotonic() - began), highlight=False)
    return 0


def create_project(project: Path, sequences: int) -> demo_data.Process:
    """A new project with the demo's table and configurations; returns what the table is drawn from."""
    marker = project / "data" / "demo.csv"
    if marker.is_file():
        shutil.rmtree(project)
    elif project.exists():
        raise StepError(f"{project} is there already, and is no demo. Move it away, or use --project.")
    project.parent.mkdir(parents=True, exist_ok=True)
    seqjax(["make", project.name], project.parent)
    process = demo_data.make_process()
    demo_data.write_csv(marker, *demo_data.sample(process, sequences, demo_data.ITEMS))
    for config in sorted(RECIPE.glob("*.yaml")):
        shutil.copy(config, project / "configs" / config.name)
    return process


def seqjax(words: list[str], folder: Path) -> None:
    """Runs the installed command in a folder, its output going where ours goes."""
    print(f"\n$ seqjax {' '.join(words)}", flush=True)
    try:
        subprocess.run([COMMAND, *words], cwd=folder, check=True)
    except FileNotFoundError:
        raise StepError(f"{COMMAND} is not installed; run it with `make demo`.") from None
    except subprocess.CalledProcessError as error:
        raise StepError(f"`seqjax {' '.join(words)}` ended with exit status {error.returncode}.") from None


def read_scores(project: Path, process: demo_data.Process) -> list[Score]:
    """The best model and the baselines from the training log, then the optimum on the same windows."""
    log = project / "logs" / "sequifier-demo-rank0.jsonl"
    records = [json.loads(line) for line in log.read_text().splitlines()]
    validations = [record for record in records if record["event"] == "validation"]
    model = score("seqjax", min(validations, key=lambda record: record["loss"]))
    (found,) = (record for record in records if record["event"] == "baselines")
    baselines = [score(name, values) for name, values in found.items() if isinstance(values, dict)]
    # A baseline may be of one column alone; the best of each column are a row by themselves.
    whole = [row for row in baselines if len(row.losses) == len(COLUMNS)]
    return [model, *whole, optimum(project, process)]


def score(name: str, values: dict[str, Any]) -> Score:
    """A row from the losses of one record."""
    losses = values["losses"]
    return Score(name, {column: losses[column]["loss"] for column in COLUMNS if column in losses})


def optimum(project: Path, process: demo_data.Process) -> Score:
    """The losses of the process itself, on the targets of the validation windows that preprocess wrote."""
    metadata = Metadata(**json.loads((project / "configs" / "metadata_configs" / "demo.json").read_text()))
    windows = load_windows(
        project / metadata.split_paths[1],
        metadata.write_format or "parquet",
        column_kinds={name: metadata.kind(name) for name in COLUMNS},
        padding=metadata.padding,
    )
    batch = newest(windows.gather(np.arange(len(windows))), 1)  # The items that runs are compared by.
    names = {number: name for name, number in metadata.id_maps["event"].items()}
    codes = np.array(
        [demo_data.EVENTS.index(names[i]) if i in names else 0 for i in range(metadata.n_classes["event"])]
    )
    statistics = metadata.selected_columns_statistics["level"]
    losses = demo_data.optimal_losses(
        process, codes[batch.columns["event"]], denormalise(batch.columns["level"], statistics), batch.padding
    )
    event, level = (
        float(values[target_mask(batch, name)].mean())
        for name, values in zip(COLUMNS, (losses.cross_entropy, losses.squared_error), strict=True)
    )
    return Score("best possible", {"event": event, "level": level / statistics.unit**2})


def comparison(scores: list[Score]) -> Table:
    """The table of losses; the last row is the optimum that the others are measured against."""
    best = scores[-1].total
    table = Table(
        title="Loss on the validation windows, and its excess over the best possible", title_justify="left"
    )
    table.add_column("")
    for heading in ("event (nats)", "level (std²)", "total", "excess"):
        table.add_column(heading, justify="right")
    for score in scores:
        numbers = [f"{score.losses[name]:.4f}" for name in COLUMNS]
        excess = "" if score is scores[-1] else f"{100 * (score.total / best - 1):.2f} %"
        table.add_row(score.name, *numbers, f"{score.total:.4f}", excess)
    return table


def closing(project: Path, seconds: float) -> str:
    """Where everything is, and what to do next."""
    found = {
        "model": sorted((project / "models").glob("sequifier-demo-best-*.onnx")),
        "predictions": sorted((project / "outputs" / "predictions").glob("*")),
        "log": sorted((project / "logs").glob("*-3.txt")),
    }
    lines = [f"{name + ':':<13}{path}" for name, paths in found.items() for path in paths]
    return "\n".join(
        [
            "",
            *lines,
            f"time:        {seconds:.0f} s",
            "",
            "With your own csv (columns sequenceId, itemPosition and yours), in an empty folder:",
            f"  {COMMAND} make mine && cp your.csv mine/data/ && cd mine",
            "  fill in what says PLEASE FILL in configs/*.yaml (the demo's own are in demo/configs/)",
            f"  {COMMAND} preprocess && {COMMAND} train && {COMMAND} infer",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
