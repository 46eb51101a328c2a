"""The allocator's options are accepted where there is glibc, and left alone elsewhere."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from seqjax import allocator

PROGRAM = "import runpy, sys; print(runpy.run_path(sys.argv[1])['keep_freed_memory']())"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the options are glibc's")
def test_glibc_accepts_the_options():
    words = [sys.executable, "-c", PROGRAM, str(Path(allocator.__file__))]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "True\n"


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert allocator.keep_freed_memory() is False
