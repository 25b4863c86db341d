"""Shared fixtures and the summary of what this machine could not check."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support import reference


def pytest_configure() -> None:
    """Processes started by tests take Ctrl-C even when this one was started in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def digits_checkpoint() -> Path:
    """The trained toy checkpoint in the official training layout."""
    return reference.load_case(reference.DIGITS).checkpoint


@pytest.fixture
def full_size_case() -> reference.ReferenceCase:
    """The full-size Vim-Ti case; skips where it is not on this machine."""
    return reference.load_case(reference.FULL_SIZE)
