"""verify on int8: its ladder, the smallest set not to quantize, parts, and what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

pytest.importorskip("torch", reason="not checked here: torch is not installed")

from tests.support import plant
from tests.support.models import perturbed, save_training_file, tiny_config
from vim_deploy.cli.main import run
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.graph.quantization.bypass import without_rounded_activations
from vim_deploy.recipe.precision_policy import load_policy
from vim_deploy.recipe.quantization import QuantizeOptions
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.stages import bisect_precision, verify, verify_ladder
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.exporting import ExportResult, export
from vim_deploy.stages.subjects import SubjectOptions
from vim_deploy.stages.verifying import VerifyOptions

ALL = pytest.mark.skipif(
    not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs the other checks"
)
CONFIG = tiny_config()
PICTURES = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, its config, pictures, and a saved calibration."""
    place = tmp_path_factory.mktemp("quantized")
    save_training_file(perturbed(VisionMamba(CONFIG)), place / "tiny.pth")
    (place / "tiny.json").write_text(json.dumps(encode(CONFIG)))
    pictures = place / "pictures"
    pictures.mkdir()
    generator = np.random.default_rng(0)
    for number in range(PICTURES):
        coarse = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((16, 16)).save(pictures / f"{number:02}.png")
    return place


@pytest.fixture(scope="module")
def exported(folder: Path) -> ExportResult:
    request = ModelRequest(str(folder / "tiny.pth"), config=encode(CONFIG))
    quantize = QuantizeOptions(folder / "pictures", folder / "calibration.json")
    options = ExportOptions(precision="int8", check=False, quantize=quantize)
    return export(request, folder / "int8.onnx", options)


