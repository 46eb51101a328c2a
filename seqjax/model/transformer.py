"""The causal transformer over windows of items that have several columns each.

    columns -> an encoder each -> concatenate -> joint layer? -> layers -> final norm? -> a head a target

Position t of a window sees items 0 .. t and predicts item t + 1. Columns and targets are addressed by their
place in the schema, since their names may hold any character. Parameters have sequifier's names and shapes
otherwise, and their initial values its distributions. The module holds no random state: dropout comes with
each call.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypedDict, Unpack

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Num

from seqjax.config.model import ModelSpec
from seqjax.config.schema import HeadName, Schema
from seqjax.model.attention import Attention
from seqjax.model.distributions import DISTRIBUTIONS
from seqjax.model.dropout import Drop, keep_all
from seqjax.model.layers import (
    Head,
    Linear,
    Table,
    at_least_float32,
    make_encoder,
    make_feedforward,
    make_norm,
)
from seqjax.model.mixer import Context, Memory, Mixer

MIXERS: Mapping[str, type[Mixer]] = {"attention": Attention}
"""Mixers by their names in `ModelSpec.mixers`."""


class Block(nnx.Module):
    """A layer: a mixer along time and a feed-forward layer, each added to what it reads.

    The norm comes before each of them (`norm_first`), or after each addition.
    """

    def __init__(self, spec: ModelSpec, mixer: str, *, rng: np.random.Generator) -> None:
        """Draws initial values.

        Args:
          spec: Sizes and kinds.
          mixer: A name in `MIXERS`.
          rng: Where initial values come from.
        """
        self.norm_first = spec.norm_first
        self.norm1 = make_norm(spec.normalization, spec.dim_model)
        self.norm2 = make_norm(spec.normalization, spec.dim_model)
        self.mixer_name = MIXERS[mixer].name
        setattr(self, self.mixer_name, MIXERS[mixer].from_spec(spec, rng=rng))
        self.ff = make_feedforward(spec.activation_fn, spec.dim_model, spec.dim_feedforward, rng=rng)

    @property
    def mixer(self) -> Mixer:
        """The mixer of the layer."""
        return getattr(self, self.mixer_name)

    def __call__(
        self, x_BTD: Float[Array, "B T D"], context: Context, *, drop: Drop, last: int | None = None
    ) -> Float[Array, "B P D"]:
        """The layer's output at the last positions.

        Args:
          x_BTD: Output of the layer before.
          context: The window's positions.
          drop: Dropout, or `keep_all`.
          last: P, how many trailing positions to compute; None is all T.
        """
        x_BPD = x_BTD if last is None else x_BTD[:, x_BTD.shape[1] - last :]
        return self._added(x_BPD, self.mixer(self._read(x_BTD), context, drop=drop, last=last), drop)

    def prefix(self, x_BTD: Float[Array, "B T D"], context: Context) -> tuple[Float[Array, "B T D"], Memory]:
        """The layer's output at all positions, and its mixer's memory of them."""
        mixed_BTD, memory = self.mixer.prefix(self._read(x_BTD), context)
        return self._added(x_BTD, mixed_BTD, keep_all), memory

    def step(
        self, x_B1D: Float[Array, "B 1 D"], memory: Memory, context: Context
    ) -> tuple[Float[Array, "B 1 D"], Memory]:
        """The layer's output at one more item, and the memory with that item in it."""
        mixed_B1D, memory = self.mixer.step(self._read(x_B1D), memory, context)
        return self._added(x_B1D, mixed_B1D, keep_all), memory

    def _read(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """The mixer's input, from the layer's."""
        return self.norm1(x_BTD) if self.norm_first else x_BTD

    def _added(
        self, x_BTD: Float[Array, "B T D"], mixed_BTD: Float[Array, "B T D"], drop: Drop
    ) -> Float[Array, "B T D"]:
        """The layer's output, from its input and its mixer's output."""
        if self.norm_first:
            x_BTD = x_BTD + drop(mixed_BTD)
            return x_BTD + drop(self.ff(self.norm2(x_BTD), drop))
        x_BTD = self.norm1(x_BTD + drop(mixed_BTD))
        return self.norm2(x_BTD + drop(self.ff(x_BTD, drop)))


class PassOptions(TypedDict, total=False):
    """Options of a forward pass.

    Attributes:
      dropout: A fresh one for this pass; None drops nothing.
      last: P, how many trailing positions to compute; None is all T.
      positions: The position of each item; None is 0 .. T-1.
      dtype: Format of the vectors between layers; a layer computes in that of its weights.
    """

    dropout: Drop | None
    last: int | None
    positions: Int[Array, "T"] | None
    dtype: DTypeLike


class Cache(NamedTuple):
    """The memories of B windows and the items after them, one for each layer's mixer."""

    layers: tuple[Memory, ...]
    position: Int[Array, ""]
    """The position of the next item, counted from the windows' first slot."""


def continuation_problem(spec: ModelSpec) -> str | None:
    """Says why windows cannot be continued from memories; None where they can."""
    if spec.positional_encoding == "learned":
        return (
            "rolling needs rotary positions; those of this model are learned, and belong to places in the "
            "window, which every further item changes. Use exact, or train with positional_encoding: rope."
        )
    return next((reason for name in spec.mixers if (reason := MIXERS[name].no_memory)), None)


def stated(
    raw: Mapping[str, Float[Array, "B P _"]], heads: Mapping[str, HeadName]
) -> dict[str, Float[Array, "B P _"]]:
    """The outputs of a generative model for each target: see `seqjax.model.distributions`.

    Args:
      raw: Each target's raw outputs.
      heads: Each target's head.
    """
    return {name: DISTRIBUTIONS[heads[name]].stated(values) for name, values in raw.items()}


class Transformer(nnx.Module):
    """A model of the columns of `schema` with the architecture of `spec`.

    In every method `inputs` holds each input column, ids (B, T) int or standardised values (B, T) float, and
    `valid_BT` says which positions hold a real item rather than padding; it is not used by a model without
    `mask_padding`, and may be None there.
    """

    def __init__(self, schema: Schema, spec: ModelSpec, *, rng: np.random.Generator) -> None:
        dims = schema.embedding_dims(spec.initial_embedding_dim, spec.feature_embedding_dims)
        self.inputs = schema.inputs
        self.heads = tuple(schema.target_heads.items())
        self.mask_padding = spec.mask_padding
        self.prediction_length = spec.prediction_length
        self.scale = math.sqrt(spec.initial_embedding_dim)
        self.continuation_problem = continuation_problem(spec)
        classes = {name: schema.n_classes[name] for name in schema.categorical_inputs}
        self.encoder = nnx.List(make_encoder(classes.get(name), dims[name], rng=rng) for name in dims)
        self.pos_encoder = (
            nnx.List(Table(schema.seq_length, width, rng=rng) for width in dims.values())
            if spec.positional_encoding == "learned"
            else None
        )
        self.joint_embedding_layer = (
            Linear(spec.initial_embedding_dim, spec.joint_embedding_dim, rng=rng, small=True)
            if spec.joint_embedding_dim is not None
            else None
        )
        self.layers = nnx.List(Block(spec, mixer, rng=rng) for mixer in spec.mixers)
        self.final_norm = make_norm(spec.normalization, spec.dim_model) if spec.norm_first else None
        self.decoder = nnx.List(
            Head(spec.dim_model, schema.head_width(name), rng=rng) for name in schema.targets
        )

    def __call__(
        self,
        inputs: Mapping[str, Num[Array, "B T"]],
        valid_BT: Bool[Array, "B T"] | None = None,
        **options: Unpack[PassOptions],
    ) -> dict[str, Float[Array, "B P _"]]:
        """Each target's raw float32 outputs, such as logits (B, P, C) or standardised values (B, P, 1).

        Args:
          inputs: Each input column.
          valid_BT: Which positions hold a real item.
          options: See `PassOptions`.
        """
        return self._decode(self.hidden(inputs, valid_BT, **options))

    def hidden(
        self,
        inputs: Mapping[str, Num[Array, "B T"]],
        valid_BT: Bool[Array, "B T"] | None = None,
        **options: Unpack[PassOptions],
    ) -> Float[Array, "B P D"]:
        """The vectors that the heads read; the arguments are those of a call."""
        *_, x_BPD = self._outputs(inputs, valid_BT, **options)
        return self._finish(x_BPD)

    def _outputs(
        self,
        inputs: Mapping[str, Num[Array, "B T"]],
        valid_BT: Bool[Array, "B T"] | None,
        *,
        dropout: Drop | None = None,
        last: int | None = None,
        positions: Int[Array, "T"] | None = None,
        dtype: DTypeLike = jnp.float32,
    ) -> Iterator[Float[Array, "B _ D"]]:
        """The first layer's input, then each layer's output; of the last layer, at the last positions."""
        drop = keep_all if dropout is None else dropout
        x_BTD = self._embed(inputs, positions, drop).astype(dtype)
        context = self._context(x_BTD.shape[1], valid_BT, positions)
        yield x_BTD
        newest = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            x_BTD = layer(x_BTD, context, drop=drop, last=last if index == newest else None)
            yield x_BTD

    def predict(
        self,
        inputs: Mapping[str, Num[Array, "B T"]],
        valid_BT: Bool[Array, "B T"] | None = None,
        *,
        dropout: Drop | None = None,
    ) -> dict[str, Float[Array, "B P _"]]:
        """The generative model: the parameters of each target's distribution, as its head states them.

        They are log-probabilities (B, P, C) or standardised values (B, P, 1), for instance. P is
        `prediction_length`: the last P positions, each predicting its next item.
        """
        raw = self(inputs, valid_BT, dropout=dropout, last=self.prediction_length)
        return stated(raw, dict(self.heads))

    def embed(
        self,
        inputs: Mapping[str, Num[Array, "B T"]],
        valid_BT: Bool[Array, "B T"] | None = None,
        *,
        layers: Sequence[int] | None = None,
        dropout: Drop | None = None,
    ) -> Float[Array, "B P LD"]:
        """The embedding model: the hidden states at the last `prediction_length` positions.

        Args:
          inputs: Each input column.
          valid_BT: Which positions hold a real item.
          layers: The layers whose outputs are returned, side by side: 0 is what the first layer reads, and
            the number of layers is what the heads read. None is that alone.
          dropout: A fresh one for this pass; None drops nothing.
        """
        count, last = len(self.layers), self.prediction_length
        if layers is None:
            return self.hidden(inputs, valid_BT, dropout=dropout, last=last)
        states = self._outputs(inputs, valid_BT, dropout=dropout, last=last)
        outputs = list(itertools.islice(states, max(layers) + 1))
        parts = [
            self._finish(outputs[layer])
            if layer == count
            else outputs[layer][:, outputs[layer].shape[1] - last :]
            for layer in layers
        ]
        return jnp.concatenate(parts, axis=-1)

    def remember(
        self, inputs: Mapping[str, Num[Array, "B L"]], valid_BL: Bool[Array, "B L"] | None = None
    ) -> tuple[dict[str, Float[Array, "B 1 _"]], Cache]:
        """Raw outputs at the last position, and a cache to `proceed` from.

        Raises:
          ValueError: The model cannot be continued; see `continuation_problem`.
        """
        if self.continuation_problem is not None:
            raise ValueError(self.continuation_problem)
        x_BLD = at_least_float32(self._embed(inputs, None, keep_all))
        length = x_BLD.shape[1]
        context = self._context(length, valid_BL)
        memories = []
        for layer in self.layers:
            x_BLD, memory = layer.prefix(x_BLD, context)
            memories.append(memory)
        return self._decode(self._finish(x_BLD[:, -1:])), Cache(tuple(memories), jnp.int32(length))

    def proceed(
        self, item: Mapping[str, Num[Array, "B 1"]], cache: Cache
    ) -> tuple[dict[str, Float[Array, "B 1 _"]], Cache]:
        """Raw outputs at one more item, and the cache with that item in it."""
        x_B1D = at_least_float32(self._embed(item, None, keep_all))
        context = Context(cache.position[None])
        memories = []
        for layer, memory in zip(self.layers, cache.layers, strict=True):
            x_B1D, memory = layer.step(x_B1D, memory, context)
            memories.append(memory)
        return self._decode(self._finish(x_B1D)), Cache(tuple(memories), cache.position + 1)

    def _finish(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return x_BTD if self.final_norm is None else self.final_norm(x_BTD)

    def _decode(self, hidden_BPD: Float[Array, "B P D"]) -> dict[str, Float[Array, "B P _"]]:
        decoders = zip(self.heads, self.decoder, strict=True)
        return {name: at_least_float32(decoder(hidden_BPD)) for (name, _), decoder in decoders}

    def _embed(
        self, inputs: Mapping[str, Num[Array, "B T"]], positions: Int[Array, "T"] | None, drop: Drop
    ) -> Float[Array, "B T D"]:
        parts = []
        for index, name in enumerate(self.inputs):
            part_BTE = self.encoder[index](inputs[name]) * self.scale
            if self.pos_encoder is not None:
                table = self.pos_encoder[index]
                rows_TE = table.weight[: part_BTE.shape[1]] if positions is None else table(positions)
                part_BTE = part_BTE + rows_TE[None]
            parts.append(drop(part_BTE))
        x_BTE = jnp.concatenate(parts, axis=-1)
        return x_BTE if self.joint_embedding_layer is None else self.joint_embedding_layer(x_BTE)

    def _context(
        self, length: int, valid_BT: Bool[Array, "B T"] | None, positions: Int[Array, "T"] | None = None
    ) -> Context:
        if self.mask_padding and valid_BT is None:
            raise ValueError("this model keeps padding out of attention (mask_padding): valid_BT is needed.")
        places = np.arange(length) if positions is None else positions
        return Context(places, valid_BT if self.mask_padding else None)
