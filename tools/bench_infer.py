"""Measures inference: windows, autoregression, the generation cache and start, on one core.

    python -m tools.bench_infer [--peer DIR] [--repeats 5] [--out docs/benchmarks/infer.json]

The model is the small one of `tools/bench_train.py`; its parameters are random, since speed does not depend
on them. Every measurement is a process of its own that does what the command line does, from its start to its
end, pinned to one core, with one thread. Its CPU seconds (user and system) are what is counted, and of the
repeats the median.

    process    items per CPU second of the whole process: starting Python, imports, reading the data, opening
               the model, computing, writing the results
    marginal   the same of what a larger job needs in addition: the difference of the items of two sizes, by
               the difference of their CPU seconds; what is done once a process does not count
    first      of seqjax in JAX: `process`, where nothing that was compiled lies on the disk yet

`--peer` names an environment that holds sequifier, whose `infer` command is then measured in the same run, in
the same way, on models of the same size that its `train` exported and on the same data. Without a peer only
seqjax is measured, and the file says so.

The generation cache is measured on a rotary model with windows of 256 items, trained for a few epochs on
sequences whose items depend on the last one and on what is frequent in their recent past: items per CPU
second of both forms, inside a process and with everything compiled, and the mean negative log-likelihood that
each gives to items that it has not seen.
"""

import argparse
import importlib.metadata
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from tools.bench_train import SHAPES, machine, training_config

CLASSES = {"kind": 22, "place": 9}
SIZE = "size"
BATCH = 128
PINNED = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}


class Case(NamedTuple):
    """What is inferred."""

    model: str
    """Which model: `mixed` has two categorical columns and a real one, `classes` the categorical ones."""
    sequences: int
    windows: int
    """Windows a sequence."""
    steps: int
    """How far the last window of each sequence is continued."""

    @property
    def items(self) -> int:
        """Items that are predicted."""
        return self.sequences * (self.windows + self.steps)

    @property
    def data(self) -> str:
        """The name of the data, which does not go by the steps."""
        return f"{self.model}-{self.sequences}-{self.windows}"


CASES = {
    "windows": Case("mixed", 65, 72, 0),
    "65 sequences x 50 steps": Case("classes", 65, 1, 50),
    "1 sequence x 400 steps": Case("classes", 1, 1, 400),
}
OTHERS = {
    "windows": Case("mixed", 65, 216, 0),
    "65 sequences x 50 steps": Case("classes", 65, 1, 200),
    "1 sequence x 400 steps": Case("classes", 1, 1, 1200),
}
"""The second size of each case, for the marginal rate."""
EXTENSIONS = ("onnx", "pt")
MODELS = {"mixed": (*CLASSES, SIZE), "classes": tuple(CLASSES)}

LONG = {"length": 256, "rows": 64, "steps": 256, "train": 384, "epochs": 6}
"""The generation cache: its window, sequences and steps, and windows to train on."""

PROGRAM = """
import sys
if "onnx" in sys.argv[1]:
    import onnxruntime
    session = onnxruntime.InferenceSession
    def one_thread(path, options=None, **rest):
        settings = options or onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        return session(path, settings, **rest)
    onnxruntime.InferenceSession = one_thread
sys.argv[1:] = ["infer", "--config-path", sys.argv[1]]
from {module} import main
sys.exit(main())
"""
MODULES = {"seqjax": "seqjax.cli", "sequifier": "sequifier.sequifier"}

START_PROGRAM = """
import time
import numpy as np
from pathlib import Path
from seqjax.inference.opening import open_engine
engine = open_engine(Path({path!r}), lambda kind: None)
columns = {{name: np.zeros((1, {length}), np.float32) for name in {columns!r}}}
engine.predict(columns, np.ones((1, {length}), np.bool_))
print(time.process_time())
"""


def train_config(model: str) -> dict[str, Any]:
    """The keys of `train.yaml` for a model of `MODELS`."""
    config = training_config(SHAPES["small"], 0.0)
    columns = list(MODELS[model])
    kinds = {name: "categorical" if name in CLASSES else "real" for name in columns}
    config |= {
        "model_name": model,
        "metadata_config_path": f"{model}.json",
        "input_columns": columns,
        "target_columns": columns,
        "target_column_types": kinds,
        "inference_batch_size": BATCH,
        "export_pt": True,
    }
    if SIZE not in columns:
        config["model_spec"] = {**config["model_spec"], "feature_embedding_dims": None}
    criterion = {name: config["training_spec"]["criterion"][name] for name in columns}
    run = {"epochs": 1, "continue_training": False, "criterion": criterion}
    config["training_spec"] = {**config["training_spec"], **run}
    return config


