"""A transformer's training step written out by hand in plain JAX: the yardstick of `tools.bench_gpu`.

No modules, no configuration, no masks beyond causality: a pre-norm SwiGLU transformer with RMSNorm and
rotary positions over two categorical columns and a real one, trained by AdamW in one jitted function. The
parameters are float32, the matrix products are computed in `dtype`. What a framework adds to a step, in
time, is what it takes more than this.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Params = dict[str, Any]


class Shape(NamedTuple):
    """Sizes of a model and of its batches."""

    dim: int
    layers: int
    heads: int
    feedforward: int
    length: int
    batch: int


class State(NamedTuple):
    """What a step consumes and returns."""

    params: optax.Params
    opt_state: optax.OptState


def init(shape: Shape, n_classes: dict[str, int], seed: int) -> Params:
    """Random parameters, weights as (in, out)."""
    keys = iter(jax.random.split(jax.random.key(seed), 8 * shape.layers + 4 * len(n_classes) + 4))
    third = shape.dim // (len(n_classes) + 1)

    def dense(n_in: int, n_out: int) -> jax.Array:
        return jax.random.normal(next(keys), (n_in, n_out)) * n_in**-0.5

    def block() -> Params:
        return {
            "norm1": jnp.ones(shape.dim),
            "norm2": jnp.ones(shape.dim),
            "qkv": dense(shape.dim, 3 * shape.dim),
            "out": dense(shape.dim, shape.dim),
            "gate": dense(shape.dim, shape.feedforward),
            "up": dense(shape.dim, shape.feedforward),
            "down": dense(shape.feedforward, shape.dim),
        }

    return {
        "embedding": {name: dense(count, third) for name, count in n_classes.items()},
        "real": dense(1, shape.dim - third * len(n_classes)),
        "blocks": [block() for _ in range(shape.layers)],
        "norm": jnp.ones(shape.dim),
        "heads": {name: dense(shape.dim, count) for name, count in n_classes.items()},
        "real_head": dense(shape.dim, 1),
    }


def build_step(
    shape: Shape, n_classes: dict[str, int], real: str, *, learning_rate: float, dtype: jnp.dtype
) -> tuple[Callable[[Params], State], Callable[[State, dict[str, jax.Array]], tuple[State, jax.Array]]]:
    """The start and the compiled step: (state, columns of (B, L + 1)) -> (state, loss)."""
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(learning_rate, weight_decay=1e-2))
    angles = _angles(shape)

    def loss(params: Params, columns: dict[str, jax.Array]) -> jax.Array:
        parts = [params["embedding"][name][columns[name][:, :-1]] for name in n_classes]
        parts.append(columns[real][:, :-1, None] @ params["real"])
        x = jnp.concatenate(parts, axis=-1).astype(dtype)
        for block in params["blocks"]:
            x = _block(x, block, shape.heads, angles)
        x = _norm(x, params["norm"])
        total = jnp.mean(
            (_dense(x, params["real_head"])[..., 0].astype(jnp.float32) - columns[real][:, 1:]) ** 2
        )
        for name in n_classes:
            logits = _dense(x, params["heads"][name]).astype(jnp.float32)
            total += optax.softmax_cross_entropy_with_integer_labels(logits, columns[name][:, 1:]).mean()
        return total

    def step(state: State, columns: dict[str, jax.Array]) -> tuple[State, jax.Array]:
        value, grads = jax.value_and_grad(loss)(state.params, columns)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        return State(optax.apply_updates(state.params, updates), opt_state), value

    return lambda params: State(params, optimizer.init(params)), jax.jit(step, donate_argnums=0)


def _block(x: jax.Array, params: Params, heads: int, angles: tuple[jax.Array, jax.Array]) -> jax.Array:
    b, t, d = x.shape
    qkv = _dense(_norm(x, params["norm1"]), params["qkv"]).reshape(b, t, 3, heads, d // heads)
    q, k, v = _rotate(qkv[:, :, 0], angles), _rotate(qkv[:, :, 1], angles), qkv[:, :, 2]
    x = x + _dense(jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(b, t, d), params["out"])
    h = _norm(x, params["norm2"])
    return x + _dense(jax.nn.silu(_dense(h, params["gate"])) * _dense(h, params["up"]), params["down"])


def _dense(x: jax.Array, weight: jax.Array) -> jax.Array:
    flat = x.reshape(-1, x.shape[-1]) @ weight.astype(x.dtype)
    return flat.reshape(*x.shape[:-1], weight.shape[1])


def _norm(x: jax.Array, scale: jax.Array) -> jax.Array:
    wide = x.astype(jnp.float32)
    return (wide * jax.lax.rsqrt(jnp.mean(wide**2, -1, keepdims=True) + 1e-6) * scale).astype(x.dtype)


def _angles(shape: Shape) -> tuple[jax.Array, jax.Array]:
    width = shape.dim // shape.heads
    frequency = 1e4 ** (-jnp.arange(0, width, 2) / width)
    angle = jnp.arange(shape.length)[:, None] * frequency
    return jnp.cos(angle)[None, :, None], jnp.sin(angle)[None, :, None]


def _rotate(x: jax.Array, angles: tuple[jax.Array, jax.Array]) -> jax.Array:
    cos, sin = angles
    left, right = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], -1).astype(x.dtype)
