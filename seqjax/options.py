"""From a config model to command-line options, and from the options given to nested overrides.

Every field of the model, in its sections too, becomes an option that may be left out: tyro parses a dataclass
that is generated here, in which a value is the words as typed, or None where the option was not given. What
the words mean is decided by the field's type, and whether they are right by the one validation that follows
the merge with the YAML file. Sections become `--section.key`; mappings are given as YAML, such as
`'{item: MSELoss}'`.
"""

import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

import tyro
from pydantic.fields import FieldInfo
from tyro.constructors import PrimitiveConstructorSpec

from seqjax.command import Command
from seqjax.config.base import ConfigModel, closed_section_of, section_of, shown
from seqjax.config.yaml_text import parse_scalar, parse_yaml

_Field: TypeAlias = tuple[str, Any, Any]


def options_class(model: type[ConfigModel], command: Command) -> type:
    """The dataclass whose fields are the options of a command.

    Args:
      model: The command's config model.
      command: The command.
    """
    fields: list[_Field] = []
    if command.config_path is not None:
        about = "The YAML file with the configuration; the options below override its keys."
        path = tyro.conf.arg(help=about, metavar="PATH")
        fields.append(("config_path", Annotated[str, path], dataclasses.field(default=command.config_path)))
    for name, (short, about) in command.switches.items():
        fields.append(_flag(name, about, short))
    for name, (_, about) in command.variables.items():
        text = tyro.conf.arg(help=about, metavar="TEXT", help_behavior_hint="")
        fields.append((name, Annotated[str | None, text], dataclasses.field(default=None)))
    for name, field in _required_first(model):
        if name in command.positional:
            option = _option(field, metavar=name.upper())
            fields.append((name, Annotated[option, tyro.conf.Positional], dataclasses.field()))
        elif command.config_path is None and field.annotation is bool:
            fields.append(_flag(name, _about(field)))
        else:
            fields.append(_field(name, field, command.short.get(name, ())))
    return _dataclass(model, fields)


def overrides(options: object, model: type[ConfigModel], prefix: str = "") -> dict[str, Any]:
    """The keys that were given as options, nested as the YAML is.

    Args:
      options: An instance of the model's `options_class`.
      model: The command's config model.
      prefix: What the names of the options start with, for messages.
    """
    result = {}
    for name, field in model.model_fields.items():
        given = getattr(options, name)
        section = closed_section_of(field.annotation)
        if section is not None:
            given = overrides(given, section, f"{prefix}{name}.")
            if given:
                result[name] = given
        elif isinstance(given, bool):
            result |= {name: True} if given else {}
        elif given is not None:
            result[name] = read_words(given, field.annotation, f"{prefix}{name}")
    return result


def read_words(words: Sequence[str], annotation: object, name: str) -> object:
    """Reads the value that the words of one option give.

    Args:
      words: The words as typed.
      annotation: The type of the option's field, which tells text from YAML, and one value from several.
      name: The option's key, for messages.
    """
    form = _form(annotation)
    if list(words) in (["None"], ["null"]):  # The first is the documented one.
        return None
    if form.many and not (len(words) == 1 and words[0].startswith(("[", "{"))):
        values = list(words) if form.text else [parse_scalar(word) for word in words]
        return values[0] if form.one and len(values) == 1 else values
    return words[0] if form.text and not form.many else parse_yaml(words[0], f"--{name.replace('_', '-')}")


@dataclasses.dataclass(frozen=True)
class _Form:
    """The form of values on the command line: the placeholder, text or YAML, one word or several."""

    metavar: str
    text: bool = False
    one: bool = True
    many: bool = False


_SCALARS: dict[object, _Form] = {
    bool: _Form("{true,false}"),
    int: _Form("INT"),
    float: _Form("FLOAT"),
    str: _Form("TEXT", text=True),
}


def _form(annotation: object) -> _Form:
    origin, members = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _form(members[0])
    if origin in {Union, types.UnionType}:
        forms = [_form(member) for member in members if member is not types.NoneType]
        if forms[0].many and section_of(members[-1]):
            return forms[0]  # A list, or a section in its place: one word is a list of one.
        return dataclasses.replace(
            forms[0],
            text=all(form.text for form in forms),
            one=any(form.one for form in forms),
            many=any(form.many for form in forms),
            metavar=max((form.metavar for form in forms), key=len),
        )
    if origin is Literal:
        return _Form(
            "{" + ",".join(map(str, members)) + "}", text=all(isinstance(member, str) for member in members)
        )
    if origin in {list, tuple}:
        item = _form(members[0])
        return dataclasses.replace(item, metavar=f"{item.metavar} ...", one=False, many=True)
    if origin is dict:
        key, value = map(_form, members)
        held = f"[{value.metavar.removesuffix(' ...')}, ...]" if value.many else value.metavar
        return _Form("{" + f"{key.metavar}: {held}, ..." + "}")
    return _SCALARS.get(annotation, _Form("{name: TEXT, ...}" if section_of(annotation) else "YAML"))


def _dataclass(model: type[ConfigModel], fields: list[_Field]) -> type:
    return dataclasses.make_dataclass(
        model.__name__, fields, namespace={"__doc__": model.__doc__}, kw_only=True
    )


def _flag(name: str, about: str, *aliases: str) -> _Field:
    """A field of the generated dataclass that is False unless its option is given."""
    flag = tyro.conf.arg(help=about, aliases=aliases, help_behavior_hint="")
    return (name, Annotated[bool, flag, tyro.conf.FlagCreatePairsOff], dataclasses.field(default=False))


def _required_first(model: type[ConfigModel]) -> list[tuple[str, FieldInfo]]:
    """The fields of a model in the order of the help: what must be given, then what may be."""
    return sorted(model.model_fields.items(), key=lambda item: not item[1].is_required())


def _field(name: str, field: FieldInfo, aliases: Sequence[str] = ()) -> _Field:
    """A field of the generated dataclass: an option that may be left out, or a section of them."""
    section = closed_section_of(field.annotation)
    if section is None:
        return (name, _option(field, aliases), dataclasses.field(default=None))
    options = _dataclass(section, [_field(key, inner) for key, inner in _required_first(section)])
    return (name, options, dataclasses.field(default_factory=options))


def _option(field: FieldInfo, aliases: Sequence[str] = (), metavar: str | None = None) -> object:
    form = _form(field.annotation)
    words = PrimitiveConstructorSpec(
        nargs="*" if form.many else 1,
        metavar=metavar or form.metavar,
        instance_from_str=list,
        is_instance=lambda given: given is None or isinstance(given, list),
        str_from_instance=lambda _: [],
    )
    hint = "(required)"
    if not field.is_required():
        hint = f"(default: {_flow(field.get_default(call_default_factory=True))})"
    return Annotated[
        Any, words, tyro.conf.arg(help=_about(field), aliases=tuple(aliases), help_behavior_hint=hint)
    ]


def _about(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


def _flow(value: object) -> str:
    """A default as YAML would write it on one line."""
    if isinstance(value, ConfigModel):
        return _flow(value.model_dump())
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return value if isinstance(value, str) else shown(value)
