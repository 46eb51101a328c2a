"""The public names: what they are, that they are found, and that they coerce their config."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import seqjax
from seqjax.config.preprocess import PreprocessConfig

VALUES = {"project_root": ".", "data_path": "x.csv", "seq_length": 8, "split_ratios": [1.0]}


def test_every_public_name_resolves():
    for name in seqjax.__all__:
        assert getattr(seqjax, name) is not None
    assert set(seqjax.__all__) <= set(dir(seqjax))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        _ = seqjax.tarin  # type: ignore[attr-defined]


def test_importing_seqjax_imports_only_itself():
    program = (
        "import sys; before = set(sys.modules); import seqjax\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(new - sys.stdlib_module_names)"
    )
    root = Path(seqjax.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout == "{'seqjax'}\n"


def test_make_creates_a_project(tmp_path):
    assert seqjax.make(tmp_path / "project") == tmp_path / "project"


def test_a_command_takes_a_mapping_with_overrides(monkeypatch):
    from seqjax.commands import preprocess as command

    monkeypatch.setattr(command, "preprocess", lambda config: config)
    expected = PreprocessConfig.model_validate(VALUES | {"seed": 5})
    assert seqjax.preprocess(VALUES, {"seed": 5}) == expected


def test_a_search_asks_whom_it_is_told_to(monkeypatch):
    from seqjax.commands import hyperparameter_search as command
    from tests.searches import values

    monkeypatch.setattr(command, "hyperparameter_search", lambda *given: given)
    found: Any = seqjax.search(values(), {"seed": 5}, confirm=bool)
    assert (found[0].seed, found[1]) == (5, bool)


def test_a_mistake_in_python_is_a_seqjax_error():
    with pytest.raises(seqjax.SeqjaxError, match="seq_length: must be a whole number"):
        seqjax.preprocess(VALUES | {"seq_length": "x"})
