"""Numbers nobody can mean, on every option of every command: a usage error, at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import pytest

from vim_deploy.artifact.profiles import ProfileOptions, parse_shapes
from vim_deploy.cli import options
from vim_deploy.cli.main import cli, run
from vim_deploy.errors import VimDeployError
from vim_deploy.packaging.repository import ServingOptions
from vim_deploy.parity.accuracy import Limits
from vim_deploy.parity.cases import random_case
from vim_deploy.parity.metrics import Tolerance
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.runtimes.building.request import TrtOptions
from vim_deploy.scene.records import RunOptions, SceneOptions
from vim_deploy.specs import TensorSpec
from vim_deploy.stages.benchmarking import BenchOptions
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.verifying import VerifyOptions
from vim_deploy.stages.verifying_dataset import DatasetOptions

ABSURD = ("nan", "inf", "-inf", "9" * 30, "9" * 4300, "-1", "\u0663", "1_0", "")


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for name in group.list_commands(click.Context(group)):
        found = group.get_command(click.Context(group), name)
        if isinstance(found, click.Group):
            yield from commands(found, (*path, name))
        elif found is not None:
            yield (*path, name), found


def numeric_options() -> Iterator[tuple[tuple[str, ...], str]]:
    """Path of the command and name of every option that takes numbers."""
    for path, command in commands(cli):
        for option in command.params:
            ours = type(option.type).__module__ in (
                options.__name__, "vim_deploy.cli.cmd_run"
            )  # fmt: skip
            if isinstance(option, click.Option) and ours:
                yield path, option.opts[-1]


OPTIONS = sorted(set(numeric_options()))


def test_no_option_takes_a_number_of_click_itself() -> None:
    for path, command in commands(cli):
        for option in command.params:
            name = (*path, option.name)
            if isinstance(option, click.Option) and option.count:
                continue  # -vv: nobody writes its number
            assert not isinstance(option.type, click.types.IntParamType | click.types.FloatParamType
            ) or isinstance(
                option.type, options.WholeNumber | options.RealNumber
            ), name  # fmt: skip
    assert len(OPTIONS) > 40


@pytest.mark.parametrize(("path", "option"), OPTIONS, ids=lambda value: str(value))
def test_absurd_numbers_are_usage_errors(path: tuple[str, ...], option: str, capsys: Any) -> None:
    for text in ABSURD:
        if option == "--cosine" and text == "-1":
            continue
        arguments = ["x"] * (2 if path == ("refit",) else 1)
        assert run([*path, *arguments, f"{option}={text}"]) == 2, text
        said = capsys.readouterr().err
        assert option in said, text
        assert "Traceback" not in said
        assert len(said) < 1200
        # The allowed range, or the form where the text is not even of that.
        assert any(word in said for word in (" from ", " above ", "neither none nor")), said


@pytest.mark.parametrize(
    ("path", "option"), [(("bench",), "--duration"), (("package",), "--instances")]
)
def test_the_environment_is_no_way_round(
    path: tuple[str, ...], option: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "_".join(("VIM_DEPLOY", *path, option.strip("-"))).upper().replace("-", "_")
    monkeypatch.setenv(name, "9" * 30)
    assert run([*path, "x"]) == 2
    assert option in capsys.readouterr().err


@pytest.mark.parametrize(
    ("record", "given"),
    [
        (ModelRequest, {"source": "x", "mean": (123.675, 0.5, 0.5)}),
        (ModelRequest, {"source": "x", "std": (0.0,)}),
        (ModelRequest, {"source": "x", "std": (float("nan"),)}),
        (ModelRequest, {"source": "x", "crop_ratio": 1e-9}),
        (ModelRequest, {"source": "x", "random_weights": 10**40}),
        (ModelRequest, {"source": "x", "image_size": (32, 10**9)}),
        (ExportOptions, {"batch": 0}),
        (ExportOptions, {"opset": 22}),
        (ServingOptions, {"max_batch": 10**30}),
        (ServingOptions, {"instances": 0}),
        (ServingOptions, {"queue_delay_us": -1}),
        (ServingOptions, {"threads": 10**20}),
        (BenchOptions, {"duration": float("inf")}),
        (BenchOptions, {"warmup": float("nan")}),
        (BenchOptions, {"batches": (1, 10**9)}),
        (BenchOptions, {"max_regress": -0.1}),
        (VerifyOptions, {"random": 999999999999}),
        (VerifyOptions, {"batches": ()}),
        (DatasetOptions, {"batch": 0}),
        (Limits, {"max_loss": float("nan")}),
        (Tolerance, {"atol": float("nan")}),
        (Tolerance, {"relative_l2": float("inf")}),
        (Tolerance, {"cosine": 2.0}),
        (RunOptions, {"top": 0}),
        (SceneOptions, {"opacity": float("nan")}),
        (SceneOptions, {"stride": (0, 5)}),
        (SceneOptions, {"scale": (10**9, 5)}),
        (TrtOptions, {"workspace_mib": 10**12}),
        (ProfileOptions, {"max_batch": 10**30}),
    ],
)
def test_a_library_user_is_told_too(record: Any, given: dict[str, Any]) -> None:
    with pytest.raises(VimDeployError) as caught:
        record(**given)
    assert caught.value.code == "VIM-202"
    assert caught.value.fix


@pytest.mark.parametrize("size", ["9" * 4400, "\u0663", "+3", "-3", "0", "", "3.0", "2147483648"])
def test_sizes_of_shapes_are_plain_numbers(size: str) -> None:
    with pytest.raises(VimDeployError) as caught:
        parse_shapes(f"image:1x{size}")
    assert caught.value.code == "VIM-202"
    assert len(str(caught.value)) < 400


def test_random_images_that_no_memory_holds_are_refused() -> None:
    spec = TensorSpec("image", "float32", ("batch", 3, 512, 512))
    with pytest.raises(VimDeployError, match="VIM-202"):
        random_case(spec, "none", 100_000)


def test_means_for_bytes_are_explained(capsys: Any) -> None:
    words = ["export", "vim-digits", "--mean", "123.675,116.28,103.53"]
    assert run(words) == 2
    assert "by 255" in " ".join(capsys.readouterr().err.split())
