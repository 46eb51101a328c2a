"""Reading YAML strictly: plain data only, numbers as people write them, and every mistake with its line.

PyYAML parses; the values are made here, by the core schema of YAML 1.2: `1e-3` is a number, and `no`, `on`
and `2024-01-01` are text. A key that appears twice and a tag such as `!!python/object` are errors. Of YAML
1.1 only merge keys (`<<`) are kept. What `to_yaml` writes is read back as it was.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

from seqjax.errors import ConfigError, Problem

_CONSTANTS = {
    **dict.fromkeys(["", "~", "null", "Null", "NULL"], None),
    **dict.fromkeys(["true", "True", "TRUE"], True),
    **dict.fromkeys(["false", "False", "FALSE"], False),
    **dict.fromkeys([".nan", ".NaN", ".NAN"], math.nan),
}
_INTEGER = re.compile(r"[-+]?[0-9]{1,300}")
_BASED_INTEGER = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITY = re.compile(r"([-+]?)\.(inf|Inf|INF)")
# Characters that JSON leaves as they are, but that YAML takes for line breaks or does not take at all.
_NOT_PLAIN = re.compile(r"[\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff]")
_PLAIN_TAGS = {"tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"}


def parse_yaml(text: str, source: str) -> object:
    """The value that a YAML document describes, made of dicts, lists, text, numbers, booleans and None.

    Args:
      text: One YAML document; an empty one is None.
      source: What to call the text in a message, such as a file name.

    Raises:
      ConfigError: with line and column, for anything that is not plain YAML.
    """
    try:
        node = yaml.compose(text, Loader=yaml.BaseLoader)
        return None if node is None else _Builder().value(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = error.problem or error.context or "is no YAML"
        if what.startswith("but "):
            what = f"{error.context}, {what}"
        raise ConfigError(source, [Problem(where, f"{what}.")]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"the character U+{error.character:04X} cannot stand in YAML."
        raise ConfigError(source, [Problem(f"line {line}", what)]) from None
    except RecursionError:
        raise ConfigError(source, [Problem("", "is nested too deeply.")]) from None


def parse_scalar(text: str) -> float | bool | str | None:
    """The value of an unquoted word: a number, a boolean, None, or the text itself."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _BASED_INTEGER.fullmatch(text):
        return int(text, base=0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if infinity := _INFINITY.fullmatch(text):
        return -math.inf if infinity[1] == "-" else math.inf
    return text


def to_yaml(values: Mapping[str, Any], sections: int = 1) -> str:
    """YAML that `parse_yaml` reads back as `values`: one line a key, each value as JSON.

    Args:
      values: What JSON can hold: None, booleans, finite numbers, text, lists, mappings with text keys.
      sections: How many levels of mappings are written with one line a key.
    """
    lines = []
    for key, value in values.items():
        if sections and isinstance(value, Mapping) and value:
            inner = to_yaml(value, sections - 1).splitlines()
            lines += [f"{_scalar_text(key)}:", *(f"  {line}" for line in inner)]
        else:
            lines.append(f"{_scalar_text(key)}: {_json(value)}")
    return "".join(f"{line}\n" for line in lines) or "{}\n"


def _scalar_text(key: str) -> str:
    """A key as YAML writes it: bare where nothing can be mistaken."""
    bare = re.fullmatch(r"[A-Za-z_]\w*", key, flags=re.ASCII) and parse_scalar(key) == key
    return key if bare else _json(key)


def _json(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return _NOT_PLAIN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class _Builder:
    """Makes values out of composed nodes; a node that aliases name again is made once."""

    def __init__(self) -> None:
        self._made: dict[int, Any] = {}
        self._unfinished: set[int] = set()

    def value(self, node: yaml.Node) -> object:
        if id(node) in self._unfinished:
            raise _mistake(node, "an alias stands for something that contains it")
        if id(node) not in self._made:
            self._unfinished.add(id(node))
            self._made[id(node)] = self._new_value(node)
            self._unfinished.remove(id(node))
        return self._made[id(node)]

    def _new_value(self, node: yaml.Node) -> object:
        if node.tag not in _PLAIN_TAGS:
            raise _mistake(
                node,
                f"the tag {node.tag!r} is not allowed; values are plain text, numbers, lists and mappings",
            )
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node)
        assert isinstance(node, yaml.ScalarNode)
        return node.value if node.style else parse_scalar(node.value)

    def _mapping(self, node: yaml.MappingNode) -> dict[Any, Any]:
        merged: dict[Any, Any] = {}
        own: dict[Any, Any] = {}
        lines: dict[Any, int] = {}
        for key_node, value_node in node.value:
            if _is_merge_key(key_node):
                merged |= self._merged(value_node)
                continue
            key = self.value(key_node)
            if isinstance(key, dict | list | bool) or key is None:
                raise _mistake(key_node, "a key must be text or a number")
            if key in own:
                raise _mistake(key_node, f"the key {key!r} is already in line {lines[key]}; keep one of them")
            own[key] = self.value(value_node)
            lines[key] = key_node.start_mark.line + 1
        return merged | own

    def _merged(self, node: yaml.Node) -> dict[Any, Any]:
        value = self.value(node)
        mappings = value if isinstance(value, list) else [value]
        merged: dict[Any, Any] = {}
        for mapping in reversed(mappings):  # The first of several mappings wins.
            if not isinstance(mapping, dict):
                raise _mistake(node, "'<<' takes a mapping, or a list of mappings")
            merged |= mapping
        return merged


def _is_merge_key(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.value == "<<" and not node.style


def _mistake(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
