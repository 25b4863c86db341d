"""Ladder and bisection on small models: every rung, a broken one, a policy that export takes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from tests.support import plant
from tests.support.models import perturbed, save_training_file, tiny_config
from vim_deploy.artifact import Artifact, metadata, onnx_file
from vim_deploy.cli.main import run
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim import fusion
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.graph import export_graph
from vim_deploy.model.deployed import DeployedModel
from vim_deploy.parity.bisect import Unit
from vim_deploy.recipe.precision_policy import load_policy
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.runtimes.base import Runner
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.stages import bisect_precision, subjects, verify, verify_ladder
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.exporting import export
from vim_deploy.stages.subjects import SubjectOptions
from vim_deploy.stages.verifying import VerifyOptions
from vim_deploy.untrusted import read_bytes

TWO_IMAGES = VerifyOptions(random=2)
CONFIG = tiny_config(depth=3)


@pytest.fixture(scope="module", autouse=True)
def _traced_once() -> Iterator[None]:
    """Tracing takes most of the time here: the same weights are traced once for all tests."""
    traces: dict[str, onnx.ModelProto] = {}
    right = export_graph.named_trace

    def remembered(module: DeployedModel, batch: int | None) -> onnx.ModelProto:
        digest = hashlib.sha256(str((batch, module.preprocess, module.head)).encode())
        for value in module.state_dict().values():
            digest.update(value.numpy().tobytes())
        key = digest.hexdigest()
        if key not in traces:
            traces[key] = right(module, batch)
        copy = onnx.ModelProto()
        copy.CopyFrom(traces[key])
        return copy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_graph, "named_trace", remembered)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, _traced_once: None) -> Path:
    """A checkpoint, its config, and its fp16 export."""
    place = tmp_path_factory.mktemp("ladder")
    save_training_file(perturbed(VisionMamba(CONFIG)), place / "tiny.pth")
    (place / "tiny.json").write_text(json.dumps(encode(CONFIG)))
    request = ModelRequest(str(place / "tiny.pth"), config=encode(CONFIG))
    export(request, place / "half.onnx", ExportOptions(precision="fp16", check=False))
    return place


@pytest.fixture(autouse=True)
def _in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def checkpoint(precision: Any = None) -> SubjectOptions:
    return SubjectOptions(precision, None, ModelRequest("", config=encode(CONFIG)))


def test_every_rung_up_to_the_file(folder: Path) -> None:
    tried: list[str] = []
    report = verify_ladder(
        "half.onnx", "tiny.pth", TWO_IMAGES, done=lambda rung: tried.append(rung.name)
    )
    report.require_passed()
    assert tried == ["PyTorch fp32", "PyTorch fp16 twin", "base ONNX",
                     "fused-low-rank ONNX", "fp16 ONNX", "half.onnx"]  # fmt: skip
    assert report.ladder is not None
    against = [rung.against for rung in report.ladder.rungs]
    twin = "PyTorch fp16 twin"
    assert against == ["", "PyTorch fp32", "PyTorch fp32", "PyTorch fp32", twin, twin]
    # Graphs made for the ladder are those that export makes.
    fp16, file = (rung.results for rung in report.ladder.rungs[-2:])
    assert [r.comparisons for r in fp16] == [r.comparisons for r in file]
    assert report.results == file
    assert all(item.kl is not None for result in file for item in result.comparisons)


def test_ladder_of_a_float32_checkpoint_with_its_last_rung_part_by_part(folder: Path) -> None:
    options = dataclasses.replace(TWO_IMAGES, per_block=True)
    report = verify_ladder("tiny.pth", None, options, checkpoint())
    report.require_passed()
    assert report.ladder is not None
    assert [rung.name for rung in report.ladder.rungs] == [
        "PyTorch fp32", "base ONNX", "fused-low-rank ONNX",
    ]  # fmt: skip
    assert report.blocks is not None
    assert report.blocks.passed
    stored = encode(report)
    assert stored["ladder"]["broken"] is None
    assert len(stored["blocks"]["growth"]["out_proj"]) == 3


def test_the_file_is_the_broken_rung(folder: Path) -> None:
    graph = onnx.load("half.onnx")
    name = "layers.1.mixer.out_proj.weight_t"
    plant.change_weight(graph, name, lambda values: values * 1.1)
    onnx.save(graph, "wrong.onnx")
    report = verify_ladder("wrong.onnx", "tiny.pth", TWO_IMAGES)
    assert report.ladder is not None
    assert report.ladder.broken is not None
    assert report.ladder.broken.name == "wrong.onnx"
    parts = report.ladder.blocks
    assert parts is not None
    assert parts.first is not None
    assert str(parts.first.place) == "block 1 out_proj"
    with pytest.raises(VimDeployError) as caught:
        report.require_passed()
    assert caught.value.code == "VIM-703"
    assert "wrong.onnx" in caught.value.message
    assert "block 1 out_proj" in caught.value.why


def test_a_wrong_pass_breaks_the_fused_rung_and_ends_the_climb(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = fusion.run_passes

    def wrong(model: onnx.ModelProto, **options: Any) -> Any:
        reports = right(model, **options)
        name = "layers.2.mixer.conv1d_pair.w"
        plant.change_weight(model, name, lambda values: values[::-1].copy())
        return reports

    monkeypatch.setattr(fusion, "run_passes", wrong)
    report = verify_ladder("tiny.pth", None, TWO_IMAGES, checkpoint("bf16"))
    ladder = report.ladder
    assert ladder is not None
    assert ladder.broken is not None
    assert ladder.broken.name == "fused-low-rank ONNX"
    assert ladder.left_out == ("bf16 ONNX",)
    assert "block 2 conv fwd" in encode(ladder)["blocks"]["verdict"]


def test_a_form_that_cannot_be_made_is_a_broken_rung(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def refuse(model: onnx.ModelProto, **options: Any) -> Any:
        raise VimDeployError("VIM-502", "pass x_proj rewrote 2 mixers instead of 3")

    monkeypatch.setattr(fusion, "run_passes", refuse)
    assert run(["verify", "tiny.pth", "--config", "tiny.json", "--ladder", "--random", "1"]) == 7
    printed = capsys.readouterr()
    assert "base ONNX: holds against PyTorch fp32" in printed.out
    assert "fused-low-rank ONNX: BROKEN, it could not be made: VIM-502" in printed.out
    assert "error VIM-703" in printed.err
    stored = json.loads(Path("parity.json").read_text())
    assert (stored["passed"], stored["ladder"]["broken"]) == (False, "fused-low-rank ONNX")
    assert "rewrote 2 mixers" in stored["ladder"]["rungs"][-1]["error"]


def test_a_broken_twin_is_compared_part_by_part_too(folder: Path) -> None:
    options = dataclasses.replace(TWO_IMAGES, limits={"relative_l2": 1e-6})
    report = verify_ladder("tiny.pth", None, options, checkpoint("fp16"))
    assert report.ladder is not None
    assert report.ladder.broken is not None
    assert report.ladder.broken.name == "PyTorch fp16 twin"
    parts = report.ladder.blocks
    assert parts is not None
    assert parts.first is not None
    assert parts.first.place.role == "patch_embed"


def test_a_file_that_is_held_to_itself_part_by_part_is_read_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads: list[str] = []

    def counted(path: Path, *arguments: Any, **options: Any) -> bytes:
        reads.append(str(path))
        return read_bytes(path, *arguments, **options)

    monkeypatch.setattr(onnx_file, "read_bytes", counted)
    report = verify(Path("half.onnx"), "half.onnx", VerifyOptions(random=1, per_block=True))
    assert report.blocks is not None
    assert report.blocks.first is None
    # Two files of a moment hold the graph with its inner tensors given out, one for each side.
    assert len(set(reads)) == len(reads) == 3


class _EngineLike(OrtRunner):
    """Gives out no inner tensors."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, threads=1)
        self.notes = ("a note",)

    @property
    def parts(self) -> None:
        return None