def infer_config(case: Case, extension: str) -> dict[str, Any]:
    """The keys of `infer.yaml` for a case, in either program."""
    length = SHAPES["small"]["length"]
    columns = list(MODELS[case.model])
    config = {
        "project_root": ".",
        "metadata_config_path": f"{case.model}.json",
        "model_path": f"models/sequifier-{case.model}-best-1.{extension}",
        "model_type": "generative",
        "training_config_path": f"{case.model}.yaml",
        "data_path": f"data/{case.data}.parquet",
        "read_format": "parquet",
        "input_columns": columns,
        "target_columns": columns,
        "target_column_types": train_config(case.model)["target_column_types"],
        "seq_length": length,
        "inference_batch_size": BATCH,
        "device": "cpu",
    }
    return config | ({"autoregression": True, "autoregression_extra_steps": case.steps} if case.steps else {})


def write_project(project: Path) -> None:
    """Data, metadata and configurations, for either program."""
    import numpy as np

    for folder in ("data", "models", "checkpoints", "logs"):
        (project / folder).mkdir()
    length, rng = SHAPES["small"]["length"], np.random.default_rng(0)
    for case in (*CASES.values(), *OTHERS.values()):
        size = case.sequences, case.windows
        _write_windows(project / f"data/{case.data}.parquet", rng, MODELS[case.model], length, size)
        for extension in EXTENSIONS:
            _config_path(project, case, extension).write_text(
                json.dumps(infer_config(case, extension)),  # JSON is YAML.
                encoding="utf-8",
            )
    for model, columns in MODELS.items():
        _write_windows(project / f"data/{model}-train.parquet", rng, columns, length, (1, BATCH))
        metadata = {
            "n_classes": CLASSES,
            "id_maps": {
                name: {f"v{value}": value for value in range(2, count)} for name, count in CLASSES.items()
            },
            "split_paths": [f"data/{model}-train.parquet"] * 3,
            "column_types": {
                **dict.fromkeys(CLASSES, "Int64"),
                **({SIZE: "Float64"} if SIZE in columns else {}),
            },
            "selected_columns_statistics": {SIZE: {"mean": 0.0, "std": 1.0}} if SIZE in columns else {},
        }
        (project / f"{model}.json").write_text(json.dumps(metadata), encoding="utf-8")
        (project / f"{model}.yaml").write_text(json.dumps(train_config(model)), encoding="utf-8")


def _write_windows(path: Path, rng: Any, columns: tuple[str, ...], length: int, size: Any) -> None:  # noqa: ANN401
    """Random windows in the documented long format; `size` is the sequences and the windows of each."""
    import numpy as np
    import polars as pl

    count, slots = size[0] * size[1], length + 1
    values = np.stack(
        [
            rng.integers(2, CLASSES[name], (count, slots)).astype(np.float64)
            if name in CLASSES
            else rng.normal(size=(count, slots))
            for name in columns
        ],
        axis=1,
    ).reshape(-1, slots)
    sequence, number = np.divmod(np.repeat(np.arange(count), len(columns)), size[1])
    table = {"sequenceId": sequence, "subsequenceId": number, "startItemPosition": number}
    table |= {"inputCol": list(columns) * count}
    table |= {str(slots - 1 - slot): values[:, slot] for slot in range(slots)}
    pl.DataFrame(table).write_parquet(path)


def write_models(project: Path) -> None:
    """Our model files, with random parameters."""
    import numpy as np

    from seqjax.artifacts.card import describe_run
    from seqjax.artifacts.layout import Layout
    from seqjax.artifacts.model_files import export_models
    from seqjax.config.base import validate
    from seqjax.config.resolve import load_metadata, resolve_schema
    from seqjax.config.train import TrainConfig
    from seqjax.model.functional import init
    from seqjax.windows.windows import Batch

    for model, columns in MODELS.items():
        config = validate(TrainConfig, train_config(model), "the benchmark")
        metadata = load_metadata(project / f"{model}.json")
        schema = resolve_schema(config, metadata)
        graphdef, params = init(schema, config.model_spec, seed=0)
        slots = (2, schema.seq_length + 1)
        kinds = schema.columns
        sample = {
            name: np.zeros(slots, np.float32 if kinds[name] == "real" else np.int32) for name in columns
        }
        export_models(
            Layout(project, model),
            params=params,
            graphdef=graphdef,
            card=describe_run(config, schema, metadata),
            config=config,
            which="best",
            epoch=1,
            sample=Batch(sample, *np.zeros((2, 2), np.int32)),
        )


