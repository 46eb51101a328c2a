"""Torch files in JAX: parameters by sequifier's names, run by the model that training runs.

A function is compiled for each batch size that it meets, so a smaller batch is filled up to one that was met
before, as long as that is not far larger: the last batch of a data set costs no compilation, and a single
sequence that is continued does not pay for a whole batch at each step.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from seqjax.artifacts.card import ModelCard
from seqjax.artifacts.model_files import forward_function, graph_feed
from seqjax.errors import ConfigError, Problem
from seqjax.inference.engine import Columns, Outputs
from seqjax.inference.sample import Reading
from seqjax.inference.scan import Scan
from seqjax.interop.names import from_sequifier
from seqjax.interop.onnx_session import DEVICES

LARGEST_FILLING = 4
"""A batch is filled up to at most so many times its size."""


class JaxEngine:
    """Parameters and a card in JAX."""

    def __init__(self, parameters: Mapping[str, Any], card: ModelCard, *, device: str = "cpu") -> None:
        """Puts the parameters on a device.

        Args:
          parameters: Arrays by sequifier's names, as a torch file holds them.
          card: What the model says about itself.
          device: auto, cpu, cuda or cuda:N.

        Raises:
          ArtifactError: The parameters are not those of the card's model.
          ConfigError: There is no such device.
        """
        import jax

        from seqjax.model.functional import abstract

        self._card = card
        params = from_sequifier(parameters, card.column_schema, card.model_spec)
        self._params = jax.device_put(params, _device(device))
        self._graphdef, _ = abstract(card.column_schema, card.model_spec)
        self._apply = jax.jit(forward_function(self._graphdef, card))
        self._sizes: list[int] = []
        self._scans: dict[tuple[Reading, bool], Scan] = {}

    @property
    def card(self) -> ModelCard:
        """What the model says about itself."""
        return self._card

    def predict(self, inputs: Columns, valid_mask: Bool[np.ndarray, "B L"]) -> Outputs:
        """See `Engine.predict`."""
        import jax

        card, count = self._card, len(valid_mask)
        size = self._size(count)
        arrays = [_filled(values, size) for values in graph_feed(card, inputs, valid_mask).values()]
        with jax.default_matmul_precision("highest"):
            values = jax.device_get(self._apply(self._params, *arrays))
        return {name: np.asarray(value)[:count] for name, value in zip(card.outputs, values, strict=True)}

    def scan(self, reading: Reading, *, rolling: bool) -> Scan:
        """See `generate.Scanner.scan`; rolling needs rotary positions."""
        key = reading, rolling
        if key not in self._scans:
            self._scans[key] = Scan(self._graphdef, self._params, reading, rolling=rolling)
        return self._scans[key]

    def _size(self, count: int) -> int:
        """The size to fill a batch of `count` up to."""
        known = [size for size in self._sizes if count <= size <= LARGEST_FILLING * count]
        if not known:
            self._sizes.append(count)
        return min(known, default=count)


def _filled(values: Shaped[np.ndarray, "B L"], size: int) -> Shaped[np.ndarray, "N L"]:
    """`size` rows, the last ones zero, in the types that JAX computes with."""
    narrow = values.astype(np.int32) if values.dtype == np.int64 else values
    return np.pad(narrow, ((0, size - len(narrow)), (0, 0)))


def _device(name: str) -> object:
    import jax

    kind, _, number = name.partition(":")
    try:
        if kind not in DEVICES:
            raise ValueError(kind)
        found = jax.devices() if kind == "auto" else jax.devices(kind)
        return found[int(number or 0)]
    except (RuntimeError, IndexError, ValueError):
        there = ", ".join(str(device) for device in jax.devices())
        message = f"must be auto, cpu, cuda or cuda:N (found {name!r}); jax sees {there}. Set device: cpu."
        raise ConfigError("The configuration of inference", [Problem("device", message)]) from None
