"""A pickle interpreter that cannot run code: a few opcodes, and names that mean what the caller says.

A pickle is a program for a stack machine. Two of its instructions make it dangerous: one fetches any
importable name, another calls it. Here a name is looked up in the caller's table of functions and anything
else is refused, as is every instruction that files of tensors have no use for. `pickletools` splits the
bytes into instructions; it executes none.
"""

import pickletools
import struct
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Value = Any
"""Whatever a pickle describes; a function that is given one checks it."""


class PickleError(ValueError):
    """A pickle that is damaged, or that asks for something that is not allowed."""


@dataclass(frozen=True)
class Function:
    """The meaning of a name that the pickle may call; `call` checks the arguments that it is given."""

    call: Callable[..., Value]


class Stateful(ABC):
    """A value to which the pickle may give a state after it was made."""

    @abstractmethod
    def set_state(self, state: Value) -> None:
        """Takes the state, or raises `PickleError`."""


class Record(dict[Value, Value], Stateful):
    """A mapping made by a call rather than by a literal; attributes that it is given are left out."""

    def set_state(self, state: Value) -> None:
        """Leaves `state` out."""
        if type(state) is not dict:
            raise PickleError("the pickle gives a mapping attributes that are no mapping")


class _Mark:
    """The place on the stack at which a group of values begins."""


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_CONTAINERS = {"EMPTY_DICT": dict, "EMPTY_LIST": list}


def unpickle(data: bytes, *, names: Mapping[str, Value], persistent: Callable[[Value], Value]) -> Value:
    """The value that a pickle of protocol 2 describes.

    Args:
      data: The pickle.
      names: What "module name" stands for, for each name that the pickle may use: a `Function`, or data.
      persistent: What a persistent id stands for.

    Raises:
      PickleError: If the pickle is damaged or asks for anything else; `names` and `persistent` may raise it.
    """
    machine = _Machine(names, persistent)
    try:
        # Of escapes in strings, which are refused with the instruction that they belong to.
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            for opcode, argument, _ in pickletools.genops(data):
                if opcode.name == "STOP":
                    return machine.result()
                machine.execute(opcode.name, argument)
    except PickleError:
        raise
    except (ValueError, struct.error, EOFError, IndexError, OverflowError) as error:
        raise PickleError(f"the pickle is damaged ({error})") from None
    raise PickleError("the pickle has no end")


class _Machine:
    """The stack and the memo of one run."""

    def __init__(self, names: Mapping[str, Value], persistent: Callable[[Value], Value]) -> None:
        self._names = names
        self._persistent = persistent
        self._stack: list[Value] = []
        self._memo: dict[int, Value] = {}

    def result(self) -> Value:
        if len(self._stack) != 1 or self._stack[0] is _Mark:
            raise PickleError(f"the pickle ends with {len(self._stack)} values instead of one")
        return self._stack[0]

    def execute(self, name: str, argument: Value) -> None:
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _CONTAINERS:
            self._stack.append(_CONTAINERS[name]())
        elif name in _TUPLES:
            self._stack.append(self._take(_TUPLES[name]))
        elif name in {"BINPUT", "LONG_BINPUT"}:
            self._memo[argument] = self._top()
        elif name in {"BINGET", "LONG_BINGET"}:
            if argument not in self._memo:
                raise PickleError(f"the pickle recalls value {argument}, which it never stored")
            self._stack.append(self._memo[argument])
        elif name == "MARK":
            self._stack.append(_Mark)
        elif name == "PROTO":
            if argument != 2:
                raise PickleError(f"the pickle has protocol {argument}, not 2")
        else:
            self._compose(name, argument)

    def _compose(self, name: str, argument: Value) -> None:
        match name:
            case "TUPLE":
                self._stack.append(self._take_marked())
            case "SETITEM":
                self._set_items(self._take(2))
            case "SETITEMS":
                self._set_items(self._take_marked())
            case "APPEND":
                self._extend(self._take(1))
            case "APPENDS":
                self._extend(self._take_marked())
            case "GLOBAL":
                self._stack.append(self._look_up(argument))
            case "BINPERSID":
                self._stack.append(self._persistent(self._take(1)[0]))
            case "REDUCE":
                self._call(*self._take(2))
            case "BUILD":
                self._build(self._take(1)[0])
            case _:
                raise PickleError(f"the pickle uses the instruction {name}, which is not allowed")

    def _top(self) -> Value:
        if not self._stack or self._stack[-1] is _Mark:
            raise PickleError("the pickle takes a value that is not there")
        return self._stack[-1]

    def _take(self, count: int) -> tuple[Value, ...]:
        values = tuple(self._stack[len(self._stack) - count :]) if count <= len(self._stack) else (_Mark,)
        if any(value is _Mark for value in values):
            raise PickleError("the pickle takes a value that is not there")
        del self._stack[len(self._stack) - count :]
        return values

    def _take_marked(self) -> tuple[Value, ...]:
        for index in range(len(self._stack) - 1, -1, -1):
            if self._stack[index] is _Mark:
                values = tuple(self._stack[index + 1 :])
                del self._stack[index:]
                return values
        raise PickleError("the pickle takes a group of values that has no beginning")

    def _look_up(self, name: str) -> Value:
        if name not in self._names:
            raise PickleError(f"the pickle refers to {name.replace(' ', '.')!r}, which is not allowed")
        return self._names[name]

    def _call(self, function: Value, arguments: Value) -> None:
        if type(function) is not Function or type(arguments) is not tuple:
            raise PickleError("the pickle calls something that is not a function")
        try:
            self._stack.append(function.call(*arguments))
        except TypeError as error:
            raise PickleError(f"the pickle calls a function wrongly ({error})") from None

    def _set_items(self, values: tuple[Value, ...]) -> None:
        target = self._top()
        if type(target) not in {dict, Record} or len(values) % 2:
            raise PickleError("the pickle sets items of something that is not a mapping")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) not in {str, int}:
                raise PickleError(f"the pickle has a key of type {type(key).__name__}, not str or int")
            target[key] = value

    def _extend(self, values: tuple[Value, ...]) -> None:
        target = self._top()
        if type(target) is not list:
            raise PickleError("the pickle appends to something that is not a list")
        target.extend(values)

    def _build(self, state: Value) -> None:
        target = self._top()
        if not isinstance(target, Stateful):
            raise PickleError("the pickle gives a state to something that has none")
        target.set_state(state)
