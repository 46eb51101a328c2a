"""The number of runs goes by a device's memory, and the way of training them by the device and the data."""

from types import SimpleNamespace
from typing import Any

import pytest

from seqjax.training.runners import fitting, is_too_wide, suited
from tests.populations import config


def device(platform: str, limit: int | None = None) -> Any:
    """A device with so many bytes of memory."""
    stats = None if limit is None else {"bytes_limit": limit}
    return SimpleNamespace(platform=platform, memory_stats=lambda: stats)


def test_as_many_runs_as_fit_into_a_devices_memory():
    settings, parameters = config(), 1000
    some = fitting(settings, parameters, device("gpu", 10**8))
    assert 100 < some < 10**8 / (5 * parameters)
    assert fitting(settings, parameters, device("gpu", 2 * 10**8)) == pytest.approx(2 * some, abs=1)
    assert fitting(settings, 50 * parameters, device("gpu", 10**8)) < some
    assert fitting(config({"batch_size": 40}), parameters, device("gpu", 10**8)) < some
    assert fitting(settings, parameters, device("gpu", 10)) == 1
    # Nothing is known of it, and halving mends what was too much.
    assert fitting(settings, parameters, device("cpu")) == fitting(settings, parameters, device("gpu")) == 64


def test_a_cpu_takes_runs_one_by_one_unless_each_would_read_the_data():
    assert suited(device("cpu"), is_resident=True, runs=2) == "loop"
    assert suited(device("cpu"), is_resident=False, runs=2) == "vmap"
    assert {suited(device("gpu"), is_resident=resident, runs=2) for resident in (True, False)} == {"vmap"}
    assert suited(device("gpu"), is_resident=True, runs=1) == "loop"


def test_an_accelerator_does_not_compute_slots_that_stay_empty():
    assert is_too_wide("vmap", device("gpu"), slots=36, runs=12)
    assert not is_too_wide("vmap", device("gpu"), slots=36, runs=20)
    assert not is_too_wide("vmap", device("cpu"), slots=36, runs=12)
    assert not is_too_wide("loop", device("gpu"), slots=36, runs=12)
