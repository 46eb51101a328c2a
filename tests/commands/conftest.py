"""What makes training in tests cheap: most of its time is compiling."""

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from tests.training.conftest import FAST_TO_COMPILE


@pytest.fixture(scope="module")
def compile_once(tmp_path_factory):
    """For modules most of whose runs are of the same shapes."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, (str(tmp_path_factory.mktemp("compiled")), 0.0), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in zip(names, before, strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def compile_fast(monkeypatch):
    """For runs whose speed does not matter."""
    monkeypatch.setattr("seqjax.training.setup.compiler_options", lambda *_, **__: FAST_TO_COMPILE)
