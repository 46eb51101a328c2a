"""Draws architectures at random, exports each, and compares onnxruntime with JAX at several batch sizes.

    python -m tools.onnx_parity                      # 200 architectures, and 50 that magnify rounding
    python -m tools.onnx_parity --count 20 --magnified 0 --seed 7

Every architecture has random columns, sizes and parameters, and padded windows. Checked of each: onnx.checker
in full, the largest error relative to max(1, |value|), which may be 1e-5, and that the most probable class is
the same (unless two are equally probable up to that error). Those that fail are printed, and the exit code is
1 then. Parameters are initial ones that have moved by 0.1 in the mean, about twice as far as a hundred
updates at a learning rate of 0.01 move them.

Some models magnify rounding, and are drawn by themselves: vectors of one or two numbers, whose norm divides
by nearly 0 now and then, and parameters that have moved far, which make attention sharp. No 1e-5 can be asked
of those in float32. Where the two differ by more than that, the model is computed in float64 too, as it is
and several times with every operation rounded at random as float32 may (`tools/wide.py`). What rounding does
to a model at its worst position is a matter of chance, and onnxruntime, which adds up in sequence, rounds
about twice as much as JAX in the middle. So the graph may be four times as far from float64 as JAX or these
trials are; how many these are, and how far, is printed.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

import jax
import numpy as np
import onnx
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from seqjax.artifacts.card import ModelCard
from seqjax.artifacts.model_files import Forward, Params, forward_function, graph_feed, write_onnx
from seqjax.config.model import ModelSpec
from seqjax.config.schema import ColumnKind, Schema
from seqjax.interop.onnx_session import open_session
from seqjax.model import functional
from seqjax.windows.windows import Batch
from tools.wide import in_float64

TOLERANCE = 1e-5
FARTHER = 4
"""How many times as far from float64 a graph may be as JAX is, or as rounding at random is."""
TRIALS = 6
BATCHES = (1, 2, 7, 32, 257)
NARROW = 4
"""Vectors of fewer numbers than this magnify rounding."""
MOVED, MOVED_FAR = 0.1, 0.2
"""Standard deviation of what is added to initial parameters."""
NAMES = ("item", "price", "shop.id", "a b", "items", "valid_mask", "näme", "embedding")


class Case(NamedTuple):
    """A model to export."""

    schema: Schema
    spec: ModelSpec
    kind: str
    seed: int
    moved: float
    """Standard deviation of what is added to its initial parameters."""


class Errors(NamedTuple):
    """The largest over all outputs and batch sizes, relative to max(1, |value|)."""

    between: float
    """Between the graph and JAX."""
    of_jax: float = 0.0
    """Between JAX and float64, where that was computed."""
    of_graph: float = math.inf
    """Between the graph and float64, where that was computed."""
    of_rounding: float = 0.0
    """Between float64 and float64 that is rounded at random."""

    @property
    def is_rounding(self) -> bool:
        """Whether rounding explains it, of a model that magnifies that."""
        return self.between <= TOLERANCE or self.of_graph <= FARTHER * max(self.of_jax, self.of_rounding)


@st.composite
def cases(draw: st.DrawFn, *, magnified: bool) -> Case:
    """Architectures that the configuration allows.

    Args:
      draw: Hypothesis' own.
      magnified: Whether they may magnify rounding.
    """
    schema = draw(schemas())
    heads = draw(st.sampled_from([1, 2, 3, 4, 6]))
    widths = [width for width in (1, 2, 3, 4, 5, 6, 8, 16) if magnified or heads * width >= NARROW]
    width = draw(st.sampled_from(widths))
    rope = width % 2 == 0 and draw(st.booleans())
    dim = heads * width
    attention: Literal["mha", "mqa", "gqa"] = draw(st.sampled_from(("mha", "mqa", "gqa")))
    kv_heads = {"mha": None, "mqa": 1}.get(attention)
    if attention == "gqa":
        kv_heads = draw(st.sampled_from([n for n in range(1, heads + 1) if heads % n == 0]))
    count = len(schema.inputs)
    joint = dim < count or draw(st.booleans())
    total = count + draw(st.integers(0, 12)) if joint else dim
    spec = ModelSpec(
        initial_embedding_dim=total,
        joint_embedding_dim=dim if joint else None,
        feature_embedding_dims=_shared_out(schema.inputs, total),
        dim_model=dim,
        n_head=heads,
        n_kv_heads=kv_heads,
        dim_feedforward=draw(st.integers(4, 40)),
        num_layers=draw(st.integers(1, 4)),
        prediction_length=draw(st.integers(1, schema.seq_length)),
        activation_fn=draw(st.sampled_from(["swiglu", "gelu", "relu"])),
        normalization=draw(st.sampled_from(["rmsnorm", "layer_norm"])),
        positional_encoding="rope" if rope else "learned",
        attention_type=attention,
        norm_first=draw(st.booleans()),
        rope_theta=draw(st.sampled_from([100.0, 10000.0])),
        mask_padding=draw(st.booleans()),
    )
    kind = draw(st.sampled_from(["generative", "generative", "embedding"]))
    return Case(schema, spec, kind, draw(st.integers(0, 2**31)), MOVED_FAR if magnified else MOVED)


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    """Columns of every kind, among them targets that are no inputs."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    kinds: dict[str, ColumnKind] = {name: draw(st.sampled_from(["categorical", "real"])) for name in names}
    inputs = names[: draw(st.integers(1, len(names)))]
    targets = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    classes = {name: draw(st.integers(2, 40)) for name in names if kinds[name] == "categorical"}
    return Schema(
        n_classes=classes,
        categorical_inputs=tuple(name for name in inputs if kinds[name] == "categorical"),
        real_inputs=tuple(name for name in inputs if kinds[name] == "real"),
        targets={name: kinds[name] for name in targets},
        seq_length=draw(st.integers(1, 24)),
    )


