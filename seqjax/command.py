"""A command of the command line: its configuration, its function, and its options besides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Command:
    """One command of seqjax."""

    summary: str
    """Its line in the list of commands."""
    model: str
    """Its config model, as `module:name`."""
    function: str
    """Its function of the config, as `module:name`."""
    config_path: str | None = None
    """Default path of its YAML file; None if it has none."""
    short: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Other names of options, by key: the documented short ones."""
    positional: Sequence[str] = ()
    """Keys that are given without an option's name."""
    switches: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Options that are no keys of the config: short name and meaning, by name."""
    variables: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Options that set an environment variable: which one, and meaning, by name."""
    flags: Sequence[str] = ()
    """Keys that are set to true by their option's name alone."""
    trains: bool = False
    """True if it runs training steps, which need the allocator set, and may be asked to stop."""
    compiles: bool = False
    """True if it may run programs that jax compiles, which are kept on disk."""
    asks: bool = False
    """True if its function takes, second, a function that asks the user a question answered by yes or no."""
    says: str | None = None
    """Function that makes the last lines on the screen of its result, as `module:name`; None for no lines."""
    shows: str | None = None
    """Function that makes the tables to print of its result, as `module:name`; None for no tables."""
