"""The base of every config model, and the one way from plain values to a valid config.

A config is a frozen pydantic model whose attribute docstrings are the command line's help. Checks between
keys are field validators on the *later* key (`info.data` holds the earlier valid ones), so that a mistake in
one section never hides a mistake in another. A validator that finds several problems raises `Problems`.

Pydantic says where each mistake is, but in its own words: a location also names the member of a union that
was tried, and one mistake gives one error a member. `_placed` turns locations into keys that the user wrote,
and `_one_each` the errors of one union into one problem.
"""

import difflib
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from seqjax.errors import ConfigError, Problem

Share = Annotated[float, Field(ge=0, le=1)]
"""A fraction of a whole, none and all of it included."""
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]
"""A fraction that is never the whole, such as a probability of dropping, or a decay."""
PositiveShare = Annotated[float, Field(gt=0, le=1)]
"""A fraction that is never nothing."""


class ConfigModel(BaseModel):
    """A section of a configuration: unknown keys are errors, values do not change after validation."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        coerce_numbers_to_str=True,
        protected_namespaces=(),
        allow_inf_nan=False,
        validate_default=True,
    )
    makes_project: ClassVar[bool] = False
    """True if the command creates its project's folder where it does not exist."""


class Problems(ValueError):
    """Several problems found by one validator; keys are relative to what it validates."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, problems)))


def refuse(problems: Iterable[Problem]) -> None:
    """Raises `Problems` if there are any."""
    if every := tuple(problems):
        raise Problems(every)


Config = TypeVar("Config", bound=ConfigModel)


def validate(model: type[Config], values: Mapping[str, Any], source: str) -> Config:
    """Returns `values` as a `model`, or raises one `ConfigError` with every problem in them.

    Args:
      model: The config model to validate against.
      values: Plain nested values, as a YAML file holds them.
      source: What to call the origin of the values in the message, such as a file name.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(source, _problems(model, values, error)) from None


def suggestion(name: str, known: Sequence[str], *, list_all: bool = False) -> str:
    """The end of a message about an unknown `name`: the nearest known one, or the (first) known ones.

    Args:
      name: The unknown name.
      known: The known names.
      list_all: True lists all of them after the nearest one.
    """
    # Case is what people get wrong first: without it, adamw is AdamW rather than Adam.
    plain = {other.casefold(): other for other in reversed(known)}
    near = difflib.get_close_matches(name.casefold(), plain, n=1, cutoff=0.6)
    if near:
        listed = f" Known: {', '.join(known)}." if list_all else ""
        return f"Did you mean {plain[near[0]]!r}?{listed}"
    more = f", ... ({len(known)} in all)" if len(known) > 12 else ""
    return f"Known: {', '.join(known[:12])}{more}."


def section_of(annotation: object) -> type[ConfigModel] | None:
    """The config model that a field's type holds, if it holds one; inside an optional or a list too."""
    if isinstance(annotation, type) and issubclass(annotation, ConfigModel):
        return annotation
    return next(filter(None, map(section_of, get_args(annotation))), None)


def closed_section_of(annotation: object) -> type[ConfigModel] | None:
    """The section that a field is, possibly optional, if the keys of the section are known."""
    section = section_of(annotation)
    # In a union with a list, a section is one of the values.
    inside = any(get_origin(member) in {list, tuple, dict} for member in (annotation, *_plain(annotation)))
    return None if section is None or inside or section.model_config.get("extra") == "allow" else section


def _plain(annotation: object) -> list[object]:
    """The members of a union, without their annotations."""
    members = get_args(annotation)
    return [get_args(member)[0] if get_origin(member) is Annotated else member for member in members]


@dataclass(frozen=True)
class _Mistake:
    """A pydantic error: the keys that lead to it, those of the union it is in (if any), and what it says.

    `requirement` completes "must be ..."; a `sentence` stands alone.
    """

    keys: tuple[str | int, ...]
    union: tuple[str | int, ...] | None
    requirement: str = ""
    sentence: str = ""
    value: str = ""

    def problem(self) -> Problem:
        message = self.sentence or f"must be {self.requirement} (found {self.value})."
        return Problem(".".join(map(str, self.keys)), message)


def _problems(model: type[ConfigModel], values: object, error: ValidationError) -> list[Problem]:
    mistakes: list[_Mistake] = []
    for item in error.errors(include_url=False):
        keys, union, section = _placed(model, values, item["loc"])
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, Problems):
            mistakes += [
                _Mistake((*keys, *filter(None, [problem.key])), union, sentence=problem.message)
                for problem in cause.problems
            ]
        else:
            requirement, sentence = _wording(model, section, item)
            mistakes.append(_Mistake(keys, union, requirement, sentence, shown(item["input"])))
    return [mistake.problem() for mistake in _one_each(mistakes)]


