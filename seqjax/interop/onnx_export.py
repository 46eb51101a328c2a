"""From a pure JAX function to one ONNX file that describes itself.

jax2onnx lowers the function; what it leaves open is settled on the graph it returns. Ids are int64 outside,
as every consumer has them, and int32 inside: tracing with 64 bits would turn Python numbers into doubles.
Public names may be any text, so values inside the graph give way where they have the same name.

Normalisations are given the form that onnxruntime recognises and computes in one go: it looks for the square
as a power of two and for scales and shifts with one axis, where the exporter writes a product of a value with
itself, and the model keeps one axis for each of the activation's. Neither changes a number.
"""

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from seqjax.config.names import Names

if TYPE_CHECKING:
    import jax
    import onnx

OPSET = 18  # Read by onnxruntime 1.16 and later; the newer native attention operators need 1.23.
BATCH = "batch"
LARGEST_FILE = 2**31 - 2**27
"""Bytes of parameters in the file itself; protocol buffers end at 2 GiB, of which the graph needs some."""
_NOISY_LOGGERS = ("jax2onnx", "onnx_ir", "onnxscript", "absl")


class GraphInput(NamedTuple):
    """One (batch, seq_length) input of a graph: its public name, any text, and its dtype."""

    name: str
    dtype: Literal["int64", "float32", "bool"]


class LiveDropout(NamedTuple):
    """An optional float32 input of a graph: the probability with which it drops; `rate` unless it is fed."""

    name: str
    rate: float


def export_onnx(
    path: Path,
    forward: Callable[..., "Sequence[jax.Array]"],
    *,
    inputs: Sequence[GraphInput],
    outputs: Sequence[str],
    seq_length: int,
    description: Mapping[str, str],
    dropout: LiveDropout | None = None,
) -> None:
    """Writes `forward` as an ONNX file with a dynamic batch.

    Parameters that are too large for one file are external data, in a file whose name has `.data` after it.

    Args:
      path: The file to create.
      forward: A pure function of one traced array an input, in order, each (batch, seq_length). It gives one
        float32 array an output, in order, the batch first; its parameters become constants of the graph.
      inputs: The graph's inputs.
      outputs: Names of the graph's outputs.
      seq_length: Length of every input.
      description: Metadata entries of the file.
      dropout: Makes `drop_live` drop; None where it is not used.
    """
    import onnx

    model = _lower(forward, inputs, seq_length)
    _rename(model.graph, [item.name for item in inputs], outputs)
    _widen_ids(model.graph, inputs)
    if _squares_as_powers(model.graph):
        _flatten_factors(model.graph)
    if dropout is not None:
        _enliven(model.graph, dropout)
    for key, value in description.items():
        model.metadata_props.add(key=key, value=value)
    data = external_data(path)
    options = {"save_as_external_data": True, "location": data.name, "convert_attribute": False}
    onnx.save_model(model, path, **(options if _parameter_bytes(model.graph) > LARGEST_FILE else {}))
    if data.exists():
        data.chmod(path.stat().st_mode)  # Made for its owner alone.
    onnx.checker.check_model(str(path), full_check=True)


def external_data(path: Path) -> Path:
    """The file of a model's external data: its parameters, if they are too large for the file itself."""
    return path.with_name(f"{path.name}.data")


def drop_live(x: "jax.Array") -> "jax.Array":
    """The `Drop` of a function to export: an ONNX Dropout node, which `export_onnx` replaces."""
    from flax import nnx

    return nnx.Dropout(0.5, deterministic=False, rngs=nnx.Rngs(0))(x)


def _parameter_bytes(graph: "onnx.GraphProto") -> int:
    from onnx import helper

    return sum(
        math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for tensor in graph.initializer
    )


