"""Torch files in JAX: parameters by sequifier's names, run by the model that training runs.

The rows of a batch are shared among the devices, of which there may be one.

A function is compiled for each batch size that it meets, so a smaller batch is filled up to one that was met
before, as long as that is not far larger: the last batch of a data set costs no compilation, and a single
sequence that is continued does not pay for a whole batch at each step.

A scan over steps continues windows and carries a state. The exact form keeps the newest L items and computes
their window again at every step. The rolling form keeps what the layers remember (`model/mixer.py`), and
computes one position a step. Either way an item is predicted, read, and becomes the newest one, without
leaving the device. Rows may be shared among devices, each of which continues its own.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float32, Shaped

from seqjax.artifacts.card import ModelCard
from seqjax.artifacts.model_files import forward_function, graph_feed
from seqjax.errors import ConfigError, Problem
from seqjax.inference.engine import Columns, Outputs
from seqjax.inference.sample import Reading, Readout, widened
from seqjax.interop.names import from_sequifier
from seqjax.interop.onnx_session import DEVICES
from seqjax.model.dropout import Dropout
from seqjax.model.functional import GraphDef, abstract, merge
from seqjax.model.transformer import stated

LARGEST_FILLING = 4
"""A batch is filled up to at most so many times its size."""


class JaxEngine:
    """Parameters and a card in JAX, on one device or with each batch shared among several.

    Where it does not drop, it also continues windows in compiled functions.
    """

    def __init__(
        self,
        parameters: Mapping[str, Any],
        card: ModelCard,
        *,
        device: str = "cpu",
        distributed: bool = False,
        dropout_seed: int | None = None,
    ) -> None:
        """Puts the parameters on a device.

        Args:
          parameters: Arrays by sequifier's names, as a torch file holds them.
          card: The description of the model.
          device: auto, cpu, cuda or cuda:N.
          distributed: Whether to use all local devices of that kind.
          dropout_seed: Makes it drop as training did, anew at every call, and engines of the same seed alike,
            call by call; None drops nothing.

        Raises:
          ArtifactError: The parameters are not those of the card's model.
          ConfigError: There is no such device.
        """
        self.card = card
        self.drops = dropout_seed is not None
        self._graphdef, shapes = abstract(card.column_schema, card.model_spec)
        params = from_sequifier(parameters, shapes, card.column_schema)
        devices = _devices(device, distributed=distributed)
        mesh = jax.make_mesh((len(devices),), ("batch",), axis_types=(AxisType.Auto,), devices=devices)
        self._by_row = NamedSharding(mesh, PartitionSpec("batch"))
        self._params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
        self._sizes: list[int] = []
        self._scans: dict[tuple[Reading, bool], Scan] = {}
        self._calls = 0
        if dropout_seed is None:
            self._apply = jax.jit(forward_function(self._graphdef, card))
        else:
            self._apply = jax.jit(partial(_dropped, self._graphdef, card, np.uint32(dropout_seed % 2**32)))

    def predict(self, inputs: Columns, valid_mask: Bool[np.ndarray, "B L"]) -> Outputs:
        """The outputs; see `Engine.predict`."""
        count = len(valid_mask)
        size = self._size(count)
        self._calls += 1
        call = [np.uint32(self._calls)] if self.drops else []
        with jax.default_matmul_precision("highest"):
            feed = graph_feed(self.card, inputs, valid_mask)
            rows = [jax.device_put(_filled(values, size), self._by_row) for values in feed.values()]
            values = jax.device_get(self._apply(self._params, *call, *rows))
        return self.card.by_target(np.asarray(value)[:count] for value in values)

    def scan(self, reading: Reading, *, rolling: bool) -> "Scan":
        """The functions that continue windows; see `ScanningEngine.scan`."""
        key = reading, rolling
        if key not in self._scans:
            self._scans[key] = Scan(
                self._graphdef, self._params, reading, rolling=rolling, by_row=self._by_row
            )
        return self._scans[key]

    def _size(self, count: int) -> int:
        """The size to fill a batch of `count` up to: equally many rows a device."""
        known = [size for size in self._sizes if count <= size <= LARGEST_FILLING * count]
        if known:
            return min(known)
        devices = self._by_row.mesh.size
        self._sizes.append(-(-count // devices) * devices)
        return self._sizes[-1]


def _dropped(
    graphdef: GraphDef,
    card: ModelCard,
    seed: np.uint32,
    params: dict[str, Any],
    call: jax.Array,
    *arrays: jax.Array,
) -> tuple[jax.Array, ...]:
    drop = Dropout(card.dropout, jax.random.fold_in(jax.random.key(seed), call))
    return forward_function(graphdef, card, drop=drop)(params, *arrays)


def _filled(values: Shaped[np.ndarray, "B L"], size: int) -> Shaped[np.ndarray, "N L"]:
    """`size` rows, the last ones zero, in the types that JAX computes with."""
    narrow = values.astype(np.int32) if values.dtype == np.int64 else values
    return np.pad(narrow, ((0, size - len(narrow)), (0, 0)))


def _devices(name: str, *, distributed: bool) -> Sequence[Any]:
    """The device of that name, or all local ones of its kind."""
    kind, _, number = name.partition(":")
    try:
        if kind not in DEVICES:
            raise ValueError(kind)
        devices = jax.local_devices(backend=None if kind == "auto" else kind)
        return devices if distributed else [devices[int(number or 0)]]
    except (RuntimeError, IndexError, ValueError):
        seen = ", ".join(map(str, jax.devices()))
        message = f"must be auto, cpu, cuda or cuda:N (found {name!r}); jax sees {seen}. Set device: cpu."
        raise ConfigError("The configuration of inference", [Problem("device", message)]) from None


class State(NamedTuple):
    """State that B rows carry from step to step, on the device."""

    newest: dict[str, Any]
    """Each input column: the newest L items (B, L), or with a cache the newest alone (B, 1)."""
    memory: Any
    """True where one of the L is a real item, bool (B, L); or a `Cache`."""


class Scan:
    """A model that continues windows, compiled for each number of rows and steps that it meets."""

    def __init__(
        self,
        graphdef: GraphDef,
        params: Mapping[str, Any],
        reading: Reading,
        *,
        rolling: bool,
        by_row: NamedSharding,
    ) -> None:
        """Prepares the compiled functions.

        Args:
          graphdef: What `params` belong to.
          params: Parameters, on each device.
          reading: What is read at each step; its values are fed back.
          rolling: Whether keys and values are kept, rather than each window computed again.
          by_row: How rows are shared among the devices.
        """
        self._graphdef = graphdef
        self._params = params
        self._reading = reading
        self._rolling = rolling
        self._by_row = by_row
        self._begin = jax.jit(self._traced_begin)
        self._advance = jax.jit(self._traced_advance, static_argnames="steps", donate_argnames="state")

    @property
    def devices(self) -> int:
        """A divisor that the number of rows that are continued together must have."""
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
        numbers = jax.device_put(dict(uniforms), self._by_row)
        with jax.default_matmul_precision("highest"):
            state, taken = self._advance(self._params, state, numbers, steps=steps)
        values, log_probs = jax.device_get(taken)
        return state, Readout({name: widened(column) for name, column in values.items()}, log_probs)

    def _traced_begin(
        self,
        params: dict[str, Any],
        columns: dict[str, Shaped[Array, "B L"]],
        valid: Bool[Array, "B L"],
        items: dict[str, Shaped[Array, "B 1"]],
    ) -> State:
        if self._rolling:
            return State(items, merge(self._graphdef, params).remember(columns, valid)[1])
        newest = {name: _slid(values, items[name]) for name, values in columns.items()}
        return State(newest, _slid(valid, jnp.ones_like(valid[:, :1])))

    def _traced_advance(
        self,
        params: dict[str, Any],
        state: State,
        uniforms: dict[str, Float32[Array, "B steps"]],
        *,
        steps: int,
    ) -> tuple[State, Any]:
        by_step = {name: jnp.swapaxes(values, 0, 1) for name, values in uniforms.items()}
        state, taken = jax.lax.scan(partial(self._step, params), state, by_step, length=steps)
        return state, jax.tree.map(lambda values: jnp.swapaxes(values, 0, 1), taken)

    def _step(
        self, params: dict[str, Any], state: State, uniforms: dict[str, Float32[Array, "B"]]
    ) -> tuple[State, Any]:
        """One prediction of every row; its readout is (B,) values and (B, C) log-probabilities."""
        reading, model = self._reading, merge(self._graphdef, params)
        if self._rolling:
            raw, memory = model.proceed(state.newest, state.memory)
            outputs = stated(raw, dict(reading.targets))
        else:
            outputs = model.predict(state.newest, state.memory)
            memory = _slid(state.memory, jnp.ones_like(state.memory[:, :1]))
        values = reading.values(outputs, {name: numbers[:, None] for name, numbers in uniforms.items()})
        newest = {}
        for name, column in state.newest.items():
            item = values[name].astype(column.dtype)
            newest[name] = item if self._rolling else _slid(column, item)
        taken = {name: column[:, 0] for name, column in values.items()}
        return State(newest, memory), (taken, {name: outputs[name][:, 0] for name in reading.kept})


def _slid(window: Shaped[Array, "B L"], item: Shaped[Array, "B 1"]) -> Shaped[Array, "B L"]:
    """The window without its oldest slot and with one more."""
    return jnp.concatenate([window[:, 1:], item], axis=1)


def _narrow(values: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    return values.astype(np.int32 if np.issubdtype(values.dtype, np.integer) else np.float32)
