"""What a process has once, with threads that come and go in any order."""

from __future__ import annotations

import os
import threading
import warnings
from contextlib import ExitStack
from pathlib import Path

import pytest

from vim_deploy.files import current_umask
from vim_deploy.threads import no_warnings


def test_warnings_are_silent_while_anybody_is_inside() -> None:
    before = [*warnings.filters]
    first, second = ExitStack(), ExitStack()
    first.enter_context(no_warnings())
    second.enter_context(no_warnings())
    first.close()
    warnings.warn("of the second's library", UserWarning, stacklevel=1)
    second.close()
    assert [*warnings.filters] == before
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", UserWarning, stacklevel=1)


def test_an_error_inside_ends_the_silence() -> None:
    before = [*warnings.filters]
    with pytest.raises(ZeroDivisionError), no_warnings():
        raise ZeroDivisionError
    assert [*warnings.filters] == before


def test_threads_read_the_mask_and_leave_it(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        seen: set[int] = set()

        def read() -> None:
            for _ in range(2_000):
                seen.add(current_umask())

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == {0o027}
        assert current_umask() == 0o027
    finally:
        os.umask(before)