def _shared_out(names: tuple[str, ...], total: int) -> dict[str, int]:
    """Widths that sum to `total`, the first column's the largest."""
    return {name: total - len(names) + 1 if index == 0 else 1 for index, name in enumerate(names)}


def largest_errors(case: Case, folder: Path) -> Errors:
    """Exports a model, checks the file and its classes, and compares what it computes.

    Args:
      case: The model.
      folder: Where to write it.

    Raises:
      AssertionError: A class differs, or the file is not valid.
    """
    rng = np.random.default_rng(case.seed)
    graphdef, params = functional.init(case.schema, case.spec, seed=case.seed)
    params = jax.tree.map(
        lambda leaf: leaf + rng.normal(0, case.moved, leaf.shape).astype(np.float32), params
    )
    card = ModelCard(
        schema=case.schema, model_spec=case.spec, id_maps={}, statistics={}, column_types={}
    ).of_kind("embedding" if case.kind == "embedding" else "generative")
    path = folder / "model.onnx"
    windows = draw_windows(case.schema, 3, rng)
    write_onnx(path, params=params, graphdef=graphdef, card=card, sample=windows)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    forward = forward_function(graphdef, card)
    feed = _feed(case.schema, card, draw_windows(case.schema, max(BATCHES), rng))
    found, expected = _by_graph(path, card, feed), _by_jax(forward, card, params, feed)
    errors = Errors(_largest(found, expected))
    if errors.between > TOLERANCE and case.moved == MOVED_FAR:
        exact, *moved = (
            dict(zip(card.outputs, in_float64(forward, params, *_narrow(feed), rounding=draws), strict=True))
            for draws in (None, *[rng] * TRIALS)
        )
        most = max(BATCHES)
        errors = errors._replace(
            of_jax=_largest({most: expected}, exact),
            of_graph=_largest(found, exact),
            of_rounding=max(_largest({most: values}, exact) for values in moved),
        )
    if case.kind != "embedding":
        for name, kind in case.schema.targets.items():
            if kind == "categorical":
                _check_classes(found[max(BATCHES)][name], expected[name], max(TOLERANCE, errors.between))
    return errors


def _by_graph(path: Path, card: ModelCard, feed: dict[str, np.ndarray]) -> dict[int, dict[str, np.ndarray]]:
    """What onnxruntime computes of the first rows, by their number and by target."""
    session, names = open_session(path), list(card.outputs.values())
    runs = {
        batch: session.run(names, {name: rows[:batch] for name, rows in feed.items()}) for batch in BATCHES
    }
    return {
        batch: dict(zip(card.outputs, map(np.asarray, values), strict=True)) for batch, values in runs.items()
    }


