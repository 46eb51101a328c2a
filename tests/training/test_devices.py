import gc
import mmap
import resource

import jax
import pytest

from seqjax.errors import TrainingError
from seqjax.training import devices
from seqjax.training.devices import compiler_options, find_device, memory_in_use, memory_limit


class Accelerator:
    platform = "gpu"

    def memory_stats(self):
        return {"bytes_limit": 80_000_000_000}


def test_the_cpu_is_always_there():
    assert find_device("cpu") == find_device("cpu:0") == jax.devices("cpu")[0]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="there is an accelerator")
@pytest.mark.parametrize("name", ["cuda", "mps", "cpu:99"])
def test_a_missing_device_is_named_with_what_there_is(name):
    with pytest.raises(TrainingError, match=rf"there is no {name} here; jax sees .*Set device: auto or cpu"):
        find_device(name)


def test_auto_takes_what_jax_prefers():
    assert find_device("auto") == jax.devices()[0]


@pytest.mark.parametrize("has_dropout", [False, True])
def test_options_are_those_that_xla_accepts(has_dropout):
    options = compiler_options(jax.devices("cpu")[0], deterministic=True, has_dropout=has_dropout)
    assert jax.jit(lambda x: x + 1, compiler_options=options or None)(1.0) == 2.0


def test_limits_of_resident_data():
    cpu = jax.devices("cpu")[0]
    assert memory_limit(cpu, load_in_full=True, max_ram_gb=1.0) is None
    assert memory_limit(cpu, load_in_full=False, max_ram_gb=1.5) == 1.5e9
    assert memory_limit(Accelerator(), load_in_full=True, max_ram_gb=1.0) == 20e9
    assert memory_limit(Accelerator(), load_in_full=False, max_ram_gb=1.0) == 1e9


class Used:
    def __init__(self, used):
        self.used = used

    def memory_stats(self):
        return None if self.used is None else {"bytes_in_use": self.used}


def test_of_accelerators_the_fullest_counts(monkeypatch):
    asked = []
    monkeypatch.setattr(
        jax, "local_devices", lambda backend: asked.append(backend) or [Used(5), Used(7), Used(None)]
    )
    assert memory_in_use("gpu") == 7
    assert asked == ["gpu"]


def test_on_a_cpu_it_is_what_the_process_holds():
    gc.collect()
    before = memory_in_use("cpu")
    with mmap.mmap(-1, 50_000_000) as held:  # Not of the heap, which may have room that is counted already.
        for begin in range(0, 50_000_000, 1_000_000):
            held[begin : begin + 1_000_000] = bytes(1_000_000)
        assert before + 40_000_000 < memory_in_use("cpu") < before + 80_000_000


def test_where_the_system_does_not_tell_it_is_the_most_there_was(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "_STATUS", tmp_path / "none")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert memory_in_use("cpu") >= most
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    assert memory_in_use("cpu") == 0
