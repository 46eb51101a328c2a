"""The command line: what is parsed, what is said, which exit code, and what is not imported on the way."""

import dataclasses
import errno
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import seqjax
from seqjax import cli
from seqjax.config.infer import InferConfig
from seqjax.config.preprocess import PreprocessConfig
from seqjax.config.train import TrainConfig
from seqjax.errors import DataError

TRAIN = """\
project_root: .
metadata_config_path: configs/metadata_configs/x.json
model_name: first
target_columns: [item]
target_column_types: {item: categorical}
seq_length: 8
inference_batch_size: 4
export_generative_model: yes
export_embedding_model: false
model_spec: {initial_embedding_dim: 8, dim_model: 8, n_head: 2, dim_feedforward: 8, num_layers: 1}
training_spec:
  device: cpu
  epochs: 1
  save_interval_epochs: 1
  batch_size: 4
  learning_rate: 1e-3
  criterion: {item: CrossEntropyLoss}
"""
PREPROCESS = (
    "project_root: .\ndata_path: x.csv\nseq_length: 8\nsplit_ratios: [0.5, 0.5]\nselected_columns: [a]\n"
)
INFER = "project_root: .\nmodel_path: m.onnx\nmodel_type: generative\nmetadata_config_path: m.json\n"

# Slow to import, and needed by no help text and no message about a config.
HEAVY = {
    "jax",
    "flax",
    "optax",
    "orbax",
    "grain",
    "polars",
    "pyarrow",
    "onnx",
    "onnxruntime",
    "jax2onnx",
    "numpy",
}


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A working directory with a config of every command."""
    (tmp_path / "configs").mkdir()
    for name, text in {"train": TRAIN, "preprocess": PREPROCESS, "infer": INFER}.items():
        (tmp_path / "configs" / f"{name}.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    logger = logging.getLogger("seqjax")
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def called(monkeypatch):
    """Replaces what commands do by a note of the config they got."""
    configs = []
    resolve = cli.pkgutil.resolve_name

    def stand_in(name):
        return configs.append if name.startswith("seqjax.commands.") else resolve(name)

    silent = {
        name: dataclasses.replace(command, says=None, shows=None) for name, command in cli.COMMANDS.items()
    }
    monkeypatch.setattr(cli, "COMMANDS", silent)
    monkeypatch.setattr(cli, "pkgutil", SimpleNamespace(resolve_name=stand_in))
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: True)
    return configs


def run(called, *words):
    """The config that a command line leads to."""
    assert cli.main(words) == 0
    return called.pop()


def refused(capsys, *words):
    """What a command line that ends with exit code 1 says."""
    assert cli.main(words) == 1
    streams = capsys.readouterr()
    assert streams.out == ""
    return streams.err


def usage(capsys, *words):
    """What a command line that ends with exit code 2 says."""
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2
    return capsys.readouterr().err


def python(*words, check=True):
    """Runs Python in a process of its own, with this seqjax."""
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=check, env=environment
    )


def test_what_a_command_imports_is_kept_from_the_garbage_collector():
    code = (
        "import gc; from seqjax import cli; cli._function(cli.COMMANDS['preprocess']); "
        "print(gc.isenabled(), gc.get_freeze_count() > 10_000)"
    )
    assert python("-c", code).stdout == "True True\n"


def help_text(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        cli.main([*words, "--help"])
    assert caught.value.code == 0
    return re.sub(r"[\s│]+", " ", capsys.readouterr().out)


def test_without_options_the_default_file_is_the_config(called):
    assert run(called, "preprocess") == PreprocessConfig.model_validate(
        {
            "project_root": ".",
            "data_path": "x.csv",
            "seq_length": 8,
            "split_ratios": [0.5, 0.5],
            "selected_columns": ["a"],
        }
    )
    train = run(called, "train")
    assert (train.export_generative_model, train.training_spec.learning_rate) == (True, 0.001)
    assert run(called, "infer").model_path == "m.onnx"


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        ("--seed 7", "seed", 7),
        ("-s 0", "seed", 0),
        ("--model-name 007", "model_name", "007"),
        ("--model_name a-b", "model_name", "a-b"),
        ("-mn 1e-3", "model_name", "1e-3"),
        ("-mc other.json", "metadata_config_path", "other.json"),
        ("-dp data/x.parquet", "training_data_path", "data/x.parquet"),
        ("--data-path data/x.parquet", "training_data_path", "data/x.parquet"),
        ("-ic item price", "input_columns", ["item", "price"]),
        ("-ic [item]", "input_columns", ["item"]),
        ("-ic None", "input_columns", None),
        ("-ic null", "input_columns", None),
        ("-ic None item", "input_columns", ["None", "item"]),
        ("--export-onnx no", "export_onnx", False),
        ("--training-spec.learning-rate 1e-2", "training_spec.learning_rate", 0.01),
        ("--training-spec.gradient-clip None", "training_spec.gradient_clip", None),
        ("--model-spec.n-head 4", "model_spec.n_head", 4),
        (
            "--training-spec.optimizer {name: AdamW, weight_decay: 1e-2}",
            "training_spec.optimizer.weight_decay",
            0.01,
        ),
        ("--training-spec.class-weights {item: [1, 2.5]}", "training_spec.class_weights", {"item": [1, 2.5]}),
    ],
)
def test_an_option_overrides_its_key(called, words, key, value):
    option, rest = words.split(" ", 1)
    given = [rest] if rest.startswith("{") else rest.split(" ")
    config = run(called, "train", option, *given)
    for part in key.split("."):
        config = getattr(config, part)
    assert config == value


def test_overriding_leaves_the_rest_as_it_is(called):
    assert run(called, "train", "--training-spec.epochs", "3") == TrainConfig.model_validate(
        run(called, "train").model_dump(exclude_unset=True)
        | {"training_spec": run(called, "train").training_spec.model_dump(exclude_unset=True) | {"epochs": 3}}
    )


def test_lists_of_numbers_and_of_paths(called):
    assert run(called, "preprocess", "--split-ratios", "0.8", "1e-1", ".1").split_ratios == [0.8, 0.1, 0.1]
    assert run(called, "preprocess", "-sc", "None").selected_columns is None
    assert run(called, "preprocess", "-sc", "a", "b", "-dp", "y.csv").selected_columns == ["a", "b"]
    assert run(called, "infer", "-mp", "a.onnx").model_path == "a.onnx"
    assert run(called, "infer", "-mp", "a.onnx", "b.onnx").model_path == ["a.onnx", "b.onnx"]


def test_a_config_may_lie_elsewhere(called, project):
    (project / "other.yaml").write_text(TRAIN.replace("first", "second"))
    assert run(called, "train", "--config-path", "other.yaml").model_name == "second"


def test_make_takes_a_name(project, capsys):
    assert cli.main(["make", "new"]) == 0
    assert (project / "new" / "configs" / "train.yaml").is_file()
    assert "Created the project new." in capsys.readouterr().err
    assert "project_name: new/configs exists already" in refused(capsys, "make", "new")
    assert "project_name: must be text that is not empty" in refused(capsys, "make", "")
    assert "PROJECT-NAME" in usage(capsys, "make").replace("_", "-")


def test_randomize_draws_a_seed_and_logs_it(called, capsys):
    seeds = {run(called, "train", "-r").seed for _ in range(3)}
    assert all(0 <= seed < 10**9 for seed in seeds)
    assert len(seeds) > 1
    logged = re.findall(
        r"^seed: (\d+) \(drawn by --randomize\)$", capsys.readouterr().err, flags=re.MULTILINE
    )
    assert {int(seed) for seed in logged} == seeds


def test_skip_metadata(called):
    assert run(called, "infer", "-sm") == InferConfig.model_validate(
        {
            "project_root": ".",
            "model_path": "m.onnx",
            "model_type": "generative",
            "metadata_config_path": None,
        }
    )
    assert run(called, "train", "--skip-metadata") == run(called, "train")


def test_file_and_options_are_checked_together_and_once(capsys, project):
    (project / "configs" / "train.yaml").write_text(
        TRAIN.replace("epochs: 1\n  save", "epoch: 1\n  save") + "seeed: 3\n"
    )
    said = refused(
        capsys, "train", "--training-spec.learning-rate", "fast", "--model-spec.n-head", "3", "-s", "x"
    )
    assert said == (
        "configs/train.yaml with overrides has 6 problems:\n"
        "  model_spec.n_head: must divide dim_model (8) (found 3).\n"
        "  seed: must be a whole number (found 'x').\n"
        "  training_spec.epochs: is required.\n"
        "  training_spec.learning_rate: must be a number (found 'fast').\n"
        "  training_spec.epoch: unknown key. Did you mean 'epochs'?\n"
        "  seeed: unknown key. Did you mean 'seed'?\n"
    )


def test_yaml_on_the_command_line_is_checked(capsys):
    said = refused(capsys, "train", "--training-spec.criterion", "{item: MSELoss")
    assert said.startswith("--training-spec.criterion has 1 problem:\n  line 1, column")


@pytest.mark.parametrize("name", ["train", "infer"])
def test_a_project_that_is_not_there_is_refused(capsys, project, name):
    assert "project_root: there is no folder 'shpo'" in refused(capsys, name, "--project-root", "shpo")
    assert not (project / "shpo").exists()


def test_a_project_that_is_not_there_is_refused_without_a_file_too(capsys):
    said = refused(capsys, "visualize-training", "run", "--project-root", "shpo")
    assert "project_root: there is no folder 'shpo'" in said


def test_a_missing_file_is_named(capsys):
    assert "nowhere.yaml has 1 problem:\n  the file does not exist" in refused(
        capsys, "train", "--config-path", "nowhere.yaml"
    )


def test_a_wrong_option_is_a_usage_error(capsys):
    said = usage(capsys, "train", "--training-spec.learning-rat", "3")
    assert "Perhaps you meant" in said
    assert "--training-spec.learning-rate FLOAT" in said


def test_a_wrong_command_is_a_usage_error(capsys):
    assert cli.main(["trian", "--seed", "3"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("seqjax has no command 'trian'. Did you mean 'train'?\n")
    assert all(name in said for name in cli.COMMANDS)
    assert cli.main(["visualise_training"]) == 2
    assert "Did you mean 'visualize-training'?" in capsys.readouterr().err
    assert cli.main(["x"]) == 2
    assert capsys.readouterr().err.count("infer") == 1


def test_a_wrong_option_in_place_of_a_command_is_a_usage_error(capsys):
    assert "--versoin" in usage(capsys, "--versoin")


@pytest.mark.parametrize(
    ("words", "models", "log_scale"),
    [
        (["a"], ["a"], False),
        (["--log-scale", "a,b"], ["a,b"], True),
        (["a", "b", "--log-scale"], ["a", "b"], True),
        (["[a]"], ["a"], False),
        ([], [], False),
    ],
)
def test_a_flag_is_set_by_its_name_alone(called, words, models, log_scale):
    config = run(called, "visualize-training", *words)
    assert (config.models, config.log_scale) == (models, log_scale)


def test_a_flag_is_explained(capsys):
    text = help_text(capsys, "visualize-training")
    assert "--log-scale Start with losses on a logarithmic scale." in text
    assert "MODELS" in text


def test_no_command_shows_the_help(capsys):
    assert cli.main([]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "preprocess" in streams.err


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"seqjax {seqjax.__version__}\n"


def test_help_lists_the_commands(capsys):
    text = help_text(capsys)
    assert all(f"{name} {command.summary}" in text for name, command in cli.COMMANDS.items())


@pytest.mark.parametrize("name", ["preprocess", "train", "infer"])
def test_help_says_what_each_key_means_and_its_default(capsys, name):
    command = cli.COMMANDS[name]
    text = help_text(capsys, name)
    assert f"(default: {command.config_path})" in text
    for key, field in cli.pkgutil.resolve_name(command.model).model_fields.items():
        if not key.endswith("_spec"):
            assert f"--{key.replace('_', '-')}" in text
            assert " ".join(str(field.description).split()) in text, key
    assert all(short in text for shorts in command.short.values() for short in shorts)


def test_help_shows_defaults_that_are_made_anew(capsys):
    text = help_text(capsys, "hyperparameter-search")
    assert "(default: {CPU: 1.0})" in text
    assert "PydanticUndefined" not in text


def test_help_shows_types_and_defaults(capsys):
    text = help_text(capsys, "train")
    for part in (
        "-s INT, --seed INT Random seed. (default: 1010)",
        "--model-spec.activation-fn {swiglu,gelu,relu} Feed-forward activation. (default: swiglu)",
        "--export-onnx {true,false} Export as .onnx. (default: true)",
        "--training-spec.epochs INT Maximum number of epochs. (required)",
        "(default: {name: Adam})",
        "{TEXT: [FLOAT, ...], ...}",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (DataError("no rows"), 1, "no rows\n"),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "logs/x"),
            1,
            "logs/x: No space left on device. Look for free space, and for the rights to read and write "
            "there.\n",
        ),
        *(
            (
                OSError(number, os.strerror(number), "logs/x"),
                1,
                f"logs/x: {os.strerror(number)}. A file lies where a folder should be, or the other way "
                "round: move it away, or name another place.\n",
            )
            for number in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
        ),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", "logs/x"),
            1,
            "logs/x: File name too long. Choose shorter names and paths in the configuration.\n",
        ),
    ],
)
def test_exit_codes(monkeypatch, capsys, raised, code, said):
    def fail(config):
        raise raised

    resolve = cli.pkgutil.resolve_name
    monkeypatch.setattr(
        cli,
        "pkgutil",
        SimpleNamespace(resolve_name=lambda name: fail if "commands" in name else resolve(name)),
    )
    assert cli.main(["preprocess"]) == code
    assert capsys.readouterr().err == said


@pytest.fixture
def as_in_a_shell():
    """Interrupts arrive, though the tests may have been started to ignore them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("SIGTERM", 143, "Stopped by SIGTERM.\n"),
        ("SIGUSR1", 138, "Stopped by SIGUSR1.\n"),
        ("SIGINT", 130, "Interrupted.\n"),
    ],
)
def test_signals_stop_training(monkeypatch, capsys, as_in_a_shell, name, code, said):
    ended = []
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]

    def train(config):
        try:
            os.kill(os.getpid(), getattr(signal, name))
            time.sleep(10)
        except KeyboardInterrupt:
            os.kill(os.getpid(), signal.SIGTERM)  # Ignored: there must be time to save.
            ended.append(config)
            raise

    resolve = cli.pkgutil.resolve_name
    monkeypatch.setattr(
        cli,
        "pkgutil",
        SimpleNamespace(resolve_name=lambda name: train if "commands" in name else resolve(name)),
    )
    monkeypatch.setattr(cli, "_config", lambda *_: "config")
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    assert cli.main(["train"]) == code
    assert capsys.readouterr().err == said
    assert ended == ["config"]
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(cli, "_config", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["train"])


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["train", "--help"], 0),
        (["infer", "--help"], 0),
        (["hyperparameter-search", "--help"], 0),
        (["visualize-training", "--help"], 0),
        (["visualize-training", "a", "--bucket-training-batches", "0"], 1),
        (["trian"], 2),
        (["train", "--seeed", "3"], 2),
        (["train", "--training-spec.epochs", "x"], 1),
        (["preprocess", "--seq-length", "0"], 1),
    ],
)
def test_help_and_mistakes_load_nothing_heavy(words, code):
    program = (
        "import sys, json\nfrom seqjax.cli import main\n"
        f"try:\n    code = main({words!r})\nexcept SystemExit as error:\n    code = error.code\n"
        "print('\\n' + json.dumps([code, sorted({name.split('.')[0] for name in sys.modules})]))"
    )
    done = python("-c", program)
    found, modules = json.loads(done.stdout.splitlines()[-1])
    assert found == code
    assert HEAVY.isdisjoint(modules)


