"""Normalisations in the form that onnxruntime recognises and computes in one go.

It looks for the square as a power of two and for scales and shifts with one axis. The exporter writes a
product of a value with itself, and the model keeps one axis for each of the activation's. Neither changes a
number.
"""

from typing import TYPE_CHECKING

from seqjax.interop.graph_names import free_name

if TYPE_CHECKING:
    import onnx


def make_norms_fusible(graph: "onnx.GraphProto") -> None:
    """Rewrites the squares and the factors of every normalisation in a graph."""
    if _squares_as_powers(graph):
        _flatten_factors(graph)


def _squares_as_powers(graph: "onnx.GraphProto") -> bool:
    """Writes x * x as x ** 2 where its mean is taken, and says whether there is any."""
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
    names = {value.name for value in [*graph.input, *graph.initializer]}
    names.update(name for node in graph.node for name in node.output)
    two = free_name("two", names)
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
        held = [name for name in node.input if name in constants]
        if node.op_type not in ("Mul", "Add") or len(held) != 1 or readers.count(held[0]) != 1:
            continue
        other = next(name for name in node.input if name != held[0])
        maker = makers[other].op_type if other in makers else None
        tensor = constants[held[0]]
        if (maker != "Div" and other not in scaled) or list(tensor.dims[:-1]) != [1] * (len(tensor.dims) - 1):
            continue
        del tensor.dims[:-1]
        scaled.update(node.output)
        for value in [value for value in graph.value_info if value.name == tensor.name]:
            graph.value_info.remove(value)
