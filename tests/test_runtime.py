"""What a process asks of its machine: options of glibc's allocator, a place for compiled programs."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from seqjax import runtime
from seqjax.runtime import keep_compilations, keep_freed_memory

VARIABLE = "JAX_COMPILATION_CACHE_DIR"
LEAST = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    # Set and then deleted, so that what the function sets is undone too.
    for name in (VARIABLE, LEAST):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_folder_of_the_user_is_named(tmp_path):
    folder = keep_compilations()
    assert folder is not None
    assert folder.is_dir()
    assert folder.is_relative_to(tmp_path / "cache" / "seqjax")
    assert os.environ[VARIABLE] == str(folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("given", "kept"), [(None, 0.1), ("3", 3)])
def test_short_programs_are_kept_too_unless_the_user_says_otherwise(monkeypatch, given, kept):
    if given is not None:
        monkeypatch.setenv(LEAST, given)
    keep_compilations()
    assert float(os.environ[LEAST]) == kept


def test_the_users_own_folder_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, "elsewhere")
    assert keep_compilations() is None
    assert os.environ[VARIABLE] == "elsewhere"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("relative", ["", "not/absolute"])
def test_the_home_directory_is_the_default(monkeypatch, tmp_path, relative):
    monkeypatch.setenv("XDG_CACHE_HOME", relative)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = keep_compilations()
    assert folder is not None
    assert folder.is_relative_to(tmp_path / "home" / ".cache")


def test_a_folder_that_cannot_be_made_is_no_failure(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert keep_compilations() is None
    assert VARIABLE not in os.environ


PROGRAM = "import runpy, sys; print(runpy.run_path(sys.argv[1])['keep_freed_memory']())"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the options are glibc's")
def test_glibc_accepts_the_options():
    words = [sys.executable, "-c", PROGRAM, str(Path(runtime.__file__))]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "True\n"


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
