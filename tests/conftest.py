"""Fixtures that every test may ask for."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data (lfw/, pins90/, ...), which is no part of the repository."""
    beside = Path(__file__).parents[1] / "../shared/data"
    folder = Path(os.environ.get("CRFR_SHARED_DATA", beside)).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} does not exist; set CRFR_SHARED_DATA")
    return folder
