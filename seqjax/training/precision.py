"""Number formats: in which a layer's parameters are kept, in which it computes, and what float16 needs.

A layer whose type `layer_type_dtypes` names keeps its parameters in that format and computes in it (float8
is for keeping: it computes in bfloat16). The others keep float32, and compute in bfloat16 under
`layer_autocast` on an accelerator that has it, else in float32. Norms, attention's softmax and losses are
computed in float32 always. The vectors between layers have the format in which embeddings compute.

An update is computed in float32 and then rounded to what the parameter is kept in, up or down with
probabilities that keep its mean (`rounded`): a bfloat16 parameter would not move at all for steps under
1/256 of its size. float16 has few small numbers: the loss is scaled up before the backward pass, by as much
as goes well (`LossScale`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key

from seqjax.config.model import DTypeName, LayerType
from seqjax.errors import TrainingError
from seqjax.model.dropout import random_words
from seqjax.optim.rule import Path
from seqjax.training.devices import Device
from seqjax.training.placement import Tree

FIRST_SCALE = 2.0**16
GROWTH_INTERVAL = 2000
"""Updates in a row that must go well before the scale is doubled."""

_FLOAT8 = ("float8_e4m3fn", "float8_e5m2")
_FLOAT8_CAPABILITY = (8, 9)
_BFLOAT16_CAPABILITY = (8, 0)


class LossScale(NamedTuple):
    """By how much the loss is multiplied before the backward pass."""

    scale: Float[Array, ""]
    good: Int[Array, ""]
    """Updates since it last changed."""


def first_scale() -> LossScale:
    """The scale that a run starts with."""
    return LossScale(jnp.full((), FIRST_SCALE, jnp.float32), jnp.zeros((), jnp.int32))


def next_scale(scale: LossScale, finite: Bool[Array, ""]) -> LossScale:
    """Half of a scale (and at least 1) after a gradient that is not finite; double after many that are."""
    good = jnp.where(finite, scale.good + 1, 0)
    grown = good >= GROWTH_INTERVAL
    factor = jnp.where(finite, jnp.where(grown, 2.0, 1.0), 0.5)
    return LossScale(jnp.maximum(scale.scale * factor, 1.0), jnp.where(grown, 0, good))


@dataclass(frozen=True)
class Precision:
    """The format of each type of layer; float32 where none is given."""

    kept: Mapping[LayerType, DTypeLike] = field(default_factory=dict)
    """Format of the parameters."""
    computed: Mapping[LayerType, DTypeLike] = field(default_factory=dict)
    """Format of the arithmetic."""
    layers: Mapping[Path, LayerType] = field(default_factory=dict)
    """The kind of layer that each parameter belongs to; needed where any format is given."""

    @property
    def between(self) -> DTypeLike:
        """Format of the vectors between layers."""
        return self.computed.get("embedding", jnp.float32)

    @property
    def is_scaled(self) -> bool:
        """True if losses must be scaled."""
        return any(jnp.dtype(dtype) == jnp.float16 for dtype in self.computed.values())

    def describe(self) -> str:
        """The formats other than float32, in words."""
        parts = [
            f"{kind} layers kept in {jnp.dtype(self.kept.get(kind, jnp.float32)).name}, computed in "
            f"{jnp.dtype(dtype).name}"
            for kind, dtype in self.computed.items()
        ]
        return "; ".join(parts) or "float32"

    def keep(self, params: Tree) -> Tree:
        """Parameters in the formats in which they are kept."""
        return self._cast(params, self.kept)

    def compute(self, params: Tree) -> Tree:
        """Parameters in the formats in which layers compute."""
        return self._cast(params, self.computed)

    def _cast(self, params: Tree, dtypes: Mapping[LayerType, DTypeLike]) -> Tree:
        if not dtypes:
            return params

        def cast(path: tuple[Any, ...], leaf: Float[Array, "..."]) -> Float[Array, "..."]:
            return leaf.astype(dtypes.get(self.layers[tuple(key.key for key in path)], jnp.float32))

        return jax.tree_util.tree_map_with_path(cast, params)


FLOAT32 = Precision()
"""Everything in float32."""


def build_precision(
    dtypes: Mapping[LayerType, DTypeName] | None,
    *,
    autocast: bool,
    device: Device,
    layers: Mapping[Path, LayerType] = MappingProxyType({}),
) -> Precision:
    """The formats of a run.

    Args:
      dtypes: `layer_type_dtypes`.
      autocast: `layer_autocast`.
      device: Where it computes.
      layers: The kind of layer that each parameter belongs to: `seqjax.model.functional.layer_types`.

    Raises:
      TrainingError: The device does not have a format.
    """
    chosen: dict[LayerType, DTypeName] = {**(dtypes or {})}
    _check_float8(chosen, device)
    if "linear" in chosen:
        chosen.setdefault("decoder", chosen["linear"])
    kept: dict[LayerType, DTypeLike] = {kind: jnp.dtype(name) for kind, name in chosen.items()}
    computed: dict[LayerType, DTypeLike] = (
        {"linear": jnp.bfloat16, "embedding": jnp.bfloat16, "decoder": jnp.bfloat16}
        if autocast and has_bfloat16(device)
        else {}
    )
    computed |= {kind: jnp.bfloat16 if name in _FLOAT8 else jnp.dtype(name) for kind, name in chosen.items()}
    return Precision(kept, computed, layers)


def has_bfloat16(device: Device) -> bool:
    """True for an accelerator that computes in bfloat16."""
    if device.platform == "gpu":
        return _capability(device) >= _BFLOAT16_CAPABILITY
    return device.platform == "tpu"


def rounded(wide: Tree, like: Tree, key: Key[Array, ""]) -> Tree:
    """Values in other formats, each up or down so that its mean is kept.

    Args:
      wide: float32 leaves.
      like: Leaves in the formats to round to.
      key: What the draws depend on.
    """
    leaves, structure = jax.tree.flatten(wide)
    formats = [leaf.dtype for leaf in jax.tree.leaves(like)]
    return structure.unflatten(
        leaf if leaf.dtype == dtype else _rounded(leaf, dtype, jax.random.fold_in(key, index))
        for index, (leaf, dtype) in enumerate(zip(leaves, formats, strict=True))
    )


def _rounded(wide: Float[Array, "..."], dtype: DTypeLike, key: Key[Array, ""]) -> Float[Array, "..."]:
    unsigned = {1: jnp.uint8, 2: jnp.uint16}[jnp.dtype(dtype).itemsize]
    limit = float(jnp.finfo(dtype).max)
    size = jnp.clip(jnp.abs(wide), max=limit)
    nearest = size.astype(dtype)
    # The bits of a positive number count up with it, so that the next number is one further.
    word = jax.lax.bitcast_convert_type(nearest, unsigned)
    low_word = jnp.where(nearest.astype(jnp.float32) > size, word - 1, word)
    low = jax.lax.bitcast_convert_type(low_word, dtype)
    high = jax.lax.bitcast_convert_type(low_word + 1, dtype)
    below = low.astype(jnp.float32)
    share = (size - below) / (high.astype(jnp.float32) - below)
    draw = random_words(key, wide.shape or (1,)).reshape(wide.shape).astype(jnp.float32) / 2.0**32
    magnitude = jnp.where(draw < share, high, low)
    return jnp.where(wide < 0, -magnitude, magnitude)


def _check_float8(dtypes: Mapping[LayerType, DTypeName], device: Device) -> None:
    wanted = {kind: name for kind, name in dtypes.items() if name in _FLOAT8}
    if wanted and not (device.platform == "gpu" and _capability(device) >= _FLOAT8_CAPABILITY):
        raise TrainingError(
            f"training_spec.layer_type_dtypes: {', '.join(f'{k}: {v}' for k, v in wanted.items())}, but "
            f"{device} has no float8; Nvidia GPUs from the Ada and Hopper generations (compute capability "
            "8.9) on have it. Use bfloat16, float16 or float32 here."
        )


def _capability(device: Device) -> tuple[int, ...]:
    """An Nvidia GPU's compute capability, such as (9, 0)."""
    text = str(getattr(device, "compute_capability", "0"))
    return tuple(int(part) for part in text.split(".") if part.isdecimal())
