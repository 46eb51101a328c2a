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

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Num

from seqjax.config.model import ModelSpec
from seqjax.config.schema import Schema
from seqjax.model.attention import attention_bias
from seqjax.model.block import Block
from seqjax.model.cache import Cache, made_valid, slot_bias, written
from seqjax.model.dropout import Drop, keep_all
from seqjax.model.embedding import Table, make_encoder
from seqjax.model.heads import make_head, predictions
from seqjax.model.linear import Linear, small_normal, zeros
from seqjax.model.norm import make_norm
from seqjax.model.position import Rotation, rotation


class Transformer(nnx.Module):
    """A model of the columns of `schema` with the architecture of `spec`.

    In every method `inputs` holds each input column, ids (B, T) int or standardised values (B, T) float, and
    `valid_BT` says which positions hold a real item rather than padding; it is not used by a model without
    `mask_padding`, and may be None there.
    """

    def __init__(self, schema: Schema, spec: ModelSpec, *, rng: np.random.Generator) -> None:
        dims = schema.embedding_dims(spec.initial_embedding_dim, spec.feature_embedding_dims)
        self.inputs = schema.inputs
        self.targets = tuple(schema.targets.items())
        self.mask_padding = spec.mask_padding
        self.prediction_length = spec.prediction_length
        self.scale = math.sqrt(spec.initial_embedding_dim)
        self.rope = (spec.head_dim, spec.rope_theta) if spec.positional_encoding == "rope" else None
        classes = {name: schema.n_classes[name] for name in schema.categorical_inputs}
        self.encoder = nnx.List(make_encoder(classes.get(name), dims[name], rng=rng) for name in dims)
        self.pos_encoder = None if self.rope else nnx.List(_position_tables(schema, dims, rng=rng))
        self.joint_embedding_layer = _joint_layer(spec, rng=rng)
        self.layers = nnx.List(Block(spec, rng=rng) for _ in range(spec.num_layers))
        self.final_norm = make_norm(spec.normalization, spec.dim_model) if spec.norm_first else None
        self.decoder = nnx.List(
            make_head(spec.dim_model, schema.head_width(name), rng=rng) for name in schema.targets
        )

    def __call__(
        self,
        inputs: Mapping[str, Num[Array, "B T"]],
        valid_BT: Bool[Array, "B T"] | None = None,
        *,
        dropout: Drop | None = None,
        last: int | None = None,
        positions: Int[Array, "T"] | None = None,
        dtype: DTypeLike = jnp.float32,
    ) -> dict[str, Float[Array, "B P _"]]:
        """Each target's float32 logits (B, P, C), or standardised values (B, P, 1).

        Args:
          inputs: Each input column.
          valid_BT: Which positions hold a real item.
          dropout: A fresh one for this pass; None drops nothing.
          last: P, how many trailing positions to compute; None is all T.
          positions: The position of each item; None is 0 .. T-1.
          dtype: Format of the vectors between layers; a layer computes in that of its weights.
        """
        hidden_BPD = self.hidden(
            inputs, valid_BT, dropout=dropout, last=last, positions=positions, dtype=dtype
        )
        return self._decode(hidden_BPD)

    def hidden(
        self,
        inputs: Mapping[str, Num[Array, "B T"]],
        valid_BT: Bool[Array, "B T"] | None = None,
        *,
        dropout: Drop | None = None,
        last: int | None = None,
        positions: Int[Array, "T"] | None = None,
        dtype: DTypeLike = jnp.float32,
    ) -> Float[Array, "B P D"]:
        """The vectors that the heads read; the arguments are those of a call."""
        self._check_mask(valid_BT)
        *_, x_BPD = self._outputs(
            inputs, valid_BT, keep_all if dropout is None else dropout, last, positions=positions, dtype=dtype
        )
        return self._finish(x_BPD)

    def _outputs(
        self,
        inputs: Mapping[str, Num[Array, "B T"]],
        valid_BT: Bool[Array, "B T"] | None,
        drop: Drop,
        last: int | None,
        *,
        positions: Int[Array, "T"] | None = None,
        dtype: DTypeLike = jnp.float32,
    ) -> Iterator[Float[Array, "B _ D"]]:
        """What the first layer reads, then each layer's output; of the last layer, at the last positions."""
        x_BTD = self._embed(inputs, positions, drop).astype(dtype)
        yield x_BTD
        length = x_BTD.shape[1]
        bias = attention_bias(length, valid_BT if self.mask_padding else None)
        rope = self._rotation(length, positions)
        newest = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            x_BTD = layer(x_BTD, bias, rope, drop=drop, last=last if index == newest else None)
            yield x_BTD

    def predict(
        self,
        inputs: Mapping[str, Num[Array, "B T"]],
        valid_BT: Bool[Array, "B T"] | None = None,
        *,
        dropout: Drop | None = None,
    ) -> dict[str, Float[Array, "B P _"]]:
        """The generative model: each target's log-probabilities (B, P, C), or standardised values (B, P, 1).

        P is `prediction_length`: the last P positions, each predicting its next item.
        """
        raw = self(inputs, valid_BT, dropout=dropout, last=self.prediction_length)
        return predictions(raw, dict(self.targets))

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
        self._check_mask(valid_BT)
        states = self._outputs(inputs, valid_BT, keep_all if dropout is None else dropout, last)
        held = list(itertools.islice(states, max(layers) + 1))
        parts = [
            self._finish(held[layer]) if layer == count else held[layer][:, held[layer].shape[1] - last :]
            for layer in layers
        ]
        return jnp.concatenate(parts, axis=-1)

    def remember(
        self, inputs: Mapping[str, Num[Array, "B L"]], valid_BL: Bool[Array, "B L"] | None = None
    ) -> tuple[dict[str, Float[Array, "B 1 _"]], Cache]:
        """What a call gives at the last position, and a cache to `proceed` from; rotary models only."""
        if self.rope is None:
            raise ValueError("keys and values can only be kept where positions are rotary.")
        self._check_mask(valid_BL)
        x_BLD = self._embed(inputs, None, keep_all).astype(jnp.float32)
        batch, length, _ = x_BLD.shape
        bias, rope = (
            attention_bias(length, valid_BL if self.mask_padding else None),
            self._rotation(length, None),
        )
        kept = []
        for layer in self.layers:
            read_BLD = layer.attended(x_BLD)
            kept.append(layer.attn.keys_values(read_BLD, rope))
            mixed_BLD = layer.attn.attend(read_BLD, kept[-1], bias, rope, drop=keep_all)
            x_BLD = layer.add(x_BLD, mixed_BLD, keep_all)
        seen_BL = (
            valid_BL if self.mask_padding and valid_BL is not None else jnp.ones((batch, length), jnp.bool_)
        )
        return self._decode(self._finish(x_BLD[:, -1:])), Cache(tuple(kept), seen_BL, jnp.int32(length))

    def proceed(
        self, item: Mapping[str, Num[Array, "B 1"]], cache: Cache
    ) -> tuple[dict[str, Float[Array, "B 1 _"]], Cache]:
        """What a call gives at one more item, which sees the newest L, and the cache with that item in it."""
        slot = cache.position % cache.valid_BL.shape[1]
        valid_BL = made_valid(cache.valid_BL, slot)
        bias, rope = slot_bias(valid_BL), self._rotation(1, cache.position[None])
        x_B1D = self._embed(item, None, keep_all).astype(jnp.float32)
        kept = []
        for layer, ring in zip(self.layers, cache.layers, strict=True):
            read_B1D = layer.attended(x_B1D)
            kept.append(written(ring, layer.attn.keys_values(read_B1D, rope), slot))
            mixed_B1D = layer.attn.attend(read_B1D, kept[-1], bias, rope, drop=keep_all)
            x_B1D = layer.add(x_B1D, mixed_B1D, keep_all)
        return self._decode(self._finish(x_B1D)), Cache(tuple(kept), valid_BL, cache.position + 1)

    def _check_mask(self, valid_BT: Bool[Array, "B T"] | None) -> None:
        if self.mask_padding and valid_BT is None:
            raise ValueError("this model keeps padding out of attention (mask_padding): valid_BT is needed.")

    def _finish(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return x_BTD if self.final_norm is None else self.final_norm(x_BTD)

    def _decode(self, hidden_BPD: Float[Array, "B P D"]) -> dict[str, Float[Array, "B P _"]]:
        heads = zip(self.targets, self.decoder, strict=True)
        return {name: head(hidden_BPD).astype(jnp.float32) for (name, _), head in heads}

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

    def _rotation(self, length: int, positions: Int[Array, "T"] | None) -> Rotation | None:
        if self.rope is None:
            return None
        width, theta = self.rope
        return rotation(np.arange(length) if positions is None else positions, width, theta)


def _position_tables(schema: Schema, dims: Mapping[str, int], *, rng: np.random.Generator) -> list[Table]:
    return [Table(schema.seq_length, width, rng=rng) for width in dims.values()]


def _joint_layer(spec: ModelSpec, *, rng: np.random.Generator) -> Linear | None:
    width = spec.joint_embedding_dim
    if width is None:
        return None
    return Linear(spec.initial_embedding_dim, width, rng=rng, weight_init=small_normal, bias_init=zeros)
