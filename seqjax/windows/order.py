"""The order of an epoch, computed: which windows make up which batch.

A seeded bijection of 0..n-1 says which window comes at which place, so that an order of any length takes no
memory, any batch of it is found by its number, and going on at any batch is exact. It is the swap-or-not
shuffle of Hoang, Morris and Rogaway ("An Enciphering Scheme Based on a Card Shuffle", CRYPTO 2012): a round
pairs every x with its partner K - x (modulo n), and swaps the two or not, by a bit that is a hash of the
larger one. It suits any n, and consists of elementwise operations on integers, which numpy and jax do alike.

    order = Order(len(windows), 128, seed=1010, epoch=1)
    order.batch(17)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int, Int64, UInt

SPARE_ROUNDS = 10
"""Rounds of a shuffle beyond log2 n. After r rounds, n / 2^r windows more than at random are where they were,
and as many pairs of neighbours are still neighbours; no other statistic that was tried needs as many."""

_MULTIPLIERS = {32: (0x7FEB352D, 0x846CA68B), 64: (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53)}
"""Odd multipliers of well-known hashes (lowbias32, MurmurHash3), by the number of bits."""


@dataclass(frozen=True)
class Order:
    """The batches of an epoch; every window is in exactly one."""

    n: int
    """Number of windows."""
    batch_size: int
    seed: int = 0
    epoch: int = 0
    """Each epoch has an order of its own."""
    shuffle: bool = True
    """False leaves windows in their own order."""

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def batch(self, number: int) -> Int64[np.ndarray, "B"]:
        """The windows of a batch; -1 fills up the last one."""
        return self.batches(number, number + 1)[0]

    def batches(self, begin: int = 0, end: int | None = None) -> Int64[np.ndarray, "k B"]:
        """The windows of some batches.

        Args:
          begin: Number of the first batch.
          end: Number after that of the last one; None is all.
        """
        return Updates([self], Grouping(self.batch_size)).batches(begin, end)

    def samples(self, begin: int, end: int) -> int:
        """Number of windows in the batches from `begin` to `end`."""
        return min(end * self.batch_size, self.n) - min(begin * self.batch_size, self.n)

    @cached_property
    def keys(self) -> UInt[np.ndarray, "rounds 2"] | None:
        """The sum K of partners and the salt of the hash of each round; None without a shuffle."""
        if not self.shuffle:
            return None
        rounds = self.n.bit_length() + SPARE_ROUNDS
        words = np.random.SeedSequence((self.seed, self.epoch)).generate_state(2 * rounds, np.uint64)
        keys = words.reshape(rounds, 2)
        keys[:, 0] %= np.uint64(max(self.n, 1))
        return keys.astype(np.uint32) if self.n < 1 << 31 else keys


@dataclass(frozen=True)
class Grouping:
    """The grouping of batches into updates, in rows that devices can share.

    The rows of an update are those of its micro-batches, interleaved: row i is of micro-batch i modulo their
    number, so that a cut of the whole cuts every micro-batch.
    """

    batch_size: int
    accumulation: int = 1
    """Batches an update; the last update is filled up."""
    micro_batches: int = 1
    """Micro-batches a batch, which is filled up."""
    devices: int = 1
    """Devices that share each micro-batch, which is filled up."""

    @property
    def micro_batch_size(self) -> int:
        """Rows of a micro-batch."""
        return -(-self.batch_size // (self.micro_batches * self.devices)) * self.devices

    @property
    def width(self) -> int:
        """Rows of an update."""
        return self.accumulation * self.micro_batches * self.micro_batch_size

    def places(self, update: Int[Any, "..."], row: Int[Any, "..."], n: int | Int[Any, ""]) -> Int[Any, "..."]:
        """Places of rows in the order of an epoch, counted from 0; n, or more, for rows that fill up.

        Args:
          update: Number of the update.
          row: Number of the row in the update; signed integers of numpy or jax.
          n: Number of windows.
        """
        count = self.accumulation * self.micro_batches
        micro, slot = row % count, row // count
        batch = update * self.accumulation + micro // self.micro_batches
        column = micro % self.micro_batches * self.micro_batch_size + slot
        xp = row.__array_namespace__()
        return xp.where(column < self.batch_size, batch * self.batch_size + column, n)


@dataclass(frozen=True)
class Updates:
    """Orders of equally many windows and batches as updates, which have the rows of one after the other."""

    orders: Sequence[Order]
    grouping: Grouping
    rows: slice | None = None
    """The rows of an update that are asked for; None is all."""

    def __len__(self) -> int:
        return -(-len(self.orders[0]) // self.grouping.accumulation)

    @property
    def shuffle(self) -> bool:
        """True if windows come in another order than their own."""
        return any(order.shuffle for order in self.orders)

    @property
    def batch_size(self) -> int:
        """Number of the rows that are asked for."""
        return len(range(len(self.orders) * self.grouping.width)[self.rows or slice(None)])

    def batches(self, begin: int = 0, end: int | None = None) -> Int64[np.ndarray, "k rows"]:
        """The windows of some updates; -1 in rows that fill up."""
        end = len(self) if end is None else min(end, len(self))
        update = np.arange(begin, end)[:, None]
        windows = [
            windows_at(
                self.grouping.places(update, np.arange(self.grouping.width), order.n), order.n, order.keys
            )
            for order in self.orders
        ]
        return np.concatenate(windows, axis=1)[:, self.rows or slice(None)]


def windows_at(
    place: Int[Any, "..."], n: int | Int[Any, ""], keys: UInt[Any, "rounds 2"] | None
) -> Int[Any, "..."]:
    """Numbers of the windows at some places of an order; -1 for places beyond its end.

    Args:
      place: Places, signed integers of numpy or jax.
      n: Number of windows.
      keys: As `Order.keys`.
    """
    xp = place.__array_namespace__()
    if keys is None:
        return xp.where(place < n, place, -1)
    image = shuffled(xp.minimum(place, n - 1).astype(keys.dtype), n, keys)
    return xp.where(place < n, image.astype(place.dtype), -1)


def shuffled(x: UInt[Any, "..."], n: int | Int[Any, ""], keys: UInt[Any, "rounds 2"]) -> UInt[Any, "..."]:
    """Images of numbers below n under the bijection of some keys, which are of the same type."""
    xp = x.__array_namespace__()
    size = xp.asarray(n).astype(x.dtype)
    for key in keys:
        difference = key[0] - x
        partner = xp.minimum(difference, difference + size)  # One of the two has wrapped around.
        # As `where`, which takes numpy ten times as long.
        x = x ^ (x ^ partner) * _bit(xp.maximum(x, partner) ^ key[1])
    return x


def _bit(x: UInt[Any, "..."]) -> UInt[Any, "..."]:
    """0 or 1, which all bits of a number decide on."""
    bits = 8 * x.dtype.itemsize
    first, second = _MULTIPLIERS[bits]
    x = x * x.dtype.type(first)
    x = (x ^ (x >> (bits // 2 - 1))) * x.dtype.type(second)
    return x >> (bits - 1)
