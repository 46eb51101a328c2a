"""Several arrays, such as the columns of several mapped files, that are read as one without a copy.

All of a process's memory has addresses in one line, and NumPy can lay an array over any part of it. So one
array is laid from the lowest of the parts to the end of the highest, and an element of any part is found in
it by adding the part's distance. What lies between the parts is never touched: the array is kept private, and
whoever asks for rows asks for rows of the parts. A batch costs the same whatever the number of parts.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, Shaped


class Spliced:
    """A read-only column of N rows in several parts."""

    def __init__(self, parts: Sequence[Shaped[np.ndarray, "_"]]) -> None:
        """Takes hold of the parts.

        Args:
          parts: Arrays that are not empty, at least one; those of a smaller type than others are copied.
        """
        self.dtype = np.result_type(*{part.dtype for part in parts})
        """The type of all parts."""
        self.parts = [_aligned(part.astype(self.dtype, copy=False)) for part in parts]
        """The arrays, in order."""
        lengths = np.array([len(part) for part in self.parts])
        addresses = np.array([_address(part) for part in self.parts])
        self._first_row = np.cumsum(lengths) - lengths
        place = (addresses - addresses.min()) // self.dtype.itemsize
        self._distance = place - self._first_row
        self._memory = np.lib.stride_tricks.as_strided(
            self.parts[int(np.argmin(addresses))],
            shape=(int((place + lengths).max()),),
            strides=(self.dtype.itemsize,),
            writeable=False,
        )

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def nbytes(self) -> int:
        """Bytes that the rows take."""
        return len(self) * self.dtype.itemsize

    def __array__(
        self,
        dtype: np.dtype | None = None,
        copy: bool | None = None,  # noqa: FBT001 (NumPy's protocol)
    ) -> Shaped[np.ndarray, "N"]:
        """A copy in one piece."""
        if copy is False:
            raise ValueError("Parts cannot be one array without a copy.")
        return np.concatenate(self.parts, dtype=dtype)

    def consecutive(
        self, begin: Int64[np.ndarray, "B"], length: int
    ) -> Shaped[np.ndarray, "B length"] | None:
        """`consecutive` of these rows."""
        part = np.searchsorted(self._first_row, begin + (length - 1), side="right") - 1
        if (begin < self._first_row[part]).any():
            return None
        return _lines(self._memory, begin + self._distance[part], length)

    def take(self, rows: Int64[np.ndarray, "B slots"]) -> Shaped[np.ndarray, "B slots"]:
        """The values at `rows`; those of each line must lie in one part."""
        part = np.searchsorted(self._first_row, rows[:, -1], side="right") - 1
        return self._memory.take(rows + self._distance[part][:, None])


def consecutive(
    column: Shaped[np.ndarray, "N"] | Spliced, begin: Int64[np.ndarray, "B"], length: int
) -> Shaped[np.ndarray, "B length"] | None:
    """Consecutive rows of a column; None if some do not exist, or do not lie in the part of the last one.

    Args:
      column: The column.
      begin: The first row of each run; the last one must exist.
      length: Rows a run.
    """
    if isinstance(column, Spliced):
        return column.consecutive(begin, length)
    fine = begin.min(initial=0) >= 0 and column.flags.c_contiguous
    return _lines(column, begin, length) if fine else None


def _lines(
    memory: Shaped[np.ndarray, "N"], begin: Int64[np.ndarray, "B"], length: int
) -> Shaped[np.ndarray, "B length"]:
    # Line k of this array begins at element k, so that lines overlap.
    shape = (max(len(memory) - length + 1, 0), length)
    strides = (memory.dtype.itemsize, memory.dtype.itemsize)
    return np.ndarray(shape, memory.dtype, buffer=memory, strides=strides)[begin]


def spliced(columns: Sequence[Shaped[np.ndarray, "_"] | Spliced]) -> Shaped[np.ndarray, "N"] | Spliced:
    """Several columns as one, at least one; a single array stays as it is."""
    parts = [part for column in columns for part in parts_of(column)]
    filled = [part for part in parts if len(part)] or parts[:1]
    return filled[0] if len(filled) == 1 else Spliced(filled)


def parts_of(column: Shaped[np.ndarray, "N"] | Spliced) -> Sequence[Shaped[np.ndarray, "_"]]:
    """The arrays that a column consists of."""
    return column.parts if isinstance(column, Spliced) else [column]


def _address(part: Shaped[np.ndarray, "N"]) -> int:
    return part.__array_interface__["data"][0]


def _aligned(part: Shaped[np.ndarray, "N"]) -> Shaped[np.ndarray, "N"]:
    """The part, or a copy where its elements do not lie at multiples of their size."""
    part = np.ascontiguousarray(part)
    return part.copy() if _address(part) % part.dtype.itemsize else part
