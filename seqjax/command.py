"""A command of the command line: its options, and its config model and function, called after it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Command:
    """One command of seqjax."""

    name: str
    summary: str
    short: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Other names of options, by key: the documented short ones."""
    positional: Sequence[str] = ()
    """Keys that are given without an option's name."""
    switches: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Options that are no keys of the config: short name and meaning, by name."""
    variables: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Options that set an environment variable: which one, and meaning, by name."""
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

    @property
    def model(self) -> str:
        """Its config model, as `module:name`."""
        return f"seqjax.config.{self._module}:{self.name.title().replace('-', '')}Config"

    @property
    def function(self) -> str:
        """Its function of the config, as `module:name`."""
        return f"seqjax.commands.{self._module}:{self._module}"

    @property
    def config_path(self) -> str | None:
        """Default path of its YAML file; None where what it needs is given on the command line."""
        return None if self.positional else f"configs/{self._module}.yaml"

    @property
    def _module(self) -> str:
        return self.name.replace("-", "_")