@pytest.fixture
def asking(monkeypatch):
    """Replaces the search by one question; returns what was answered."""
    answers = []
    resolve = cli.pkgutil.resolve_name

    def stand_in(name):
        return (lambda _, ask: answers.append(ask("Start?"))) if "commands" in name else resolve(name)

    monkeypatch.setattr(cli, "pkgutil", SimpleNamespace(resolve_name=stand_in))
    monkeypatch.setattr(cli, "_config", lambda *_: None)
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: True)
    return answers


@pytest.mark.parametrize(("typed", "answer"), [("y\n", True), ("YES\n", True), ("n\n", False), ("", False)])
def test_a_question_is_answered_at_the_terminal(asking, monkeypatch, capsys, typed, answer):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True, readline=lambda: typed))
    assert cli.main(["hyperparameter-search"]) == 0
    assert asking == [answer]
    assert capsys.readouterr().err == "Start? [y/N] "


def test_without_a_terminal_a_question_is_an_error_that_says_what_to_set(asking, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))
    assert "set override_input: true" in refused(capsys, "hyperparameter-search")
    assert asking == []


def test_lists_of_a_search_are_options_too(capsys):
    text = help_text(capsys, "hyperparameter-search")
    for part in (
        "--hp-search-name TEXT Name of the search;",
        "--seq-length INT ... Lengths of the context window",
        "--model-hyperparameter-sampling.dim-model INT ... Widths of the transformer",
        "--training-hyperparameter-sampling.dropout FLOAT ... Dropout probabilities. (default: [0.0])",
        "(default: [{name: Adam}])",
        "(default: configs/hyperparameter_search.yaml)",
    ):
        assert part in text


def test_a_reader_that_leaves_is_no_fault():
    closed = "r, w = os.pipe(); os.dup2(w, 1); os.close(r); os.close(w); sys.exit(main(['train', '--help']))"
    done = python("-c", "import os, sys; from seqjax.cli import main\n" + closed, check=False)
    assert (done.returncode, done.stderr) == (141, "")


def test_the_package_is_a_program():
    done = python("-m", "seqjax", "--version")
    assert done.stdout == f"seqjax {seqjax.__version__}\n"


def test_the_module_of_the_command_line_runs():
    command = [sys.executable, "-m", "seqjax.cli", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("seqjax ")
