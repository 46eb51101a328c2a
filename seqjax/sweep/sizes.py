"""How many runs a device can train together, and which way of it suits the device."""

import math

import jax

from seqjax.config.train import TrainConfig
from seqjax.sweep.runners import Kind
from seqjax.training.batch import Tree
from seqjax.training.devices import Device

_SHARE = 0.8
"""Of an accelerator's memory that a population may take; too much is mended by halving it."""
_COPIES = 5
"""Parameters, gradients, two statistics of the optimizer, and room to write the next state."""
_MOST_ON_A_CPU = 64
_SMALL = 2048
"""Numbers between two layers of one member, up to which a CPU gains by joining products."""


def suited(config: TrainConfig, device: Device) -> Kind:
    """The runner that is fastest on a device.

    Args:
      config: One of the runs.
      device: Where they are trained.
    """
    if device.platform != "cpu":
        return "vmap"
    numbers = config.training_spec.batch_size * config.seq_length * config.model_spec.dim_model
    return "vmap" if numbers <= _SMALL else "loop"


def fitting(config: TrainConfig, parameter_bytes: int, device: Device) -> int:
    """How many runs are likely to fit into a device's memory.

    Args:
      config: One of the runs.
      parameter_bytes: Size of its parameters.
      device: Where they are trained.
    """
    limit = None if device.platform == "cpu" else (device.memory_stats() or {}).get("bytes_limit")
    if limit is None:
        return _MOST_ON_A_CPU
    member = _COPIES * parameter_bytes + _activation_bytes(config)
    return max(1, math.floor(_SHARE * limit / member))


def bytes_of(tree: Tree) -> int:
    """The size of arrays, or of what has their shapes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _activation_bytes(config: TrainConfig) -> int:
    """What a backward pass keeps of the forward pass, roughly, in float32."""
    spec, training = config.model_spec, config.training_spec
    positions = training.batch_size * config.seq_length
    layer = 16 * spec.dim_model + 4 * spec.dim_feedforward + 3 * spec.n_head * config.seq_length
    return 4 * positions * (spec.num_layers * layer + 8 * spec.dim_model)
