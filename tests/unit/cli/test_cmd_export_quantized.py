"""Options of quantization on the command line: what they become, and what says no."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support import detectors
from vim_deploy.cli.main import run
from vim_deploy.cli.quantization_options import quantization_options, take_quantize_options
from vim_deploy.errors import VimDeployError
from vim_deploy.precisions import Precision
from vim_deploy.recipe.quantization import OPTIONS, QuantizeOptions
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.exporting import export

INT8 = ("--precision", "int8")
FOLDER = ("--calibration", "photos")
FILE = ("--calibration", "c.json")
TOKENS = ("--activation-scales", "per-token")


@pytest.mark.parametrize("command", ["export", "deploy"])
@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((*FOLDER,), "--calibration has no effect with --precision fp32"),
        (("--precision", "fp16", *FOLDER), "--calibration has no effect with --precision fp16"),
        (("--precision", "bf16", "--high-precision", "fp16"), "--high-precision has no effect"),
        (("--precision", "fp16", "--calibration-seed", "0"), "--calibration-seed has no effect"),
        (
            ("--calibration-method", "minmax", "--calibration-images", "128"),
            "--calibration-method and --calibration-images have no effect",
        ),
        (INT8, "--precision int8 --calibration DIR"),
        (INT8, "or --activation-scales per-token"),
        (("--precision", "fp8"), "--precision fp8 --calibration DIR"),
        (("--precision", "fp8", *FOLDER, "--opset", "18"), "opset 18 has no fp8 fix: --opset 19"),
        ((*INT8, *TOKENS, "--save-calibration", "c.json"), "no effect without --calibration"),
        ((*INT8, *TOKENS, "--calibration-seed", "1"), "--calibration-seed has no effect"),
        ((*INT8, *FILE, "--calibration-method", "minmax"), "the file says which pictures"),
        ((*INT8, *FILE, "--calibration-images", "64"), "--calibration-images has no effect"),
        ((*INT8, *FILE, "--save-calibration", "d.json"), "--save-calibration has no effect"),
        (
            (*INT8, *FOLDER, *TOKENS, "--calibration-method", "entropy"),
            "each row of activations has its own range",
        ),
    ],
)
def test_options_without_effect(
    command: str,
    words: tuple[str, ...],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([command, "vim-digits", *words]) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert "VIM-203" in err
    assert says in err
    assert command == "deploy" or not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--calibration-images", "15"), "from 16"),
        (("--calibration-images", "many"), "from 16"),
        (("--calibration-seed", "-1"), "from 0"),
        (("--calibration-method", "max"), "minmax"),
        (("--activation-scales", "per-channel"), "per-token"),
        (("--high-precision", "int8"), "fp32"),
    ],
)
def test_values_that_are_none(
    words: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", "vim-digits", *INT8, *FOLDER, *words]) == 2
    assert says in capsys.readouterr().err


def taken(*words: str, precision: Precision | None = "int8") -> QuantizeOptions:
    found: list[QuantizeOptions] = []

    @click.command()
    @quantization_options
    def command(**options: Any) -> None:
        found.append(take_quantize_options(options, precision))
        assert not options

    command(list(words), standalone_mode=False)
    return found[0]


def test_what_options_become() -> None:
    given = taken(
        "--calibration", "photos", "--calibration-method", "entropy", "--calibration-images", "64",
        "--calibration-seed", "7", "--save-calibration", "c.json", "--high-precision", "fp16",
    )  # fmt: skip
    assert given == QuantizeOptions(
        "photos", "c.json", "entropy", images=64, seed=7, high_precision="fp16"
    )
    assert taken(*TOKENS) == QuantizeOptions(activations="per-token")
    assert taken(*FOLDER, *TOKENS).calibration == Path("photos")
    assert taken(*FILE).takes_stored
    assert taken(precision="fp16") == taken(precision=None) == QuantizeOptions()


def test_callers_of_python_hear_the_same() -> None:
    for options, precision in (
        (QuantizeOptions(calibration="photos"), "fp32"),
        (QuantizeOptions(high_precision="fp16"), "fp16"),
        (QuantizeOptions(activations="per-token", seed=1), "int8"),
        (QuantizeOptions(calibration="c.json", method="entropy"), "int8"),
    ):
        with pytest.raises(VimDeployError, match="VIM-203"):
            options.require_effect(precision)  # type: ignore[arg-type]
    QuantizeOptions().require_effect("fp32")
    QuantizeOptions(calibration="photos", high_precision="fp32").require_effect("fp8")
    for options in (
        ExportOptions(precision="int8"),
        ExportOptions(quantize=QuantizeOptions(seed=1)),
    ):
        with pytest.raises(VimDeployError, match="VIM-203"):
            export("vim-digits", options=options)
    assert {*OPTIONS.values()} == {*vars(QuantizeOptions())}


def quantized_file(path: Path) -> None:
    """A graph with one product between Q and DQ, as any tool writes it."""
    zero = numpy_helper.from_array(np.int8(0), "zero")
    scale = numpy_helper.from_array(np.float32(0.1), "scale")
    weight = numpy_helper.from_array(np.ones((4, 2), np.float32), "weight")
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["whole"], "q"),
        helper.make_node("DequantizeLinear", ["whole", "scale", "zero"], ["near"], "dq"),
        helper.make_node("MatMul", ["near", "weight"], ["logits"], "product"),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size])
        for name, size in (("image", 4), ("logits", 2))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [zero, scale, weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)


@pytest.mark.parametrize("more", [(), FOLDER, (*TOKENS, "--standalone")])
def test_a_file_that_is_quantized_is_not_quantized_again(
    more: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quantized_file(tmp_path / "q.onnx")
    assert run(["export", str(tmp_path / "q.onnx"), *INT8, *more]) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert "VIM-203" in err
    assert "is quantized already: its products compute in int8" in err


def test_an_exported_file_takes_no_precision(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detectors.stand_in(tmp_path / "d.onnx")
    assert run(["export", str(tmp_path / "d.onnx"), *INT8, *FOLDER]) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert "is an exported file, which takes no --precision why:" in err
