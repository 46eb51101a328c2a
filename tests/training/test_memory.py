import resource

import jax
import numpy as np

from seqjax.training import memory
from seqjax.training.memory import memory_in_use


class Accelerator:
    def __init__(self, used):
        self.used = used

    def memory_stats(self):
        return None if self.used is None else {"bytes_in_use": self.used}


def test_of_accelerators_the_fullest_counts(monkeypatch):
    asked = []
    monkeypatch.setattr(
        jax,
        "local_devices",
        lambda backend: asked.append(backend) or [Accelerator(5), Accelerator(7), Accelerator(None)],
    )
    assert memory_in_use("gpu") == 7
    assert asked == ["gpu"]


def test_on_a_cpu_it_is_what_the_process_holds():
    before = memory_in_use("cpu")
    held = np.ones(50_000_000, np.uint8)
    assert before + 40_000_000 < memory_in_use("cpu") < before + 80_000_000
    del held


def test_where_the_system_does_not_tell_it_is_the_most_there_was(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert memory_in_use("cpu") >= most
    monkeypatch.setattr(memory, "find_spec", lambda name: None)
    assert memory_in_use("cpu") == 0
