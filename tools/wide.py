"""A function that was written for float32, computed in float64: what its roundings are measured against.

The function is traced as it is, and the trace is run with every float32 in it, also those that it asks for by
name, as a float64. Constants that it computed while it was traced stay the numbers that they are.

How far float32 may be from that is found by doing it again with the result of every operation moved at
random by up to one rounding (Monte Carlo arithmetic): whatever computes in float32 rounds in such places,
each in its own way.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

ROUNDING = 2.0**-24
"""The largest relative error of a result in float32."""
EXACT = (
    *(
        "broadcast_in_dim",
        "concatenate",
        "convert_element_type",
        "copy",
        "dynamic_slice",
        "eq",
        "expand_dims",
    ),
    *("gather", "ge", "gt", "iota", "le", "lt", "max", "min", "ne", "neg", "pad", "reduce_max", "reduce_min"),
    *("reshape", "rev", "select_n", "slice", "split", "squeeze", "stop_gradient", "transpose"),
)
"""Operations that do not round."""
SUMS = ("dot_general", "reduce_sum", "cumsum")
"""Operations that round inside of a sum, whose result may be far smaller than what is summed."""
CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call")


def in_float64(
    function: Callable[..., Sequence[Any]],
    *arrays: Any,  # noqa: ANN401
    rounding: np.random.Generator | None = None,
) -> list[np.ndarray]:
    """The results of a function, float64 where they would have been float32.

    Args:
      function: A pure function of trees of arrays.
      arrays: Its arguments.
      rounding: Draws how far each operation's result is moved; null moves none.
    """
    trace = jax.make_jaxpr(function)(*arrays)
    with jax.enable_x64(True):
        leaves = [_widened(leaf) for leaf in jax.tree.leaves(arrays)]
        return [np.asarray(value) for value in _run(trace, leaves, rounding)]


def _run(trace: ClosedJaxpr, arguments: Sequence[Any], rounding: np.random.Generator | None) -> list[Any]:
    jaxpr = trace.jaxpr
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, map(_widened, trace.consts), strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))

    def value(variable: Any) -> Any:  # noqa: ANN401
        return _widened(variable.val) if isinstance(variable, Literal) else values[variable]

    for equation in jaxpr.eqns:
        operands = [value(variable) for variable in equation.invars]
        if equation.primitive.name in CALLS:
            inner = next(part for part in equation.params.values() if isinstance(part, ClosedJaxpr))
            results = _run(inner, operands, rounding)
        else:
            if rounding is not None and equation.primitive.name in SUMS:
                operands = [_moved(operand, rounding) for operand in operands]
            results = equation.primitive.bind(*operands, **_wide_parameters(equation.params))
            results = results if equation.primitive.multiple_results else [results]
            if rounding is not None and equation.primitive.name not in EXACT:
                results = [_moved(result, rounding) for result in results]
        values.update(zip(equation.outvars, results, strict=True))
    return [value(variable) for variable in jaxpr.outvars]


def _wide_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: np.dtype(np.float64) if isinstance(part, np.dtype | type) and part == np.float32 else part
        for key, part in parameters.items()
    }


def _widened(value: Any) -> jax.Array:  # noqa: ANN401
    array = jnp.asarray(value)
    return array.astype(jnp.float64) if array.dtype == jnp.float32 else array


def _moved(value: jax.Array, rounding: np.random.Generator) -> jax.Array:
    if value.dtype != jnp.float64:
        return value
    return value * (1 + ROUNDING * rounding.uniform(-1, 1, value.shape))
