"""How many runs a device can train together, and which way of it suits the device."""

import math

import jax

from seqjax.config.train import TrainConfig
from seqjax.sweep.runners import Kind
from seqjax.training.devices import Device
from seqjax.training.placement import Tree

_SHARE = 0.8
"""Of an accelerator's memory that a population may take; too much is mended by halving it."""
_COPIES = 5
"""Parameters, gradients, two statistics of the optimizer, and room to write the next state."""
_MOST_ON_A_CPU = 64


def suited(device: Device, *, is_resident: bool) -> Kind:
    """The runner that is fastest on a device.

    On a CPU, `loop` is compiled soonest. It makes as many steps per CPU second as `map`, and takes less wall
    time; tiny models gain a tenth by `vmap`, which takes a second longer to compile
    (docs/benchmarks/sweep.json). What `loop` does not do is to read a batch once for all runs.

    Args:
      device: Where the runs are trained.
      is_resident: Whether their data is in the device's memory.
    """
    if device.platform != "cpu":
        return "vmap"
    return "loop" if is_resident else "map"


def is_too_wide(kind: Kind, device: Device, *, slots: int, runs: int) -> bool:
    """Whether a population is to be made anew for fewer runs, since its empty slots are computed as well.

    On a CPU compiling takes longer than that, for models that are small enough to be joined.

    Args:
      kind: How the device works on them.
      device: Where they are trained.
      slots: Of the population.
      runs: How many there are to train.
    """
    return kind == "vmap" and device.platform != "cpu" and 2 * runs <= slots


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