def _by_jax(
    forward: Forward, card: ModelCard, params: Params, feed: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What JAX computes, by target."""
    # Compiled for one call: quickly, not for speed.
    apply = jax.jit(forward, compiler_options={"xla_backend_optimization_level": 0})
    with jax.default_matmul_precision("highest"):
        values = apply(params, *_narrow(feed))
    return dict(zip(card.outputs, map(np.asarray, values), strict=True))


def _narrow(feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [values.astype(np.int32) if values.dtype == np.int64 else values for values in feed.values()]


def draw_windows(schema: Schema, count: int, rng: np.random.Generator) -> Batch:
    """Left-padded windows; the first is full."""
    slots = schema.seq_length + 1
    padding = rng.integers(0, slots, count).astype(np.int32)
    padding[0] = 0
    real = np.arange(slots) >= padding[:, None]
    columns = {
        name: np.where(real, rng.integers(0, schema.n_classes[name], real.shape), 0).astype(np.int32)
        if kind == "categorical"
        else np.where(real, rng.normal(size=real.shape), 0).astype(np.float32)
        for name, kind in schema.columns.items()
    }
    return Batch(columns, padding, padding)


def _feed(schema: Schema, card: ModelCard, windows: Batch) -> dict[str, np.ndarray]:
    inputs = {name: windows.columns[name][:, :-1] for name in schema.inputs}
    return graph_feed(card, inputs, np.arange(schema.seq_length) >= windows.padding[:, None])


def _largest(found: dict[int, dict[str, np.ndarray]], expected: dict[str, np.ndarray]) -> float:
    """The largest error of the first rows, by their number."""
    return max(
        _compared(values[name], expected[name][:batch])
        for batch, values in found.items()
        for name in expected
    )


def _compared(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape, (found.shape, expected.shape)
    assert np.isfinite(found).all()
    return float(np.max(np.abs(found - expected) / np.maximum(1, np.abs(expected)), initial=0))


def _check_classes(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    chosen = np.take_along_axis(expected, found.argmax(axis=-1)[..., None], axis=-1)[..., 0]
    assert (expected.max(axis=-1) - chosen <= tolerance).all(), "another class is the most probable one"


def compare(
    count: int, seed: int, report: Callable[[int, Errors], None], *, magnified: bool = False
) -> tuple[list[Errors], list[tuple[Errors, Case]]]:
    """Compares architectures.

    Args:
      count: How many.
      seed: Of the draws.
      report: Told of each: how many are done, and its errors.
      magnified: Whether to draw some that magnify rounding, of which less is asked.

    Returns:
      The errors of each, and those cases whose errors are too large.
    """
    errors: list[Errors] = []
    failed: list[tuple[Errors, Case]] = []

    @seeded(seed)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(case=cases(magnified=magnified))
    def check(case: Case) -> None:
        with TemporaryDirectory() as folder:
            errors.append(largest_errors(case, Path(folder)))
        jax.clear_caches()
        if not (errors[-1].is_rounding if magnified else errors[-1].between <= TOLERANCE):
            failed.append((errors[-1], case))
        report(len(errors), errors[-1])

    check()
    return errors, failed


def main() -> int:
    """Runs the comparison and returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200, help="architectures")
    parser.add_argument("--magnified", type=int, default=50, help="architectures that magnify rounding")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    options = parser.parse_args()
    counts = {False: options.count, True: options.magnified}
    return max(_tell(count, options.seed, magnified=magnified) for magnified, count in counts.items())


def _tell(count: int, seed: int, *, magnified: bool) -> int:
    """Compares architectures of one sort, and prints what came of it; the exit code."""
    if count == 0:
        return 0
    began = time.process_time()
    errors, failed = compare(
        count,
        seed,
        lambda number, found: print(
            f"\r{number} compared, last error {found.between:.1e}", end="", file=sys.stderr
        ),
        magnified=magnified,
    )
    between = [found.between for found in errors]
    within = sum(error <= TOLERANCE for error in between)
    print(
        f"\n{len(errors)} architectures{' that may magnify rounding' if magnified else ''} at batch sizes "
        f"{', '.join(map(str, BATCHES))}: classes equal, onnx.checker passed; "
        f"{time.process_time() - began:.0f} CPU seconds.\n"
        f"{within} within {TOLERANCE:.0e}: largest error {max(between):.1e}, median {np.median(between):.1e}."
    )
    for found in errors:
        if magnified and found.between > TOLERANCE:
            print(
                f"{found.between:.1e} between the graph and JAX: {found.of_graph:.1e} and {found.of_jax:.1e} "
                f"from float64, rounding at random {found.of_rounding:.1e}."
            )
    print(f"{len(failed)} differ by more than {'rounding' if magnified else f'{TOLERANCE:.0e}'}.")
    for found, case in failed:
        print(f"{found.between:.1e}: {case}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
