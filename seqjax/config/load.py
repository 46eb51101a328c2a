"""From a YAML file and overrides to a valid config, and from a path in it to a place on disk.

The order is: read the file, lay the overrides over it, validate once. So an override may supply what the file
lacks or gets wrong, and all that is still wrong is reported together. Overrides are nested as the file is.
Sections are merged; every other value, mappings such as `criterion` or `optimizer` included, is replaced as a
whole.
"""

from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from seqjax.config.base import Config, ConfigModel, closed_section_of, shown, validate
from seqjax.config.yaml_text import parse_yaml
from seqjax.errors import ConfigError, Problem

PLACEHOLDERS = ("PLEASE FILL", "EXAMPLE_INPUT_COLUMN_NAME", "EXAMPLE_TARGET_COLUMN_NAME")
"""The words that stand in a template where the user's own are to be."""


def load_config(
    model: type[Config], path: str | PathLike[str], overrides: Mapping[str, Any] | None = None
) -> Config:
    """The config in a YAML file, with overrides laid over it.

    Args:
      model: The config model of the command.
      path: The YAML file.
      overrides: Nested values that replace those of the file, such as `{"training_spec": {"epochs": 3}}`.

    Raises:
      ConfigError: with every problem at once.
    """
    source = f"{path} with overrides" if overrides else str(path)
    return checked(model, merged(model, read_yaml(path), overrides or {}), source)


def as_config(
    model: type[Config],
    config: Config | Mapping[str, Any] | str | PathLike[str],
    overrides: Mapping[str, Any] | None = None,
) -> Config:
    """Validates a config given in Python: a model, a mapping, or the path of a YAML file.

    Args:
      model: The config model of the command.
      config: A `model`, a mapping of the same shape as the YAML, or the path of a YAML file.
      overrides: Nested values that replace those of `config`.
    """
    if isinstance(config, model):
        if not overrides:
            missing = _root_problems(model, getattr(config, "project_root", None))
            if missing:
                raise ConfigError(f"the {model.__name__}", missing)
            return config
        config = config.model_dump(exclude_unset=True)
    if isinstance(config, Mapping):
        return checked(model, merged(model, config, overrides or {}), f"the {model.__name__}")
    if isinstance(config, str | PathLike):
        return load_config(model, config, overrides)
    problem = (
        f"must be a {model.__name__}, a mapping or the path of a YAML file (found a {type(config).__name__})."
    )
    raise ConfigError("the configuration", [Problem("", problem)])


def checked(model: type[Config], values: Mapping[str, Any], source: str) -> Config:
    """Validates the configuration of a command, and checks that its project exists.

    Args:
      model: The config model of the command.
      values: Plain nested values.
      source: What to call their origin in the message.

    Raises:
      ConfigError: with every problem at once.
    """
    unfilled = [Problem(key, f"still says {word}.") for key, word in dict.fromkeys(_placeholders(values))]
    problems = [*unfilled, *_root_problems(model, values.get("project_root"))]
    try:
        config = validate(model, values, source)
    except ConfigError as error:
        raise ConfigError(source, [*problems, *_unrelated(error.problems, unfilled)]) from None
    if problems:
        raise ConfigError(source, problems)
    return config


def read_yaml(path: str | PathLike[str]) -> dict[str, Any]:
    """The mapping in a YAML file; empty for an empty file."""

    def mistake(problem: str) -> ConfigError:
        return ConfigError(str(path), [Problem("", problem)])

    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise mistake(
            f"the file does not exist (the working directory is {Path.cwd()}). Run the command in the "
            "project's folder, name the file with --config-path, or create a project with 'seqjax make NAME'."
        ) from None
    except UnicodeDecodeError as error:
        raise mistake(f"is not UTF-8 text: byte {error.start} is wrong.") from None
    except OSError as error:
        raise mistake(f"cannot be read: {error.strerror}.") from None
    values = parse_yaml(text, str(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise mistake(f"must hold keys and values, 'key: value' (found {shown(values)}).")
    return values


def merged(
    model: type[ConfigModel], values: Mapping[str, Any], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """`values` with `overrides` laid over them: section by section, everything else as a whole."""
    result = dict(values)
    for key, override in overrides.items():
        field = model.model_fields.get(key)
        section = closed_section_of(field.annotation) if field else None
        if section is None or not isinstance(override, Mapping):
            result[key] = override
        else:
            held = result.get(key)
            # Anything but a mapping under a section's name is a mistake, unless the override takes its place.
            result[key] = merged(section, held if isinstance(held, Mapping) else {}, override)
    return result


def resolve_path(root: str | PathLike[str], path: str | PathLike[str], *, or_here: bool = False) -> Path:
    """The path that a config names, relative ones under the project.

    Args:
      root: `project_root`, which anchors relative paths.
      path: A path as the user wrote it; an absolute one stays.
      or_here: True takes a path that exists relative to the working directory but not under `root`.
    """
    anchored = Path(root) / path
    here = Path(path)
    return here if or_here and not anchored.exists() and here.exists() else anchored


def resolve_split(root: str | PathLike[str], path: str) -> Path:
    """The path of a split that metadata names.

    The metadata names it as preprocess saw it: `project_root` as it was written then, and `data/...` in it.
    So it is looked for in the project's `data` too: the project may have moved, or be seen from elsewhere.

    Args:
      root: `project_root` of the configuration that reads it.
      path: One of `split_paths`.

    Returns:
      The first place where it exists, or else where it should be.
    """
    place = resolve_path(root, path, or_here=True)
    own = Path(root) / "data" / Path(path).name
    return own if own.exists() and not place.exists() else place


def _root_problems(model: type[ConfigModel], root: object) -> list[Problem]:
    """Problems of a `project_root`: most commands create folders only inside of a project."""
    if "project_root" not in model.model_fields or not isinstance(root, str) or root in PLACEHOLDERS:
        return []
    if model.makes_project or Path(root).is_dir():
        return []
    there = f"there is no folder {root!r} (the working directory is {Path.cwd()})"
    return [Problem("project_root", f"{there}. Correct it, or create a project with 'seqjax make NAME'.")]


def _placeholders(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Each place that still holds a template's word: its key and the word."""
    if isinstance(value, str):
        yield from ((key, word) for word in PLACEHOLDERS if word in value)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            inside = f"{key}.{name}" if key else str(name)
            yield from _placeholders(item, key if any(word in inside for word in PLACEHOLDERS) else inside)
            yield from _placeholders(name, key) if isinstance(name, str) else ()
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _placeholders(item, f"{key}.{index}")


def _unrelated(problems: tuple[Problem, ...], unfilled: list[Problem]) -> Iterator[Problem]:
    """The problems that filling the placeholders will not solve."""
    keys = {problem.key for problem in unfilled}
    for problem in problems:
        about = f"{problem.key}: {problem.message}"
        if problem.key not in keys and not any(word in about for word in PLACEHOLDERS):
            yield problem