def _config_path(project: Path, case: Case, extension: str) -> Path:
    return project / f"{case.data}-{case.steps}-{extension}.yaml"


def measure(python: Path, program: str, config: Path, cache: Path) -> float:
    """CPU seconds of a whole process that infers.

    Args:
      python: The interpreter.
      program: Whose command it runs, a key of `MODULES`.
      config: The configuration, in its project.
      cache: Where the process keeps what it keeps for the user.
    """
    before = _cpu_seconds()
    _output([str(python), "-c", PROGRAM.format(module=MODULES[program]), config.name], config.parent, cache)
    return _cpu_seconds() - before


def _cpu_seconds() -> float:
    """Of all processes that have been waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _no_card(kind: str) -> Any:  # noqa: ANN401
    raise ValueError(f"a {kind} model of ours describes itself")


def measure_start(project: Path) -> float:
    """CPU seconds from the start of a process to the first prediction of a graph."""
    config = infer_config(CASES["windows"], "onnx")
    program = START_PROGRAM.format(
        path=str(project / config["model_path"]), columns=config["input_columns"], length=config["seq_length"]
    )
    return float(_output([sys.executable, "-c", program]).splitlines()[-1])


def measure_cache(project: Path) -> dict[str, Any]:
    """Trains a rotary model in this process and compares both forms of generation."""
    from seqjax.runtime import keep_freed_memory

    keep_freed_memory()
    import numpy as np

    from seqjax.inference.generate import GenerationCache, generate
    from seqjax.inference.opening import open_engine
    from seqjax.inference.sample import Reader

    items = _long_sequences()
    model = _trained(project, items)
    engine = open_engine(model, _no_card)
    length, rows = LONG["length"], LONG["rows"]
    held_out = items[-rows:]
    feed = {"kind": held_out[:, :length]}, np.ones((rows, length), np.bool_)
    rates = {}
    forms: dict[GenerationCache, int] = {"exact": LONG["steps"] // 16, "rolling": LONG["steps"]}
    for cache, steps in forms.items():
        read = Reader({"kind": "categorical"}, sampled=["kind"])
        times = []
        for _ in range(4):
            begin = time.process_time()
            generate(
                engine, feed, {"kind": held_out[:, length]}, read, steps=steps, batch_size=rows, cache=cache
            )
            times.append(time.process_time() - begin)
        rates[cache] = round(rows * steps / statistics.median(times[1:]), 1)
    exact, rolling = (_likelihood(model, held_out, rolling=rolling) for rolling in (False, True))
    return {
        **LONG,
        "exact_items_per_cpu_second": rates["exact"],
        "rolling_items_per_cpu_second": rates["rolling"],
        "ratio": round(rates["rolling"] / rates["exact"], 1),
        "exact_nll": round(exact, 5),
        "rolling_nll": round(rolling, 5),
        "nll_difference": round(rolling - exact, 5),
    }


def _long_sequences() -> Any:  # noqa: ANN401
    """Ids (sequences, 2 L): half of the time a fixed follower, otherwise one of a drifting few favourites."""
    import numpy as np

    rng = np.random.default_rng(0)
    rows, slots, classes = LONG["train"] + LONG["rows"], 2 * LONG["length"], CLASSES["kind"] - 2
    follower = rng.permutation(classes)
    favourites = rng.integers(0, classes, (rows, 3))
    items = np.zeros((rows, slots), np.int32)
    for slot in range(slots):
        favourites = np.where(rng.random((rows, 3)) < 0.005, rng.integers(0, classes, (rows, 3)), favourites)
        favourite = favourites[np.arange(rows), rng.integers(0, 3, rows)]
        followed = rng.random(rows) < 0.5
        items[:, slot] = np.where(followed, follower[items[:, slot - 1]], favourite)
    return items + 2


def _trained(project: Path, items: Any) -> Path:  # noqa: ANN401
    """The model file of a short training on the first sequences."""
    import polars as pl

    from seqjax.api import train

    length = LONG["length"]
    shown = items[: LONG["train"], : length + 1]
    keys = {"sequenceId": range(len(shown)), "subsequenceId": 0, "startItemPosition": 0, "inputCol": "kind"}
    table = {str(length - slot): shown[:, slot].astype(float) for slot in range(length + 1)}
    pl.DataFrame(keys | table).write_parquet(project / "data/classes-train.parquet")
    config = train_config("classes")
    config |= {"project_root": str(project), "model_name": "long", "seq_length": length, "export_onnx": False}
    config |= {
        "input_columns": ["kind"],
        "target_columns": ["kind"],
        "target_column_types": {"kind": "categorical"},
    }
    config["model_spec"] = {**config["model_spec"], "positional_encoding": "rope"}
    config["training_spec"] = {
        **config["training_spec"],
        "epochs": LONG["epochs"],
        "batch_size": 16,
        "learning_rate": 3e-3,
        "criterion": {"kind": "CrossEntropyLoss"},
    }
    train(config)
    return project / f"models/sequifier-long-best-{LONG['epochs']}.pt"


def _likelihood(path: Path, items: Any, *, rolling: bool) -> float:  # noqa: ANN401
    """The mean negative log-likelihood of each true item behind a full window, in nats."""
    import jax
    import jax.numpy as jnp

    from seqjax.artifacts.card import ModelCard
    from seqjax.artifacts.model_files import read_pt
    from seqjax.interop.names import from_sequifier
    from seqjax.model.functional import abstract, merge

    model, length = read_pt(path), LONG["length"]
    assert isinstance(model.card, ModelCard)
    schema, spec = model.card.column_schema, model.card.model_spec
    graphdef, shapes = abstract(schema, spec)
    params = from_sequifier(model.parameters, shapes, schema)
    valid = jnp.ones((len(items), length), jnp.bool_)

    @jax.jit
    def nll(raw: Any, target: Any) -> Any:  # noqa: ANN401
        logs = jax.nn.log_softmax(raw["kind"][:, -1], axis=-1)
        return -jnp.take_along_axis(logs, target[:, None], axis=-1).mean()

    remember = jax.jit(lambda shown: merge(graphdef, params).remember({"kind": shown}, valid))
    proceed = jax.jit(lambda item, cache: merge(graphdef, params).proceed({"kind": item}, cache))
    call = jax.jit(lambda shown: merge(graphdef, params)({"kind": shown}, valid, last=1))
    losses = []
    _, cache = remember(items[:, :length])
    for at in range(length, items.shape[1] - 1):
        if rolling:
            raw, cache = proceed(items[:, at : at + 1], cache)
        else:
            raw = call(items[:, at - length + 1 : at + 1])
        losses.append(nll(raw, items[:, at + 1]))
    return float(jnp.stack(losses).mean())


def train_peer(peer: Path, project: Path) -> None:
    """The peer's model files: one epoch of one batch."""
    for model in MODELS:
        subprocess.run(
            [peer / "bin" / "sequifier", "train", "--config-path", f"{model}.yaml"],
            check=True,
            cwd=project,
            capture_output=True,
        )


