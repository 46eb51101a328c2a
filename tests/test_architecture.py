"""The house rules, held by reading the source: who imports whom, what is imported where, sizes and words.

`violations(package)` reads every file of a package and returns one line a violation, `rule: file:line: what`.
It is run on seqjax, which must have none, and on packages with one planted fault each, which must be found.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "seqjax"

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
MAX_POSITIONAL_ARGUMENTS = 5

# What every layer that stands above them may import.
BASE = {"version", "errors", "stopping", "console", "config"}

# From the ground up: what a layer may import besides BASE, all of it named in rows before its own.
LAYERS: dict[str, set[str]] = {
    "version": set(),
    "errors": set(),
    "stopping": set(),
    "console": set(),
    "config": set(),
    "runtime": set(),
    "windows": set(),
    "reports": set(),
    "model": set(),
    # Both need what heads predict (`model/distributions.py`), which is numpy alone.
    "baselines": {"windows", "model"},
    "metrics": {"model"},
    "optim": set(),
    "interop": set(),
    # Sequifier's shards are torch files, which interop reads and writes.
    "data": {"interop", "windows"},
    "training": {"model", "optim", "baselines", "windows", "metrics", "runtime"},
    "sweep": set(),
    # An export is a model that is written down: it traces the model, inside the function that does it.
    "artifacts": {"interop", "model", "windows"},
    "inference": {"model", "data", "artifacts", "interop", "windows"},
    "evaluation": {"baselines", "data", "artifacts", "inference", "reports", "windows", "metrics", "model"},
    "commands": {
        "data",
        "model",
        "optim",
        "training",
        "sweep",
        "interop",
        "artifacts",
        "inference",
        "evaluation",
        "baselines",
        "reports",
        "runtime",
        "windows",
    },
    "command": set(),
    "options": {"command"},
    "api": {"commands", "inference", "evaluation"},
    "cli": {"command", "options", "runtime", "commands", "evaluation"},
    "__init__": {"api"},
    "__main__": {"cli"},
}
FLOORS = list(LAYERS)

JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "jax2onnx"}
TABLES = {"polars", "pyarrow", "grain"}
GRAPHS = {"onnx", "onnxruntime", "jax2onnx"}
HEAVY = JAX | TABLES | GRAPHS

# Third-party packages that a layer never imports, not in a function either.
NEVER: dict[str, set[str]] = {
    **dict.fromkeys(["version", "errors", "stopping", "console", "config", "runtime"], HEAVY),
    **dict.fromkeys(["command", "options", "api", "cli", "__init__", "__main__"], HEAVY),
    # Numpy alone; Grain is imported where batches are read ahead.
    "windows": (HEAVY - {"grain"}) | {"pydantic", "tyro", "rich", "yaml"},
    "data": JAX | GRAPHS,
    "evaluation": JAX | GRAPHS,
    "reports": HEAVY,
    "baselines": HEAVY | {"tyro", "rich", "yaml"},
    "metrics": HEAVY | {"tyro", "rich", "yaml"},
    # These must run where only jax, flax, optax, orbax, numpy, pydantic and jaxtyping are installed.
    **dict.fromkeys(["model", "optim", "training", "sweep"], TABLES | GRAPHS | {"tyro", "rich", "yaml"}),
}

# Layers that are imported inside functions only, so that help and config mistakes load none of them.
LAZY_LAYERS = {
    "commands": {"api", "cli", "__init__", "__main__"},
    "inference": {"api", "cli", "__init__", "__main__"},
    "evaluation": {"api", "cli", "__init__", "__main__"},
}

# Packages that are imported inside functions only, wherever they are used: slow, or missing on some machines.
LAZY_PACKAGES = {"grain", "jax2onnx", "onnx", "plotly", "rich", "tensorboardX"}

# Formats that run code when they are read.
PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "torch"}

# Besides cli.py: a search records why one of its runs failed, and goes on with the next.
CATCHES_ERRORS = {"commands/search_engines.py", "training/loop.py"}

# A docstring begins with a verb or with a noun of the trade.
OPENINGS = re.compile(r"(What|How|Whether|Where|Which|As|See)\b")
# The word of YAML, JSON and tables belongs where these are read or explained; in Python None is None.
SAYS_NULL = {"config", "cli", "options", "data", "evaluation"}

EXITS = {"exit", "quit", "sys.exit", "os._exit", "os.abort"}


@dataclass(frozen=True)
class Import:
    """One imported module: its dotted name, the line, and whether loading the file loads it."""

    module: str
    line: int
    lazy: bool


def violations(package: Path) -> list[str]:
    """Every broken rule in the files of a package."""
    found = []
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package)
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text, filename=str(path))
        layer = place.parts[0].removesuffix(".py")
        imports = list(_imports(tree, package.name))
        checks = [
            *_layering(layer, imports, package.name),
            *_packages(layer, imports),
            *_only_cli(layer, place, tree),
            *_package_files(place, tree),
            *_sizes(tree, text),
            *_pickles(tree),
            *_words(layer, tree),
        ]
        found += [f"{rule}: {place}:{line}: {what}" for rule, line, what in checks]
    return found


Finding = tuple[str, int, str]


def _imports(tree: ast.Module, package: str) -> Iterator[Import]:
    lazy = {id(node) for block in ast.walk(tree) if _is_lazy(block) for node in ast.walk(block)}
    for node in ast.walk(tree):
        late = id(node) in lazy
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            inside = [f"{module}.{alias.name}" for alias in node.names] if module == package else [module]
            yield from (Import(name, node.lineno, late) for name in inside)


def _is_lazy(node: ast.AST) -> bool:
    """Whether what the node holds is not run when its file is loaded."""
    typing_only = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
    return typing_only or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def _layering(layer: str, imports: list[Import], package: str) -> Iterator[Finding]:
    if layer not in LAYERS:
        yield "layer", 1, f"{layer} is not in the table of layers"
        return
    for item in imports:
        parts = item.module.split(".")
        if parts[0] != package:
            continue
        other = parts[1] if len(parts) > 1 and parts[1] in LAYERS else "__init__"
        if other == layer:
            continue
        if FLOORS.index(other) > FLOORS.index(layer):
            yield "layer", item.line, f"{layer} imports {item.module}, which stands above it"
        elif other not in LAYERS[layer] | BASE:
            yield "layer", item.line, f"{layer} imports {item.module}"
        elif not item.lazy and layer in LAZY_LAYERS.get(other, set()):
            yield "lazy", item.line, f"{layer} imports {item.module} outside a function"


def _packages(layer: str, imports: list[Import]) -> Iterator[Finding]:
    for item in imports:
        root = item.module.split(".")[0]
        if root in NEVER.get(layer, set()):
            yield "package", item.line, f"{layer} imports {root}"
        if root in LAZY_PACKAGES and not item.lazy:
            yield "lazy", item.line, f"{root} is imported outside a function"
        if root in PICKLES:
            yield "pickle", item.line, f"{root} is imported"


def _only_cli(layer: str, place: Path, tree: ast.Module) -> Iterator[Finding]:
    """Printing, deciding exit codes and catching SeqjaxError belong to cli.py."""
    if layer == "cli":
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
            yield "cli only", node.lineno, "prints"
        if isinstance(node, ast.Call) and ast.unparse(node.func) in EXITS and layer != "__main__":
            yield "cli only", node.lineno, "exits"
        if isinstance(node, ast.Raise) and node.exc and ast.unparse(node.exc).startswith("SystemExit"):
            yield "cli only", node.lineno, "exits"
        if isinstance(node, ast.ExceptHandler) and (
            node.type is None
            or ("SeqjaxError" in ast.unparse(node.type) and place.as_posix() not in CATCHES_ERRORS)
        ):
            yield "cli only", node.lineno, "catches SeqjaxError"


def _package_files(place: Path, tree: ast.Module) -> Iterator[Finding]:
    if place.name in {"utils.py", "helpers.py", "common.py", "misc.py"}:
        yield "name", 1, "a file is named after what it holds"
    if place.name == "__init__.py" and len(place.parts) > 1 and len(tree.body) > 1:
        yield "re-export", 1, "the __init__.py of a package holds its docstring alone"


def _sizes(tree: ast.Module, text: str) -> Iterator[Finding]:
    lines = len(text.splitlines())
    if lines >= MAX_FILE_LINES:
        yield "size", 1, f"{lines} lines (under {MAX_FILE_LINES})"
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length >= MAX_FUNCTION_LINES:
            yield "size", node.lineno, f"{node.name} has {length} lines (under {MAX_FUNCTION_LINES})"
        names = [argument.arg for argument in [*node.args.posonlyargs, *node.args.args]]
        count = len(names) - (names[:1] in (["self"], ["cls"]))
        if count > MAX_POSITIONAL_ARGUMENTS:
            yield "size", node.lineno, f"{node.name} has {count} positional arguments"


def _pickles(tree: ast.Module) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.keyword)
            and node.arg == "allow_pickle"
            and ast.unparse(node.value) != "False"
        ):
            yield "pickle", node.value.lineno, "allow_pickle"


def _words(layer: str, tree: ast.Module) -> Iterator[Finding]:
    for node in ast.walk(tree):
        # Docstrings of modules, classes, functions and attributes.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            text = str(node.value.value)
            opening = OPENINGS.match(text)
            if opening:
                yield "words", node.lineno, f"a docstring begins with {opening[0]}"
            if re.search(r"\bnull\b", text, re.IGNORECASE) and layer not in SAYS_NULL:
                yield "words", node.lineno, "a docstring says null rather than None"


def test_no_row_of_the_table_of_layers_looks_up():
    upward = [
        (layer, other)
        for layer, others in LAYERS.items()
        for other in others
        if FLOORS.index(other) >= FLOORS.index(layer)
    ]
    assert upward == []
    assert set(FLOORS[: len(BASE)]) == BASE


def test_seqjax_keeps_the_rules():
    assert violations(PACKAGE) == []


FAULTS = [
    ("layer", "data/sorting.py", "import seqjax.model.transformer"),
    ("layer", "data/sorting.py", "from seqjax import model"),
    ("layer", "model/attention.py", "def f():\n    from seqjax.windows.windows import Batch"),
    ("layer", "training/loop.py", "from seqjax.artifacts.layout import Layout"),
    ("layer", "artifacts/layout.py", "from seqjax.inference.engine import Engine"),
    ("layer", "optim/schedules.py", "from seqjax.model.layers import Norm"),
    ("layer", "config/train.py", "from seqjax.windows.windows import Batch"),
    ("layer", "commands/train.py", "from seqjax.cli import main"),
    ("layer", "artifacts/card.py", "import seqjax"),
    ("layer", "inference/engine.py", "from seqjax import __version__"),
    ("layer", "errors.py", "from seqjax.config.base import ConfigModel"),
    ("layer", "version.py", "def f():\n    from seqjax.errors import SeqjaxError"),
    ("layer", "newcomer/thing.py", "x = 1"),
    ("package", "config/train.py", "def f():\n    import jax.numpy as jnp"),
    ("package", "config/train.py", "from polars import DataFrame"),
    ("package", "data/sorting.py", "def f():\n    from flax import nnx"),
    ("package", "model/attention.py", "import polars"),
    ("package", "training/loop.py", "import pyarrow.ipc"),
    ("package", "optim/schedules.py", "def f():\n    import grain"),
    ("package", "cli.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import onnxruntime"),
    ("words", "optim/rule.py", 'def f():\n    """What an optimizer does."""'),
    ("words", "reports/page.py", 'class A:\n    def f(self):\n        """Whether it is shown."""'),
    ("words", "reports/page.py", 'def f():\n    """Returns a page; null without runs."""'),
    ("words", "api.py", 'x = 1\n"""Null is none."""'),
    ("lazy", "cli.py", "from seqjax.commands.train import train"),
    ("lazy", "interop/export.py", "import jax2onnx"),
    ("lazy", "interop/export.py", "class A:\n    import onnx"),
    ("pickle", "interop/files.py", "def f():\n    import pickle"),
    ("pickle", "interop/files.py", "import numpy as np\nx = np.load('a', allow_pickle=True)"),
    ("cli only", "data/sorting.py", "print('hello')"),
    ("cli only", "commands/train.py", "import sys\nsys.exit(1)"),
    ("cli only", "commands/train.py", "raise SystemExit(1)"),
    ("cli only", "commands/train.py", "try:\n    x = 1\nexcept (SeqjaxError, ValueError):\n    x = 2"),
    ("cli only", "commands/train.py", "try:\n    x = 1\nexcept:\n    x = 2"),
    ("name", "data/utils.py", "x = 1"),
    ("re-export", "data/__init__.py", "from seqjax.windows.windows import Batch as Batch"),
    ("size", "data/sorting.py", "x = 1\n" * MAX_FILE_LINES),
    ("size", "data/sorting.py", "def f():\n" + "    x = 1\n" * (MAX_FUNCTION_LINES - 1)),
    ("size", "data/sorting.py", "def f(a, b, c, d, e, f): ..."),
    ("size", "data/sorting.py", "class A:\n    def f(self, a, b, c, d, e, f): ..."),
]


@pytest.mark.parametrize(("rule", "place", "code"), FAULTS)
def test_a_planted_fault_is_found(tmp_path, rule, place, code):
    path = tmp_path / "seqjax" / place
    path.parent.mkdir(parents=True)
    path.write_text(f'"""A docstring."""\n{code}\n')
    found = violations(tmp_path / "seqjax")
    assert [line.split(":")[0] for line in found] == [rule], found


ALLOWED = [
    ("commands/train.py", "from seqjax.training.loop import fit\nfrom seqjax.windows.batches import batches"),
    (
        "training/loop.py",
        "import jax\nfrom seqjax.model.functional import init\nfrom seqjax.version import __version__",
    ),
    ("cli.py", "import sys\ntry:\n    print()\nexcept SeqjaxError:\n    sys.exit(1)"),
    ("cli.py", "def f():\n    from seqjax.commands.train import train"),
    ("interop/export.py", "def f():\n    import jax2onnx"),
    ("reports/page.py", 'def f():\n    """Asserts that nullable columns are None. What for: see there."""'),
    ("options.py", 'def f():\n    """Reads null as None."""'),
    ("config/load.py", "try:\n    x = 1\nexcept ConfigError:\n    x = 2"),
    ("commands/search_engines.py", "try:\n    x = 1\nexcept SeqjaxError:\n    x = 2"),
    ("data/sorting.py", "class A:\n    def f(self, a, b, c, d, e, *, g, h): ..."),
    ("data/sorting.py", "def f():\n" + "    x = 1\n" * (MAX_FUNCTION_LINES - 2)),
]


@pytest.mark.parametrize(("place", "code"), ALLOWED)
def test_what_the_rules_allow_is_not_reported(tmp_path, place, code):
    path = tmp_path / "seqjax" / place
    path.parent.mkdir(parents=True)
    path.write_text(f'"""A docstring."""\n{code}\n')
    assert violations(tmp_path / "seqjax") == []