def test_a_broken_engine_is_named_and_says_why_it_is_not_looked_into(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for the engine's runner: no TensorRT is needed for the ladder's own part."""
    graph = onnx.load("half.onnx")
    info = metadata.find(graph)
    plant.change_weight(graph, "layers.0.mixer.in_proj.weight_t", lambda values: values * 1.5)
    onnx.save(graph, "engine_like.onnx")

    def opened(file: Artifact, _options: object) -> Runner:
        assert file.name == "half.plan"
        return _EngineLike(Path("engine_like.onnx"))

    monkeypatch.setattr(subjects, "open_runner", opened)
    monkeypatch.setattr(Artifact, "info", info)
    Path("half.plan").write_bytes(b"a plan")
    report = verify_ladder("half.plan", "tiny.pth", TWO_IMAGES)
    assert report.ladder is not None
    assert report.ladder.broken is not None
    assert report.ladder.broken.name == "half.plan"
    assert report.ladder.blocks is None
    assert report.notes == ("a note",)
    with pytest.raises(VimDeployError, match=r"half\.plan") as caught:
        report.require_passed()
    assert "no inner tensors" in caught.value.why


def needs_float32(place: Path) -> Path:
    """A checkpoint whose block 1 overflows float16 in x_proj, and block 2 between two roles."""
    module = perturbed(VisionMamba(CONFIG))
    with torch.no_grad():
        mixer = module.layers[1].mixer
        # A weight above float16's largest number, for a channel of small values.
        mixer.conv1d.weight[0] *= 1e-3
        mixer.conv1d.bias[0] *= 1e-3
        mixer.x_proj.weight[0, 0] = 7e4
        mixer.dt_proj.weight[:, 0] *= 0.01
        # in_proj writes, and the convolution reads, values that float16 cannot hold.
        mixer = module.layers[2].mixer
        mixer.in_proj.weight[0] *= 5e5 / mixer.in_proj.weight[0].abs().max() / 8
        mixer.conv1d.weight[0] *= 1e-5
        mixer.conv1d_b.weight[0] *= 1e-5
    return save_training_file(module, place / "narrow.pth")


def test_bisection_writes_a_policy_that_export_takes(folder: Path, capsys: Any) -> None:
    narrow = needs_float32(folder)
    model = ["narrow.pth", "--config", "tiny.json"]
    half = [*model, "--precision", "fp16"]
    assert run(["export", *half, "-o", "narrow.onnx"]) == 5
    capsys.readouterr()

    assert run(["verify", *half, "--bisect", "-o", "narrow.toml", "--random", "2", "--json"]) == 0
    captured = capsys.readouterr()
    value = json.loads(captured.out)
    kept = {(unit["role"], unit["block"]) for unit in value["units"]}
    assert kept == {("x_proj", 1), ("in_proj", 2), ("conv", 2)}
    assert value["minimal"] is True
    assert value["evaluations"] < 40
    assert all(not entry["passed"] for entry in value["without"])
    assert "trial 1: 0 parts kept, relative L2 not finite: not met" in captured.err
    assert json.loads(Path("bisect.json").read_text())["units"] == value["units"]

    policy = load_policy(Path("narrow.toml"))
    assert {unit for unit in kept if policy.keeps_fp32(*unit)} == kept
    policy_option = ["--precision-policy", "narrow.toml"]
    assert run(["export", *half, *policy_option, "-o", "narrow.onnx"]) == 0
    verify(Path("narrow.onnx"), str(narrow), TWO_IMAGES).require_passed()

    # A file that is there is not replaced.
    capsys.readouterr()
    assert run(["verify", *half, "--bisect", "-o", "narrow.toml"]) == 2
    assert "VIM-204" in capsys.readouterr().err


def test_bisection_of_a_file_that_needs_nothing(folder: Path) -> None:
    report = bisect_precision("half.onnx", "tiny.pth", TWO_IMAGES)
    assert report.bisection.units == ()
    assert report.bisection.evaluations == 1
    assert report.bisection.policy.keep_fp32 == ()
    assert report.precision == "fp16"


def test_bisection_where_not_even_float32_meets_the_limit(folder: Path) -> None:
    options = dataclasses.replace(TWO_IMAGES, limits={"relative_l2": 1e-12})
    with pytest.raises(VimDeployError) as caught:
        bisect_precision("half.onnx", "tiny.pth", options, most=2)
    assert caught.value.code == "VIM-704"


def test_bisection_with_little_to_spend_says_so(folder: Path) -> None:
    options = dataclasses.replace(TWO_IMAGES, limits={"relative_l2": 2e-4})
    seen: list[Unit] = []
    report = bisect_precision("half.onnx", "tiny.pth", options, most=4)
    assert not report.bisection.minimal
    assert report.bisection.found.passed
    assert report.bisection.evaluations == 4
    seen += report.bisection.units
    assert seen
