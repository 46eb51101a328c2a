"""A function that was written for float32, computed in float64: what its roundings are measured against.

The function is traced as it is, and the trace is run with every float32 in it, also those that it asks for by
name, as a float64. Constants that it computed while it was traced stay the numbers that they are.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call")


def in_float64(function: Callable[..., Sequence[Any]], *arrays: Any) -> list[np.ndarray]:  # noqa: ANN401
    """The results of a function, float64 where they would have been float32.

    Args:
      function: A pure function of trees of arrays.
      arrays: Its arguments.
    """
    trace = jax.make_jaxpr(function)(*arrays)
    with jax.enable_x64(True):
        leaves = [_widened(leaf) for leaf in jax.tree.leaves(arrays)]
        return [np.asarray(value) for value in _run(trace, leaves)]


def _run(trace: ClosedJaxpr, arguments: Sequence[Any]) -> list[Any]:
    jaxpr = trace.jaxpr
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, map(_widened, trace.consts), strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))

    def value(variable: Any) -> Any:  # noqa: ANN401
        return _widened(variable.val) if isinstance(variable, Literal) else values[variable]

    for equation in jaxpr.eqns:
        operands = [value(variable) for variable in equation.invars]
        if equation.primitive.name in CALLS:
            inner = next(part for part in equation.params.values() if isinstance(part, ClosedJaxpr))
            results = _run(inner, operands)
        else:
            results = equation.primitive.bind(*operands, **_wide_parameters(equation.params))
            results = results if equation.primitive.multiple_results else [results]
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
