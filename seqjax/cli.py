"""The command line: argv -> config -> call.

This is the only file that prints, decides an exit code, or catches `SeqjaxError`. A command is a row of
`_COMMANDS`. Its config model is imported when it is chosen, and its function only when its config is valid,
so that help and mistakes are answered without loading jax.

Exit codes: 0 done; 1 a mistake that the message explains; 2 wrong usage; 130 interrupted; 141 the reader of
the output left; 138 and 143 training was stopped by SIGUSR1 or SIGTERM.
"""

import contextlib
import dataclasses
import errno
import gc
import logging
import os
import pkgutil
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union

import tyro

from seqjax.command import Command
from seqjax.console import configure_logging
from seqjax.errors import ConfigError, Problem, SeqjaxError
from seqjax.runtime import keep_compilations, keep_freed_memory
from seqjax.stopping import Stopped, stoppable
from seqjax.version import __version__

if TYPE_CHECKING:
    from seqjax.config.base import ConfigModel
    from seqjax.evaluation.tables import TitledTable

logger = logging.getLogger(__name__)

_SPACE_AND_RIGHTS = "Look for free space, and for the rights to read and write there."
_IN_THE_WAY = (
    "A file lies where a folder should be, or the other way round: move it away, or name another place."
)
_DISK_ERRORS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM), _SPACE_AND_RIGHTS),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST), _IN_THE_WAY),
    errno.ENAMETOOLONG: "Choose shorter names and paths in the configuration.",
}
"""Remedies for failures of the system that a user can mend; any other is a fault of ours."""


_LAUNCH = {
    "coordinator": ("SEQJAX_COORDINATOR", "HOST:PORT of process 0 of a run on several hosts."),
    "num_processes": ("SEQJAX_NUM_PROCESSES", "Number of processes of such a run."),
    "process_id": ("SEQJAX_PROCESS_ID", "Number of this process, from 0."),
}
_KEYS = {"id_column": ["--id"], "time_column": ["--time"]}
_SKIP_METADATA = ("-sm", "Has no effect: read so that sequifier's command lines are accepted.")
_RANDOMIZE = ("-r", "Draw the seed at random, whatever it is set to, and log it.")

_COMMANDS = (
    Command(
        "make",
        summary="Create a project: folders and a commented template of each command's configuration.",
        positional=["project_name"],
    ),
    Command(
        "preprocess",
        summary="Turn a table of event sequences into windows to train on.",
        short={"data_path": ["-dp"], "selected_columns": ["-sc"], "seed": ["-s"], **_KEYS},
        switches={"randomize": _RANDOMIZE},
    ),
    Command(
        "train",
        summary="Train a causal transformer and export it.",
        short={
            "training_data_path": ["-dp", "--data-path"],
            "input_columns": ["-ic"],
            "metadata_config_path": ["-mc"],
            "model_name": ["-mn"],
            "seed": ["-s"],
        },
        switches={"randomize": _RANDOMIZE, "skip_metadata": _SKIP_METADATA},
        says="seqjax.commands.train_run:TrainResult.next_steps",
        variables=_LAUNCH,
        trains=True,
        compiles=True,
    ),
    Command(
        "infer",
        summary="Predict or embed with a trained model.",
        short={
            "data_path": ["-dp"],
            "input_columns": ["-ic"],
            "metadata_config_path": ["-mc"],
            "model_path": ["-mp"],
            "seed": ["-s"],
            **_KEYS,
        },
        switches={
            "randomize": _RANDOMIZE,
            "skip_metadata": (
                "-sm",
                "Read no metadata file: everything it says is taken from the model file.",
            ),
        },
        compiles=True,
    ),
    Command(
        "evaluate",
        summary="Measure how well models predict held-out data, beside simple baselines.",
        short={
            "data_path": ["-dp"],
            "metadata_config_path": ["-mc"],
            "model_path": ["-mp"],
            "seed": ["-s"],
            **_KEYS,
        },
        shows="seqjax.evaluation.tables:titled_tables",
        compiles=True,
    ),
    Command(
        "hyperparameter-search",
        summary="Train many models, each with other settings, and rank them.",
        short={"input_columns": ["-ic"], "metadata_config_path": ["-mc"], "seed": ["-s"]},
        switches={"randomize": _RANDOMIZE, "skip_metadata": _SKIP_METADATA},
        trains=True,
        compiles=True,
        asks=True,
    ),
    Command(
        "visualize-training",
        summary="Show how runs, or all runs of a search, were trained: one HTML page.",
        positional=["models"],
    ),
)
COMMANDS = {command.name: command for command in _COMMANDS}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code.

    Args:
      argv: The words after `seqjax`; None takes those of this process.
    """
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except SeqjaxError as error:
        print(error, file=sys.stderr)
        return 1
    except Stopped as stopped:
        print(f"Stopped by {stopped.signal.name}.", file=sys.stderr)
        return 128 + stopped.signal
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read stdout left, as in `seqjax train --help | head`; the flush at exit must not fail too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        place = error.filename or "A file could not be written"
        print(f"{place}: {error.strerror}. {_DISK_ERRORS[error.errno]}", file=sys.stderr)
        return 1


def _run(words: list[str]) -> int:
    if words[:1] == ["--version"]:
        print(f"seqjax {__version__}")
        return 0
    if not words:
        with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(SystemExit):
            _choose(["--help"])
        return 2
    if words[0].startswith("-"):
        _choose(words)
    if words[0] not in COMMANDS:
        print(_unknown_command(words[0]), file=sys.stderr)
        return 2
    command = COMMANDS[words[0]]
    configure_logging()
    config = _config(command, words[1:])
    if command.trains:
        keep_freed_memory()
    if command.compiles:
        keep_compilations()
    run = _function(command)
    with stoppable() if command.trains else contextlib.nullcontext():
        result = run(config, _confirm) if command.asks else run(config)
    if command.says is not None:
        for line in pkgutil.resolve_name(command.says)(result):
            logger.info(line)
    if command.shows is not None:
        _print_tables(pkgutil.resolve_name(command.shows)(result))
    return 0


def _function(command: Command) -> Callable[..., object]:
    """Imports the function of a command.

    What is imported stays until the end. Looking through it for garbage, again and again while jax is being
    imported and once more at the end, would take as long as the imports themselves.
    """
    if command.function.partition(":")[0] in sys.modules:
        return pkgutil.resolve_name(command.function)
    gc.disable()
    try:
        return pkgutil.resolve_name(command.function)
    finally:
        gc.freeze()
        gc.enable()


def _print_tables(titled: "Sequence[TitledTable]") -> None:
    """Prints tables with titles to stdout, as wide as the terminal, or as they need where there is none."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 200)
    for title, content in titled:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for heading in content.columns:
            table.add_column(Text(heading))
        for row in content.rows:
            table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
        console.print(Text(title, style="bold"))
        console.print(table)
        if content.note:
            console.print(Text(f"{content.note}\n", style="dim"))


