"""Autoregression inside one compiled function: a scan over steps, for all rows at once.

A state goes from step to step. The exact form keeps the newest L items and computes their window again at
every step. The rolling form keeps what the layers remember (`model/mixer.py`), and
computes one position a step. Either way an item is predicted, read, and becomes the
newest one, without leaving the device. Rows may be shared among devices, each of which continues its own.
"""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Shaped

from seqjax.inference.engine import Columns
from seqjax.inference.sample import Reading, Readout, widened

if TYPE_CHECKING:
    import jax
    from jax.sharding import NamedSharding

    from seqjax.model.functional import GraphDef
    from seqjax.model.transformer import Transformer

LARGEST_KEPT = 2**24
"""Numbers of kept distributions that one dispatch may return."""
MOST_STEPS = 64
"""Steps of one dispatch, so that progress is seen."""


class State(NamedTuple):
    """What B rows carry from step to step, on the device."""

    newest: dict[str, Any]
    """Each input column: the newest L items (B, L), or the newest one (B, 1) beside a cache."""
    memory: Any
    """Which of the L hold a real item, bool (B, L); or a `Cache`."""


class Scan:
    """A model that continues windows, compiled for each number of rows and steps that it meets."""

    def __init__(
        self,
        graphdef: "GraphDef",
        params: Mapping[str, Any],
        reading: Reading,
        *,
        rolling: bool,
        by_row: "NamedSharding",
    ) -> None:
        """Prepares the compiled functions.

        Args:
          graphdef: What `params` belong to.
          params: Parameters, on each device.
          reading: What is read at each step; its values are fed back.
          rolling: Whether keys and values are kept, rather than each window computed again.
          by_row: How rows are shared among the devices.
        """
        import jax

        self._params = params
        self._reading = reading
        self._by_row = by_row
        self._begin = jax.jit(partial(_begin, graphdef, rolling=rolling))
        step = partial(_step, graphdef, reading, rolling=rolling)
        self._advance = jax.jit(partial(_advance, step), static_argnames="steps", donate_argnames="state")

    @property
    def devices(self) -> int:
        """What the number of rows that are continued together has to be a multiple of."""
        return self._by_row.mesh.size

    def begin(
        self,
        inputs: Columns,
        valid_mask: Bool[np.ndarray, "B L"],
        first: Mapping[str, Shaped[np.ndarray, "B"]],
    ) -> State:
        """The state before the first step.

        Args:
          inputs: Each input column of the windows, ids or standardised values (B, L).
          valid_mask: Which positions hold a real item.
          first: What the windows predict, by input column: the items that the first step sees.
        """
        import jax

        columns = {name: _narrow(values) for name, values in inputs.items()}
        items = {name: _narrow(first[name])[:, None] for name in columns}
        arrays = jax.device_put((columns, valid_mask, items), self._by_row)
        with jax.default_matmul_precision("highest"):
            return self._begin(self._params, *arrays)

    def advance(
        self, state: State, uniforms: Mapping[str, Float32[np.ndarray, "B steps"]], *, steps: int
    ) -> tuple[State, Readout]:
        """The state `steps` further, and what was read on the way, (B, steps) each.

        Args:
          state: Where to go on from; it cannot be used again.
          uniforms: The random numbers of the steps, by sampled target.
          steps: How many.
        """
        import jax

        numbers = jax.device_put(dict(uniforms), self._by_row)
        with jax.default_matmul_precision("highest"):
            state, taken = self._advance(self._params, state, numbers, steps=steps)
        values, log_probs = jax.device_get(taken)
        return state, Readout({name: widened(column) for name, column in values.items()}, log_probs)


def steps_at_once(reading: Reading, classes: Mapping[str, int], *, rows: int, steps: int) -> int:
    """How many steps to dispatch together: about as many each time, and not too many distributions.

    Args:
      reading: What is kept of each step.
      classes: Number of classes of each categorical target.
      rows: Rows that are continued together.
      steps: Steps altogether.
    """
    kept = rows * sum(classes[name] for name in reading.kept)
    most = max(1, min(MOST_STEPS, LARGEST_KEPT // kept if kept else MOST_STEPS))
    return -(-steps // -(-steps // most))


def _begin(
    graphdef: "GraphDef",
    params: dict[str, Any],
    columns: "dict[str, jax.Array]",
    valid: "jax.Array",
    items: "dict[str, jax.Array]",
    *,
    rolling: bool,
) -> State:
    if rolling:
        return State(items, _merged(graphdef, params).remember(columns, valid)[1])
    import jax.numpy as jnp

    newest = {name: _slid(values, items[name]) for name, values in columns.items()}
    return State(newest, _slid(valid, jnp.ones_like(valid[:, :1])))


def _advance(
    step: Any,  # noqa: ANN401
    params: dict[str, Any],
    state: State,
    uniforms: "dict[str, jax.Array]",
    *,
    steps: int,
) -> tuple[State, Any]:
    import jax
    import jax.numpy as jnp

    by_step = {name: jnp.swapaxes(values, 0, 1) for name, values in uniforms.items()}
    state, taken = jax.lax.scan(partial(step, params), state, by_step, length=steps)
    return state, jax.tree.map(lambda values: jnp.swapaxes(values, 0, 1), taken)


def _step(
    graphdef: "GraphDef",
    reading: Reading,
    params: dict[str, Any],
    state: State,
    uniforms: "dict[str, jax.Array]",
    *,
    rolling: bool,
) -> tuple[State, Any]:
    """One prediction of every row; its readout is (B,) values and (B, C) log-probabilities."""
    import jax.numpy as jnp

    from seqjax.model.heads import stated

    model = _merged(graphdef, params)
    if rolling:
        raw, memory = model.proceed(state.newest, state.memory)
        outputs = stated(raw, dict(reading.targets))
    else:
        outputs = model.predict(state.newest, state.memory)
        memory = _slid(state.memory, jnp.ones_like(state.memory[:, :1]))
    values = reading.values(outputs, {name: numbers[:, None] for name, numbers in uniforms.items()})
    newest = {}
    for name, held in state.newest.items():
        item = values[name].astype(held.dtype)
        newest[name] = item if rolling else _slid(held, item)
    taken = {name: column[:, 0] for name, column in values.items()}
    return State(newest, memory), (taken, {name: outputs[name][:, 0] for name in reading.kept})


def _merged(graphdef: "GraphDef", params: dict[str, Any]) -> "Transformer":
    from seqjax.model.functional import merge

    return merge(graphdef, params)


def _slid(window: "jax.Array", item: "jax.Array") -> "jax.Array":
    """The window (B, L) without its oldest slot and with one more."""
    import jax.numpy as jnp

    return jnp.concatenate([window[:, 1:], item], axis=1)


def _narrow(values: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    return values.astype(np.int32 if np.issubdtype(values.dtype, np.integer) else np.float32)