def _lower(
    forward: Callable[..., "Sequence[jax.Array]"], inputs: Sequence[GraphInput], seq_length: int
) -> "onnx.ModelProto":
    import jax
    from jax2onnx import to_onnx

    traced = {"int64": "int32"}
    shapes = [
        jax.ShapeDtypeStruct((BATCH, seq_length), traced.get(item.dtype, item.dtype)) for item in inputs
    ]
    with _quiet():
        return to_onnx(
            forward,
            shapes,
            model_name="seqjax",
            opset=OPSET,
            return_mode="proto",
            normalization_mode="prefer_native",
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences warnings and log lines of the exporter."""
    loggers = [logging.getLogger(name) for name in _NOISY_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _rename(graph: "onnx.GraphProto", inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Gives the graph's ends their public names; a value inside that has one of them gets underscores."""
    ends = dict(
        zip([value.name for value in [*graph.input, *graph.output]], [*inputs, *outputs], strict=True)
    )
    public = set(ends.values())
    inner = {value.name for value in graph.initializer} | {
        name for node in graph.node for name in node.output
    }
    names, others = dict(ends), Names(public | (inner - ends.keys()))
    for name in sorted((inner - ends.keys()) & public):
        names[name] = others.free(name)
    for value in [*graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def _widen_ids(graph: "onnx.GraphProto", inputs: Sequence[GraphInput]) -> None:
    """Makes the int64 inputs int64, each cast to the int32 that the graph was traced with."""
    from onnx import TensorProto, helper

    names, casts = _unused_names(graph), []
    for value, item in zip(graph.input, inputs, strict=True):
        if item.dtype != "int64":
            continue
        value.type.tensor_type.elem_type = TensorProto.INT64
        narrow = names.free(f"{item.name}_int32")
        for node in graph.node:
            node.input[:] = [narrow if name == item.name else name for name in node.input]
        casts.append(
            helper.make_node("Cast", [item.name], [narrow], name=f"cast_{narrow}", to=TensorProto.INT32)
        )
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _enliven(graph: "onnx.GraphProto", dropout: LiveDropout) -> None:
    """Replaces Dropout nodes, which onnxruntime removes, by random masks, which it keeps.

    An element is kept where a uniform number is at most 1 - rate, so a rate of 0 keeps all.
    """
    from onnx import TensorProto, helper

    names = _unused_names(graph)
    names.free(dropout.name)
    named = names.free
    one, zero, keep = named("one"), named("zero"), named("keep")
    for name, value in ((one, 1.0), (zero, 0.0), (dropout.name, dropout.rate)):
        graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, [], [value]))
    # An initializer that is an input too is a default value.
    graph.input.append(helper.make_tensor_value_info(dropout.name, TensorProto.FLOAT, []))
    nodes = [helper.make_node("Sub", [one, dropout.name], [keep], name=named("keep_node"))]
    for node in graph.node:
        if node.op_type != "Dropout":
            nodes.append(node)
            continue
        x, y = node.input[0], node.output[0]
        uniform, kept, scaled = named("uniform"), named("kept"), named("scaled")
        nodes += [
            helper.make_node(
                "RandomUniformLike", [x], [uniform], name=named("random"), dtype=TensorProto.FLOAT
            ),
            helper.make_node("LessOrEqual", [uniform, keep], [kept], name=named("mask")),
            helper.make_node("Div", [x, keep], [scaled], name=named("scale")),
            helper.make_node("Where", [kept, scaled, zero], [y], name=named("drop")),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def _squares_as_powers(graph: "onnx.GraphProto") -> bool:
    """Writes x * x as x ** 2 where its mean is taken, and returns True if there is any."""
    import numpy as np
    from onnx import numpy_helper

    averaged = {node.input[0] for node in graph.node if node.op_type == "ReduceMean"}
    squares = [
        node
        for node in graph.node
        if node.op_type == "Mul" and node.input[0] == node.input[1] and node.output[0] in averaged
    ]
    if not squares:
        return False
    two = _unused_names(graph).free("two")
    graph.initializer.append(numpy_helper.from_array(np.array(2, np.float32), two))
    for node in squares:
        node.op_type = "Pow"
        node.input[1] = two
    return True


def _flatten_factors(graph: "onnx.GraphProto") -> None:
    """Gives the scale behind each division, and the shift behind that, one axis."""
    makers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers = [name for node in graph.node for name in node.input]
    scaled: set[str] = set()
    for node in graph.node:
        factors = [name for name in node.input if name in constants]
        if node.op_type not in ("Mul", "Add") or len(factors) != 1 or readers.count(factors[0]) != 1:
            continue
        other = next(name for name in node.input if name != factors[0])
        maker = makers[other].op_type if other in makers else None
        tensor = constants[factors[0]]
        if (maker != "Div" and other not in scaled) or list(tensor.dims[:-1]) != [1] * (len(tensor.dims) - 1):
            continue
        del tensor.dims[:-1]
        scaled.update(node.output)
        for value in [value for value in graph.value_info if value.name == tensor.name]:
            graph.value_info.remove(value)


def _unused_names(graph: "onnx.GraphProto") -> Names:
    """Names that no value of a graph has."""
    values = [value.name for value in [*graph.input, *graph.initializer]]
    return Names([*values, *(name for node in graph.node for name in (*node.input, *node.output))])
