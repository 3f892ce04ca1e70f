"""Settings and fixtures of all tests; their helpers are in support/."""

import os
from pathlib import Path

import pytest

# Two threads spin against each other when the machine is busy; the nets here are too small to gain.
os.environ["OMP_NUM_THREADS"] = "1"

from browser import browser, open_page, play  # noqa: E402, F401
from small_corpus import write_data  # noqa: E402


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """Six training and three validation utterances of one to two seconds, two speakers."""
    train = [16000, 20480, 32000, 17000, 25600, 30000]
    valid = [16000, 20480, 12800]
    folder = tmp_path_factory.mktemp("data") / "tiny"
    return write_data(folder, {"train": train, "valid": valid, "test": valid})