def _confirm(question: str) -> bool:
    """Asks on the terminal; anything but yes is no."""
    if sys.stdin is None or not sys.stdin.isatty():
        problem = "there is no terminal to answer at; set override_input: true (--override-input true)."
        raise ConfigError(f"The question {question!r}", [Problem("", problem)])
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _choose(words: list[str]) -> None:
    """Lets tyro answer where no command is named: help, or what is wrong with an option."""
    commands = tuple(
        Annotated[
            dataclasses.make_dataclass(name, []), tyro.conf.subcommand(name=name, description=command.summary)
        ]
        for name, command in COMMANDS.items()
    )
    version = tyro.conf.arg(help="Print the version and exit.", help_behavior_hint="")
    fields: list[tuple[str, Any, Any]] = [
        ("command", tyro.conf.OmitSubcommandPrefixes[Union[commands]], dataclasses.field()),  # noqa: UP007 (the members are computed)
        ("version", Annotated[bool, version, tyro.conf.FlagCreatePairsOff], dataclasses.field(default=False)),
    ]
    description = "From a table of event sequences to a trained, exported causal transformer."
    tyro.cli(dataclasses.make_dataclass("Seqjax", fields), prog="seqjax", description=description, args=words)


def _unknown_command(word: str) -> str:
    from seqjax.config.base import suggestion

    hint = suggestion(word, list(COMMANDS))
    known = "" if hint.startswith("Known") else f"Commands: {', '.join(COMMANDS)}. "
    return f"seqjax has no command {word!r}. {hint}\n{known}For help, run seqjax --help."


def _config(command: Command, words: list[str]) -> "ConfigModel":
    """The config that a command line asks for, with the YAML file under it."""
    from seqjax.config.load import checked, load_config
    from seqjax.options import options_class, overrides

    model: type[ConfigModel] = pkgutil.resolve_name(command.model)
    options = tyro.cli(options_class(model, command), prog=f"seqjax {command.name}", args=words)
    given = overrides(options, model)
    extra = vars(options)
    os.environ |= {name: extra[option] for option, (name, _) in command.variables.items() if extra[option]}
    if extra.get("randomize"):
        given["seed"] = random.SystemRandom().randrange(10**9)
    if extra.get("skip_metadata") and not model.model_fields["metadata_config_path"].is_required():
        given["metadata_config_path"] = None
    if command.config_path is None:
        return checked(model, given, "the command line")
    path = extra["config_path"]
    if path == command.config_path and given and not Path(path).exists():
        return checked(model, {"project_root": ".", **given}, f"the command line (there is no {path})")
    config = load_config(model, path, given)
    if extra.get("randomize"):
        logger.info("seed: %d (drawn by --randomize)", given["seed"])
    return config


if __name__ == "__main__":
    sys.exit(main())
