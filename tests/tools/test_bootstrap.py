"""The bootstrap does nothing twice, and says what is missing."""

import subprocess
import sys

import pytest

from tools import bootstrap


@pytest.fixture
def repository(tmp_path, monkeypatch):
    for name in ("pyproject.toml", "uv.lock"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(bootstrap, "STAMP", tmp_path / ".venv" / "stamp")
    monkeypatch.delenv("PYTHON", raising=False)
    return tmp_path


@pytest.fixture
def commands(repository, monkeypatch):
    """Commands that would have been run."""
    commands = []

    def run(command):
        (repository / ".venv").mkdir(exist_ok=True)
        commands.append(command)

    monkeypatch.setattr(bootstrap, "run", run)
    return commands


def test_second_run_does_nothing(repository, commands, monkeypatch):
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: f"/bin/{name}")
    assert bootstrap.main() == 0
    assert commands == [["/bin/uv", "sync", "--frozen", "--extra", "dev"]]
    assert bootstrap.main() == 0
    assert len(commands) == 1
    (repository / "uv.lock").write_text("another")
    assert bootstrap.main() == 0
    assert len(commands) == 2


def test_without_uv_pip_installs_it(repository, commands, monkeypatch):
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: None)
    assert bootstrap.main() == 0
    venv = repository / ".venv"
    assert commands[0] == [sys.executable, "-m", "venv", "--clear", str(venv)]
    assert commands[1][:4] == [str(venv / "bin" / "python"), "-m", "pip", "install"]
    # Exact: a plain sync would remove the very uv that runs it.
    assert commands[2] == [str(venv / "bin" / "uv"), "sync", "--frozen", "--extra", "dev", "--inexact"]


def test_failure_leaves_no_stamp(repository, monkeypatch, capsys):
    def fail(command):
        raise subprocess.CalledProcessError(3, command)

    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: "/bin/uv")
    monkeypatch.setattr(bootstrap, "run", fail)
    assert bootstrap.main() == 1
    assert not bootstrap.STAMP.exists()
    assert "run make again" in capsys.readouterr().out


def test_unsuitable_python_is_named(monkeypatch):
    monkeypatch.setattr(bootstrap, "version_of", lambda python: (3, 9))
    with pytest.raises(SystemExit, match=r"needs Python 3\.11, 3\.12 or 3\.13.*old is 3\.9"):
        bootstrap.find_python("old")


def test_this_python_is_suitable():
    assert bootstrap.find_python(None) == sys.executable
    assert bootstrap.version_of("/nowhere/python") is None