@pytest.fixture(autouse=True)
def _in_folder(folder: Path, exported: ExportResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


SHOWN = VerifyOptions(Path("pictures"))


def checkpoint(**quantize: object) -> SubjectOptions:
    options = QuantizeOptions(**quantize)  # type: ignore[arg-type]
    return SubjectOptions("int8", None, ModelRequest("", config=encode(CONFIG)), options)


def test_export_says_how_every_product_came_out(exported: ExportResult) -> None:
    assert exported.quantization is not None
    layers = exported.quantization.layers
    said = [note.text for note in exported.notes if note.kind == "quantized"]
    worst = max(layers, key=lambda layer: layer.error or 0.0)
    assert said[0].startswith(f"quantized: {len(layers)} products, ")
    assert f"furthest off (relative L2): {worst.name} {worst.error:.1e}, " in said[0]
    stored = encode(exported)["quantization"]["layers"]
    assert [layer["name"] for layer in stored] == [layer.name for layer in layers]
    assert all(layer["error"] > 0 for layer in stored)


def test_the_ladder_of_a_file_and_of_its_checkpoint() -> None:
    of_file = verify_ladder("int8.onnx", "tiny.pth", SHOWN)
    of_file.require_passed()
    assert of_file.ladder is not None
    below = ["PyTorch fp32", "base ONNX", "fused-low-rank ONNX", "int8 weights"]
    assert [rung.name for rung in of_file.ladder.rungs][:5] == [*below, "int8.onnx"]
    assert {rung.against for rung in of_file.ladder.rungs[1:]} == {"PyTorch fp32"}
    made = verify_ladder("tiny.pth", None, SHOWN, checkpoint(calibration=Path("calibration.json")))
    made.require_passed()
    assert made.ladder is not None
    assert [rung.name for rung in made.ladder.rungs] == [*below, "int8 ONNX"]
    weights, both = (rung.results[0].comparisons[0].relative_l2 for rung in made.ladder.rungs[3:])
    assert 0 < weights < both


@ALL
def test_a_wrong_weight_breaks_the_rung_of_weights() -> None:
    model = onnx.load("int8.onnx")
    name = next(item.name for item in model.graph.initializer
                if "out_proj" in item.name and item.name.endswith("weight_scale"))  # fmt: skip
    plant.change_weight(model, name, lambda values: values * 1.5)
    onnx.save(model, "wrong.onnx")
    report = verify_ladder("wrong.onnx", "tiny.pth", SHOWN)
    assert report.ladder is not None
    assert report.ladder.broken is not None
    assert report.ladder.broken.name == "int8 weights"
    assert report.ladder.left_out[0] == "wrong.onnx"


def test_activations_that_are_not_rounded() -> None:
    model = onnx.load("int8.onnx")
    bypassed = without_rounded_activations(model)
    onnx.checker.check_model(bypassed)
    kinds = [node.op_type for node in bypassed.graph.node]
    assert "QuantizeLinear" not in kinds
    constants = {item.name for item in bypassed.graph.initializer}
    left = [node for node in bypassed.graph.node if node.op_type == "DequantizeLinear"]
    assert left
    assert all(node.input[0] in constants for node in left)
    assert "QuantizeLinear" in [node.op_type for node in model.graph.node]


def test_every_part_of_a_quantized_file() -> None:
    report = verify("int8.onnx", "tiny.pth", VerifyOptions(Path("pictures"), per_block=True))
    report.require_passed()
    assert report.blocks is not None
    errors = {str(part.place): part.relative_l2 for part in report.blocks.parts}
    for name in ("patch_embed", "block 0 in_proj", "block 1 x_proj bwd", "block 1 out_proj"):
        assert 0 < errors[name] < 0.1, name


@pytest.mark.parametrize("floats", ["fp32", pytest.param("fp16", marks=ALL)])
def test_the_smallest_set_not_to_quantize(floats: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["verify", "tiny.pth", "--config", "tiny.json", "--precision", "int8", "--bisect",
             "--calibration", "calibration.json", "--high-precision", floats,
             "--images", "pictures", "-o", f"{floats}.toml", "--report", floats]  # fmt: skip
    assert run([*given, "--relative-l2", "1"]) == 0
    nothing = json.loads(Path(floats, "bisect.json").read_text())
    assert nothing["units"] == []
    limit = 0.7 * nothing["kept"]["relative_l2"]
    assert run([*given, "--relative-l2", str(limit), "--force"]) == 0
    told = capsys.readouterr()
    assert "parts not quantized for" in told.out
    found = json.loads(Path(floats, "bisect.json").read_text())
    assert found["units"]
    assert found["kept"]["relative_l2"] <= limit < found["nothing_kept"]["relative_l2"]
    assert all(unit["relative_l2"] > limit for unit in found["without"])
    assert "not to quantize to int8" in Path(floats, "bisect.md").read_text()
    policy = load_policy(Path(f"{floats}.toml"))
    assert policy.keep_fp32
    assert {role for rule in policy.not_quantized for role in rule.roles} == {
        unit["role"] for unit in found["units"]
    }
    if not os.environ.get("VIM_TEST_ALL"):
        return
    # The export of that policy is the model that was found.
    made = ["export", "tiny.pth", "--config", "tiny.json", "--precision", "int8", "--no-check",
            "--calibration", "calibration.json", "--high-precision", floats,
            "--precision-policy", f"{floats}.toml", "-o", f"{floats}.onnx"]  # fmt: skip
    assert run(made) == 0
    options = VerifyOptions(Path("pictures"), batches=(4,), limits={"relative_l2": limit})
    verify(f"{floats}.onnx", "tiny.pth", options).require_passed()


def test_a_file_is_bisected_by_its_checkpoint() -> None:
    options = VerifyOptions(Path("pictures"), limits={"relative_l2": 1.0})
    if os.environ.get("VIM_TEST_ALL"):
        subject = SubjectOptions(quantize=QuantizeOptions(Path("calibration.json")))
        found = bisect_precision("int8.onnx", "tiny.pth", options, subject)
        assert (found.precision, found.bisection.units) == ("int8", ())
    with pytest.raises(VimDeployError, match="does not hold the scales of other policies"):
        bisect_precision("int8.onnx", "tiny.pth", options)
    contradicting = QuantizeOptions(Path("calibration.json"), high_precision="fp16")
    with pytest.raises(VimDeployError, match=r"--high-precision fp16 contradicts int8\.onnx"):
        bisect_precision("int8.onnx", "tiny.pth", options, SubjectOptions(quantize=contradicting))


OF_FILE = ["int8.onnx", "--against", "tiny.pth"]
OF_CHECKPOINT = ["tiny.pth", "--config", "tiny.json", "--precision", "int8"]
STORED = ["--calibration", "calibration.json"]


@pytest.mark.parametrize(
    ("arguments", "said", "fix"),
    [
        ([*OF_FILE, "--images", "pictures", "--twin"], "no twin of a model in int8", "--ladder"),
        ([*OF_FILE, "--images", "pictures", *STORED], "--calibration has no effect", ""),
        ([*OF_FILE, "--images", "pictures", "--ladder", *STORED], "holds its scales", ""),
        ([*OF_CHECKPOINT, "--ladder"], "--precision int8 needs pictures", "--calibration DIR"),
        ([*OF_CHECKPOINT, *STORED, "--bisect"], "random images do not tell", "--images"),
        ([*OF_CHECKPOINT, *STORED, "--bisect", "--random", "1"], "do not tell", "in place of"),
        (["tiny.pth", "--config", "tiny.json", "--ladder", *STORED], "quantizes nothing", ""),
    ],
)
def test_refused(
    arguments: list[str], said: str, fix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify", *arguments]) == 2
    told = capsys.readouterr().err
    assert "VIM-203" in told
    assert said in told
    assert fix in told
