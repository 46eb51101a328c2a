"""The base of every config model, and the one way from plain values to a valid config.

A config is a frozen pydantic model whose attribute docstrings are the command line's help. Checks between keys are
field validators on the *later* key (`info.data` holds the earlier valid ones), so that a mistake in one
section never hides a mistake in another. A validator that finds several problems raises `Problems`.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from seqjax.errors import ConfigError, Problem


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


class Problems(ValueError):
    """Several problems found by one validator; keys are relative to what it validates."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, problems)))


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
        raise ConfigError(source, list(_problems(model, error))) from None


def suggestion(name: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown `name`: the nearest known one, or all that are known."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."


def _problems(model: type[ConfigModel], error: ValidationError) -> Iterator[Problem]:
    for item in error.errors(include_url=False):
        location = item["loc"]
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, Problems):
            for problem in cause.problems:
                yield Problem(_dotted((*location, *filter(None, [problem.key]))), problem.message)
        else:
            yield Problem(_dotted(location), _message(model, item))


def _dotted(location: Sequence[str | int]) -> str:
    # pydantic adds the member of a union, such as `list[str]`, to a location; a user has no such key.
    keys = [part for part in location if isinstance(part, int) or not _names_a_type(part)]
    return ".".join(map(str, keys))


def _names_a_type(part: str) -> bool:
    return part in {"str", "int", "float", "bool"} or part.startswith(("list[", "dict[", "constrained-", "literal["))


def _message(model: type[ConfigModel], item: Any) -> str:
    found = f" (found {item['input']!r})"
    match item["type"]:
        case "missing":
            return "is required."
        case "extra_forbidden":
            section = _section(model, item["loc"][:-1])
            return f"unknown key{found}. {suggestion(str(item['loc'][-1]), list(section.model_fields))}"
        case "literal_error":
            return f"must be one of {item['ctx']['expected']}{found}."
        case "value_error":
            return str(item["ctx"]["error"])
        case _:
            message = item["msg"][0].lower() + item["msg"][1:]
            return f"{message}{found}."


def _section(model: type[ConfigModel], location: Sequence[str | int]) -> type[ConfigModel]:
    """The model that `location` leads to, through optional sections and lists too."""
    section = model
    for part in location:
        if isinstance(part, int) or part not in section.model_fields:
            continue
        annotation = section.model_fields[part].annotation
        for candidate in (annotation, *get_args(annotation)):
            if isinstance(candidate, type) and issubclass(candidate, ConfigModel):
                section = candidate
    return section
