"""Fixtures and settings shared by all tests."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference outputs and real data beside the repository; a test that needs them skips without."""
    if not (SHARED / "golden").is_dir():
        pytest.skip("reference outputs are not part of this repository (no ../shared/golden)")
    return SHARED