def _output(words: list[str], folder: Path | None = None, cache: Path | None = None) -> str:
    """What a program prints."""
    done = subprocess.run(
        words,
        check=True,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={
            **os.environ,
            **PINNED,
            "PYTHONPATH": str(Path.cwd()),
            **({"XDG_CACHE_HOME": str(cache)} if cache else {}),
        },
    )
    return done.stdout


def _apart(*words: str) -> Any:  # noqa: ANN401
    return json.loads(
        _output([sys.executable, "-m", "tools.bench_infer", "--measure", *words]).splitlines()[-1]
    )


Way = tuple[str, str, str]
"""A case, a program and the extension of its model file."""


class Seconds(NamedTuple):
    """CPU seconds of each repeat."""

    case: list[float]
    other: list[float]
    """Of the case's second size."""
    first: list[float]
    """Of seqjax in JAX: with nothing on the disk."""


def _cases(arguments: argparse.Namespace, projects: Mapping[str, Path], caches: Path) -> list[dict[str, Any]]:
    pythons = {"seqjax": Path(sys.executable)}
    if arguments.peer:
        pythons["sequifier"] = arguments.peer / "bin" / "python"
    ways = [(name, program, end) for name in CASES for end in EXTENSIONS for program in pythons]
    found: dict[Way, Seconds] = {way: Seconds([], [], []) for way in ways}
    for repeat in range(arguments.repeats):
        for (name, program, extension), seconds in found.items():
            compiles = (program, extension) == ("seqjax", "pt")

            def run(case: Case, cache: str, at: str = program, end: str = extension) -> float:
                config = _config_path(projects[at], case, end)
                return measure(pythons[at], at, config, caches / cache)

            if compiles:
                seconds.first.append(run(CASES[name], f"{repeat}-{name}"))
            if compiles and repeat == 0:
                run(CASES[name], "kept")
                run(OTHERS[name], "kept")
            seconds.case.append(run(CASES[name], "kept"))
            seconds.other.append(run(OTHERS[name], "kept"))
        print(f"repeat {repeat + 1} of {arguments.repeats} is done", flush=True)
    return [_row(way, seconds) for way, seconds in found.items()]


