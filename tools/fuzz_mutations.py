"""Damage to valid input: bytes that change, values that are others, csv in other dialects.

Everything is a function of a `random.Random`, so that a case is known by its number.
"""

import gzip
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

BYTES = [bytes([byte]) for byte in b'\x00\xff\x7f\x80\n\r",{[:-9'] + [b"\xe2\x80"]
NUMBERS: list[Any] = [
    *(0, 1, -1, 2, 7, 2**31, -(2**31) - 1, 2**63, -(2**63) - 1, 10**30),
    *(0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf")),
]
TEXTS = ["", " ", "x", "0", "é\u2028\x00", "../x", "a" * 300, "null", "1e5", "int64", "2024-01-01"]
LISTS: list[Any] = [[], [0], [None], [[]], ["a", "a"], [1, 2, 3], [0.5, 0.5]]
VALUES: list[Any] = [*(None, True, False, {}, {"": 0}, {"a": {}}, {"x": "y"}), *NUMBERS, *TEXTS, *LISTS]
CELLS = [
    *("", "null", "NaN", "inf", "-inf", "1", "-0", "1.0", "1e400", "0x1F", "1,5", "1_000", " 7", "7 ", "\\N"),
    *(
        "99999999999999999999999",
        "-9223372036854775808",
        "9223372036854775808",
        "true",
        "False",
        "2024-01-01",
    ),
    *("é", "a b", '"', '""', "'", "\t", "x" * 2000, "\x00", "=1+1", "#", "//"),
]


def mutated_bytes(rng: random.Random, data: bytes) -> bytes:
    """Some bytes changed, left out, put in, moved or cut off."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        rng.choice(_BYTE_CHANGES)(rng, changed)
    return bytes(changed)


def _flip(rng: random.Random, data: bytearray) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _overwrite(rng: random.Random, data: bytearray) -> None:
    begin, length = _place(rng, data), rng.choice([1, 1, 2, 4, 8])
    filler = rng.choice([b"\x00", b"\xff", rng.randbytes(1)])
    data[begin : begin + length] = filler * min(length, len(data) - begin)


def _insert(rng: random.Random, data: bytearray) -> None:
    begin = _place(rng, data)
    data[begin:begin] = rng.choice([*BYTES, rng.randbytes(4), rng.choice(BYTES) * rng.choice([3, 100, 2000])])


def _delete(rng: random.Random, data: bytearray) -> None:
    begin = _place(rng, data)
    del data[begin : begin + rng.choice([1, 1, 2, 8, 64, 1000])]


def _repeat(rng: random.Random, data: bytearray) -> None:
    begin, to, length = _place(rng, data), _place(rng, data), rng.choice([1, 4, 16, 200])
    data[to:to] = data[begin : begin + length]


def _truncate(rng: random.Random, data: bytearray) -> None:
    del data[_place(rng, data) :]


def _truncate_front(rng: random.Random, data: bytearray) -> None:
    del data[: _place(rng, data)]


_BYTE_CHANGES: list[Callable[[random.Random, bytearray], None]] = [
    _flip,
    _flip,
    _overwrite,
    _overwrite,
    _insert,
    _delete,
    _repeat,
    _truncate,
    _truncate_front,
]


def _place(rng: random.Random, data: bytearray) -> int:
    """Anywhere, the beginning and the end more often."""
    edge = min(64, len(data))
    return rng.choice([rng.randint(0, len(data)), rng.randint(0, edge), len(data) - rng.randint(0, edge)])


def mutated_tree(rng: random.Random, value: Any, depth: int = 0) -> Any:  # noqa: ANN401
    """A value of dicts and lists with one thing changed."""
    if depth and rng.random() < 0.15:
        return odd_value(rng)
    if isinstance(value, dict) and value:
        key = rng.choice(list(value))
        match rng.choice(["value", "value", "value", "delete", "rename", "add"]):
            case "value":
                return {**value, key: mutated_tree(rng, value[key], depth + 1)}
            case "delete":
                return {name: item for name, item in value.items() if name != key}
            case "rename":
                renamed = rng.choice([key + "x", key[1:], key.upper(), "", "é", "__proto__"])
                return {renamed if name == key else name: item for name, item in value.items()}
        return {**value, rng.choice(["", "new", "path", "1"]): odd_value(rng)}
    if isinstance(value, list) and value:
        place = rng.randrange(len(value))
        match rng.choice(["value", "value", "delete", "repeat", "reverse"]):
            case "value":
                return [*value[:place], mutated_tree(rng, value[place], depth + 1), *value[place + 1 :]]
            case "delete":
                return [*value[:place], *value[place + 1 :]]
            case "repeat":
                return [*value, *[value[place]] * rng.choice([1, 50])]
        return value[::-1]
    return odd_value(rng)


def odd_value(rng: random.Random) -> Any:  # noqa: ANN401
    """A value that belongs nowhere, sometimes nested deeply."""
    if rng.random() < 0.02:
        return Nested(rng.choice([10, 200, 5000, 100_000]), rng.choice(["[]", "{}"]))
    return rng.choice(VALUES)


@dataclass(frozen=True)
class Nested:
    """A list in a list in a list ..., or a mapping in a mapping ...; too deep for Python's own objects."""

    depth: int
    brackets: str

    def json(self) -> str:
        """The value as JSON."""
        begin = '{"a":' if self.brackets == "{}" else "["
        return begin * self.depth + "0" + self.brackets[1] * self.depth


def json_of(value: Any) -> str:  # noqa: ANN401
    """JSON of a value that may hold `Nested`; NaN and infinity as Python writes them."""
    if isinstance(value, Nested):
        return value.json()
    if isinstance(value, dict):
        return (
            "{" + ",".join(f"{json.dumps(str(name))}:{json_of(item)}" for name, item in value.items()) + "}"
        )
    if isinstance(value, list):
        return "[" + ",".join(map(json_of, value)) + "]"
    return json.dumps(value)


def csv_in_a_dialect(rng: random.Random, header: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    """A table as some other program might write it, or as it should not."""
    table = [list(header), *map(list, rows)]
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        line = rng.choice(table)
        rng.choice([_odd_cell, _odd_cell, _odd_cell, _odd_cell, _ragged, _ragged_short])(rng, line)
    separator = rng.choice([*[","] * 12, ";", "\t", "|", ", "])
    newline = rng.choice([*["\n"] * 9, "\r\n", "\r\n", "\r", "\n\n", " \n"])
    quote = rng.choice([*["needed"] * 6, "never", "all", "all", "single"])
    text = newline.join(separator.join(_quoted(cell, quote, separator) for cell in line) for line in table)
    text += rng.choice(["", *[newline] * 6, newline * 3, '"', "\x1a"])
    text = rng.choice([*[""] * 9, "\ufeff", "# comment\n", "sep=,\n", "\n"]) + text
    encoding = rng.choice([*["utf-8"] * 9, "utf-16", "latin-1", "cp1252", "utf-8-sig"])
    data = text.encode(encoding, errors="replace")
    return gzip.compress(data, 1) if rng.random() < 0.1 else data


def _odd_cell(rng: random.Random, line: list[str]) -> None:
    line[rng.randrange(len(line))] = rng.choice(CELLS)


def _ragged(rng: random.Random, line: list[str]) -> None:
    line.insert(rng.randint(0, len(line)), rng.choice(CELLS))


def _ragged_short(rng: random.Random, line: list[str]) -> None:
    if len(line) > 1:
        del line[rng.randrange(len(line))]


def _quoted(cell: str, quote: str, separator: str) -> str:
    if quote == "all" or (quote == "needed" and any(mark in cell for mark in (separator, '"', "\n", "\r"))):
        return '"' + cell.replace('"', '""') + '"'
    return f"'{cell}'" if quote == "single" else cell
