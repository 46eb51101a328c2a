import jax
import pytest

from seqjax.errors import TrainingError
from seqjax.training.devices import compiler_options, find_device, memory_limit


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