def _row(way: Way, seconds: Seconds) -> dict[str, Any]:
    name, program, extension = way
    case, other = CASES[name], OTHERS[name]
    once, again = statistics.median(seconds.case), statistics.median(seconds.other)
    row = {
        "case": name,
        "program": program,
        "model": extension,
        "process": round(case.items / once, 1),
        "marginal": round((other.items - case.items) / (again - once), 1),
        **({"first": round(case.items / statistics.median(seconds.first), 1)} if seconds.first else {}),
    }
    rates = ", ".join(f"{key} {row[key]:,.0f}" for key in ("process", "marginal", "first") if key in row)
    print(f"{name}, {program} {extension}: {rates} items per CPU second", flush=True)
    return row | {
        "cpu_seconds": [round(value, 2) for value in seconds.case],
        "cpu_seconds_of_the_other_size": [round(value, 2) for value in seconds.other],
    }


def _ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """How many times faster than the peer."""
    figures = {(row["case"], row["program"], row["model"]): row for row in rows}
    compared = {
        "ONNX to its ONNX": ("onnx", "onnx"),
        "ONNX to its pt": ("onnx", "pt"),
        "JAX to its pt": ("pt", "pt"),
    }
    return {
        f"{case}, {rate}: {title}": round(
            figures[case, "seqjax", ours][rate] / figures[case, "sequifier", theirs][rate], 2
        )
        for case in CASES
        for rate in ("process", "marginal")
        for title, (ours, theirs) in compared.items()
    }


MEASURES: dict[str, Callable[..., Any]] = {"models": write_models, "cache": measure_cache}


def main() -> int:
    """Measures, prints a line a case, and writes the file; returns the exit status."""
    parser = argparse.ArgumentParser(description="Items per CPU second of inference.")
    parser.add_argument("--peer", type=Path, help="an environment that holds bin/sequifier")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/infer.json"))
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        what, project, *case = arguments.measure
        print(json.dumps(MEASURES[what](Path(project), *case)))
        return 0
    # Whatever is started from here on inherits it.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    before = machine()
    before["versions"]["onnxruntime"] = importlib.metadata.version("onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "ours"), Path(folder, "theirs")
        for project in (ours, theirs):
            project.mkdir()
            write_project(project)
        _apart("models", str(ours))
        if arguments.peer:
            train_peer(arguments.peer, theirs)
        rows = _cases(arguments, {"seqjax": ours, "sequifier": theirs}, Path(folder, "caches"))
        start = [measure_start(ours) for _ in range(arguments.repeats)]
        print(f"import to first prediction of a graph: {statistics.median(start):.2f} CPU seconds")
        cache = _apart("cache", str(ours))
    for key, value in cache.items():
        print(f"generation cache: {key} {value}")
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": before,
        "peer": "measured in the same run" if arguments.peer else "not measured: no environment was given",
        "other_sizes": {name: case.items for name, case in OTHERS.items()},
        "items_per_cpu_second": rows,
        "cpu_seconds_to_first_prediction": round(statistics.median(start), 3),
        "generation_cache": cache,
    }
    if arguments.peer:
        result["times_sequifier"] = _ratios(rows)
        for name, ratio in result["times_sequifier"].items():
            print(f"{name}: {ratio} times")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
