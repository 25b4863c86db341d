"""Coded errors: codes, exit codes, text."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from vim_deploy.errors import (
    CATALOG,
    ExitCode,
    InputNotFoundError,
    VimDeployError,
    missing_package,
    nearest,
)
from vim_deploy.installation import extra_command


@pytest.mark.parametrize("code", CATALOG)
def test_every_code_has_an_exit_code_and_a_title(code: str) -> None:
    error = VimDeployError(code, "what")
    assert error.exit_code in ExitCode
    assert error.exit_code not in (ExitCode.OK, ExitCode.UNEXPECTED)
    assert CATALOG[code]


def test_catalog_is_in_order() -> None:
    assert list(CATALOG) == sorted(CATALOG, key=lambda code: int(code.removeprefix("VIM-")))


def test_exit_code_is_the_codes_own_digits() -> None:
    assert VimDeployError("VIM-403", "x").exit_code == ExitCode.BAD_INPUT
    assert VimDeployError("VIM-701", "x").exit_code == ExitCode.PARITY_NOT_MET
    assert VimDeployError("VIM-1001", "x").exit_code == ExitCode.PERFORMANCE_REGRESSION


def test_exit_codes_are_stable() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "OK": 0,
        "UNEXPECTED": 1,
        "USAGE": 2,
        "ENVIRONMENT": 3,
        "BAD_INPUT": 4,
        "EXPORT_FAILED": 5,
        "BUILD_FAILED": 6,
        "PARITY_NOT_MET": 7,
        "PRECISION_NOT_AS_ASKED": 8,
        "INCOMPATIBLE_ENGINE": 9,
        "PERFORMANCE_REGRESSION": 10,
        "INTERRUPTED": 130,
        "READER_GONE": 141,
    }


def test_unknown_code_is_a_defect() -> None:
    with pytest.raises(KeyError, match="VIM-999"):
        VimDeployError("VIM-999", "x")


def test_a_code_that_callers_tell_apart_has_a_class() -> None:
    error = VimDeployError("VIM-401", "gone", why="no such file")
    assert type(error) is InputNotFoundError
    assert (error.code, error.message, error.why) == ("VIM-401", "gone", "no such file")
    assert type(VimDeployError("VIM-402", "no checkpoint")) is VimDeployError
    kinds = VimDeployError.__subclasses__()
    assert len(kinds) > 5
    for code in CATALOG:
        assert sum(isinstance(VimDeployError(code, "x"), kind) for kind in kinds) <= 1


def test_text_and_json() -> None:
    error = VimDeployError("VIM-401", "gone", why="no such file", fix="check the path")
    assert str(error) == "VIM-401: gone\nwhy: no such file\nfix: check the path"
    assert str(VimDeployError("VIM-401", "gone")) == "VIM-401: gone"
    assert json.loads(json.dumps(error.as_dict())) == {
        "code": "VIM-401",
        "title": CATALOG["VIM-401"],
        "message": "gone",
        "why": "no such file",
        "fix": "check the path",
        "exit_code": 4,
    }


def test_nearest_names_the_closest_or_all() -> None:
    assert nearest("vim-tinny", ["vim-tiny", "vim-base"]) == "did you mean 'vim-tiny'?"
    assert nearest("zzz", ["b", "a"]) == "valid names: a, b"


def test_missing_package_says_what_to_install() -> None:
    error = missing_package("torch", "torch", "reading a checkpoint")
    assert error.code == "VIM-301"
    assert "'torch'" in error.message
    assert extra_command("torch") in error.fix


@pytest.mark.parametrize("code", CATALOG)
def test_errors_survive_pickling_and_copying(code: str) -> None:
    error = VimDeployError(code, "what {} %s", why="because\nof", fix="do")
    vars(error)["noted"] = "as add_note does from Python 3.11 on"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol))
        assert type(again) is type(error)
        assert (again.as_dict(), str(again), vars(again)) == (
            error.as_dict(),
            str(error),
            vars(error),
        )
    assert copy.copy(error).as_dict() == copy.deepcopy(error).as_dict() == error.as_dict()
