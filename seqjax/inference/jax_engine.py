"""Torch files in JAX: parameters by sequifier's names, run by the model that training runs.

The rows of a batch are shared among the devices, of which there may be one.

A function is compiled for each batch size that it meets, so a smaller batch is filled up to one that was met
before, as long as that is not far larger: the last batch of a data set costs no compilation, and a single
sequence that is continued does not pay for a whole batch at each step.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Shaped

from seqjax.artifacts.card import ModelCard
from seqjax.artifacts.model_files import forward_function, graph_feed
from seqjax.errors import ConfigError, Problem
from seqjax.inference.engine import Columns, Outputs
from seqjax.inference.generate import Scan
from seqjax.inference.sample import Reading
from seqjax.interop.names import from_sequifier
from seqjax.interop.onnx_session import DEVICES

if TYPE_CHECKING:
    import jax

    from seqjax.model.functional import GraphDef

LARGEST_FILLING = 4
"""A batch is filled up to at most so many times its size."""


class _JaxModel:
    """Parameters and a card in JAX, on one device or with each batch shared among several."""

    def __init__(
        self,
        parameters: Mapping[str, Any],
        card: ModelCard,
        *,
        device: str = "cpu",
        distributed: bool = False,
    ) -> None:
        """Puts the parameters on a device.

        Args:
          parameters: Arrays by sequifier's names, as a torch file holds them.
          card: What the model says about itself.
          device: auto, cpu, cuda or cuda:N.
          distributed: Whether to use all local devices of that kind.

        Raises:
          ArtifactError: The parameters are not those of the card's model.
          ConfigError: There is no such device.
        """
        import jax
        from jax.sharding import AxisType, NamedSharding, PartitionSpec

        from seqjax.model.functional import abstract

        self._card = card
        self._graphdef, shapes = abstract(card.column_schema, card.model_spec)
        params = from_sequifier(parameters, shapes, card.column_schema)
        devices = _devices(device, distributed=distributed)
        mesh = jax.make_mesh((len(devices),), ("batch",), axis_types=(AxisType.Auto,), devices=devices)
        self._by_row = NamedSharding(mesh, PartitionSpec("batch"))
        self._params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
        self._sizes: list[int] = []

    @property
    def card(self) -> ModelCard:
        """The model's description of itself."""
        return self._card

    def _rows(self, inputs: Columns, valid_mask: Bool[np.ndarray, "B L"]) -> "list[jax.Array]":
        """The graph's inputs on the devices, filled up."""
        import jax

        size = self._size(len(valid_mask))
        feed = graph_feed(self._card, inputs, valid_mask)
        return [jax.device_put(_filled(values, size), self._by_row) for values in feed.values()]

    def _outputs(self, values: "Sequence[jax.Array]", count: int) -> Outputs:
        import jax

        return self._card.by_target(np.asarray(value)[:count] for value in jax.device_get(values))

    def _size(self, count: int) -> int:
        """The size to fill a batch of `count` up to: equally many rows a device."""
        known = [size for size in self._sizes if count <= size <= LARGEST_FILLING * count]
        if known:
            return min(known)
        devices = self._by_row.mesh.size
        self._sizes.append(-(-count // devices) * devices)
        return self._sizes[-1]


class JaxEngine(_JaxModel):
    """A model in JAX, which also continues windows in compiled functions."""

    def __init__(
        self,
        parameters: Mapping[str, Any],
        card: ModelCard,
        *,
        device: str = "cpu",
        distributed: bool = False,
    ) -> None:
        """Puts the model on its devices."""
        import jax

        super().__init__(parameters, card, device=device, distributed=distributed)
        self._apply = jax.jit(forward_function(self._graphdef, card))
        self._scans: dict[tuple[Reading, bool], Scan] = {}

    def predict(self, inputs: Columns, valid_mask: Bool[np.ndarray, "B L"]) -> Outputs:
        """Implements `Engine.predict`."""
        import jax

        with jax.default_matmul_precision("highest"):
            values = self._apply(self._params, *self._rows(inputs, valid_mask))
        return self._outputs(values, len(valid_mask))

    def scan(self, reading: Reading, *, rolling: bool) -> Scan:
        """Implements `generate.Scanner.scan`; rolling needs a model that can be continued."""
        key = reading, rolling
        if key not in self._scans:
            self._scans[key] = Scan(
                self._graphdef, self._params, reading, rolling=rolling, by_row=self._by_row
            )
        return self._scans[key]


class DroppingEngine(_JaxModel):
    """A model in JAX that drops as training did, anew at every call."""

    def __init__(
        self,
        parameters: Mapping[str, Any],
        card: ModelCard,
        *,
        seed: int,
        device: str = "cpu",
        distributed: bool = False,
    ) -> None:
        """Puts the model on its devices; engines of the same seed drop the same, call by call."""
        import jax

        super().__init__(parameters, card, device=device, distributed=distributed)
        self._apply = jax.jit(partial(_dropped, self._graphdef, card))
        self._seed = seed
        self._calls = 0

    def predict(self, inputs: Columns, valid_mask: Bool[np.ndarray, "B L"]) -> Outputs:
        """Implements `Engine.predict`."""
        import jax

        self._calls += 1
        with jax.default_matmul_precision("highest"):
            arrays = self._rows(inputs, valid_mask)
            values = self._apply(self._params, np.uint32(self._seed % 2**32), np.uint32(self._calls), *arrays)
        return self._outputs(values, len(valid_mask))


def _dropped(
    graphdef: "GraphDef",
    card: ModelCard,
    params: dict[str, Any],
    seed: "jax.Array",
    call: "jax.Array",
    *arrays: "jax.Array",
) -> "tuple[jax.Array, ...]":
    import jax

    from seqjax.model.dropout import Dropout

    drop = Dropout(card.dropout, jax.random.fold_in(jax.random.key(seed), call))
    return forward_function(graphdef, card, drop=drop)(params, *arrays)


def _filled(values: Shaped[np.ndarray, "B L"], size: int) -> Shaped[np.ndarray, "N L"]:
    """`size` rows, the last ones zero, in the types that JAX computes with."""
    narrow = values.astype(np.int32) if values.dtype == np.int64 else values
    return np.pad(narrow, ((0, size - len(narrow)), (0, 0)))


def _devices(name: str, *, distributed: bool) -> Sequence[Any]:
    """The device of that name, or all local ones of its kind."""
    import jax

    kind, _, number = name.partition(":")
    try:
        if kind not in DEVICES:
            raise ValueError(kind)
        found = jax.local_devices(backend=None if kind == "auto" else kind)
        return found if distributed else [found[int(number or 0)]]
    except (RuntimeError, IndexError, ValueError):
        there = ", ".join(str(device) for device in jax.devices())
        message = f"must be auto, cpu, cuda or cuda:N (found {name!r}); jax sees {there}. Set device: cpu."
        raise ConfigError("The configuration of inference", [Problem("device", message)]) from None