def _placed(
    model: type[ConfigModel], values: object, location: Sequence[str | int]
) -> tuple[tuple[str | int, ...], tuple[str | int, ...] | None, type[ConfigModel] | None]:
    """Resolves `location` to the user's keys, those of the first union on the way, and the innermost section.

    An item of a location that is neither in the values nor a field there names a member of a union.
    """
    keys: list[str | int] = []
    union: tuple[str | int, ...] | None = None
    section: type[ConfigModel] | None = model
    parent: type[ConfigModel] | None = model
    for item in location:
        field = section.model_fields.get(str(item)) if section else None
        held, value = _step(values, item)
        if not held and field is None:
            union = tuple(keys) if union is None and item != "[key]" else union
            continue
        keys.append(item)
        values = value
        parent = section or parent
        if not isinstance(item, int):
            section = section_of(field.annotation) if field else None
    return tuple(keys), union, parent


def _step(values: object, key: str | int) -> tuple[bool, object]:
    """True and the value under `key`, if `values` hold it; else False and None."""
    if isinstance(values, Mapping) and key in values:
        return True, values[key]
    if isinstance(values, list | tuple) and isinstance(key, int) and key < len(values):
        return True, values[key]
    return False, None


def _one_each(mistakes: Sequence[_Mistake]) -> Iterator[_Mistake]:
    """One mistake a union and key: of those that got deepest into it, what each would have taken."""
    done = set()
    for mistake in mistakes:
        if mistake.union is None:
            yield mistake
        elif mistake.union not in done:
            done.add(mistake.union)
            members = [other for other in mistakes if other.union == mistake.union]
            depth = max(len(other.keys) for other in members)
            deepest = [other for other in members if len(other.keys) == depth]
            for keys in dict.fromkeys(other.keys for other in deepest):
                yield _alternatives([other for other in deepest if other.keys == keys])


def _alternatives(mistakes: Sequence[_Mistake]) -> _Mistake:
    """Joins the mistakes that several members of a union report for one value."""
    requirements = list(dict.fromkeys(other.requirement for other in mistakes if other.requirement))
    first = mistakes[0]
    if not requirements:
        return first
    either = ", or " if any(" or " in requirement for requirement in requirements) else " or "
    return replace(first, requirement=either.join(requirements), sentence="")


_REQUIREMENTS = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping of names to values",
    "model": "a section of keys and values",
    "range": "a range, {{low: ..., high: ...}}",
    "literal": "{expected}",
    "greater_than": "greater than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "too_short": "a list of {min_length} or more",
    "too_long": "a list of {max_length} or fewer",
    "string_too_short": "text that is not empty",
    "string_pattern_mismatch": "text that matches {pattern}",
}
"""By pydantic's type of error, or by the first word of it."""


def _wording(
    model: type[ConfigModel], section: type[ConfigModel] | None, item: ErrorDetails
) -> tuple[str, str]:
    """The wording of an error: a requirement ("must be ...") or, where that does not fit, a sentence."""
    kind, context = item["type"], item.get("ctx", {})
    found = f"(found {shown(item['input'])})"
    if item["loc"][-1:] == ("[key]",):
        known = f"unknown name. Known: {context['expected']}." if "expected" in context else ""
        return "", known or f"a name must be text {found}."
    match kind:
        case "missing":
            return "", "is required."
        case "extra_forbidden":
            return "", f"unknown key. {_right_key(model, section or model, str(item['loc'][-1]))}"
        case "value_error":
            return "", str(context["error"])
    requirement = _REQUIREMENTS.get(kind) or _REQUIREMENTS.get(kind.split("_")[0])
    return (requirement.format(**context), "") if requirement else ("", f"{item['msg']} {found}.")


def _right_key(root: type[ConfigModel], section: type[ConfigModel], name: str) -> str:
    """The remedy for an unknown key: another section of `root`, or another spelling in this one."""
    if name in root.model_fields:
        return "It belongs at the top level."
    for key, field in root.model_fields.items():
        other = section_of(field.annotation)
        if other is not None and name in other.model_fields:
            return f"It belongs in {key}."
    return suggestion(name, list(section.model_fields))


def shown(value: object) -> str:
    """A value as a message shows it: null, true and false as in YAML, and not too long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    short = reprlib.Repr()
    short.maxstring = short.maxother = 60
    return short.repr(value)
