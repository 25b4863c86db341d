"""Compute capabilities: what users write, what plans say."""

from __future__ import annotations

import pytest

from vim_deploy.artifact.engine_file import (
    describe_gpus,
    from_plan_word,
    parse_compute_capabilities,
)
from vim_deploy.errors import VimDeployError

SUPPORTED = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], ()),
        (["8.6"], ("8.6",)),
        (["86", "sm_89", "SM120"], ("8.6", "8.9", "12.0")),
        (["12.0", "7.5", "8.0", "7.5"], ("7.5", "8.0", "12.0")),
    ],
)
def test_written_forms(given, expected):
    assert parse_compute_capabilities(given, SUPPORTED) == expected


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ("9.0", "Hopper"),
        ("87", "Orin"),
        ("sm_100", "Blackwell"),
        ("6.1", "6.1"),
        ("ampere", "ampere"),
        ("", "''"),
        ("8.6.1", "8.6.1"),
        ("sm_90a", "sm_90a"),
    ],
)
def test_refused(given, word):
    with pytest.raises(VimDeployError) as caught:
        parse_compute_capabilities([given], SUPPORTED)
    assert caught.value.code == "VIM-202"
    assert word in caught.value.message


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (0x7E, (("8.0", "8.6", "8.9", "12.0", "12.1"), True)),
        (0x01, (("7.5",), False)),
        (0x05, (("7.5", "8.6"), False)),
        (0x00, ((), False)),
    ],
)
def test_plan_word(word, expected):
    assert from_plan_word(word) == expected


def test_description():
    assert describe_gpus(("8.0", "8.6"), later=True) == "compute capability 8.0, 8.6 and later"
    assert describe_gpus(("7.5",), later=False) == "compute capability 7.5"
