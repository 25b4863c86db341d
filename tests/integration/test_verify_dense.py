"""Verify for segmentation networks and dense backbones: stored outputs, twins, rungs, reports."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support.reference import arrays_of, arrays_path, checkpoint_path
from vim_deploy.cli.main import run
from vim_deploy.errors import VimDeployError
from vim_deploy.graph.export_graph import finish_graph, named_trace
from vim_deploy.heads import parse_head
from vim_deploy.model.deployed import DeployedModel
from vim_deploy.model.load import load_model
from vim_deploy.precisions import TABLE
from vim_deploy.recipe.precision_policy import BLOCK_ROLES, PrecisionPolicy, Rule
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.stages import bisect_precision, verify, verify_dataset, verify_ladder
from vim_deploy.stages.export_options import ExportOptions, export_info
from vim_deploy.stages.subjects import SubjectOptions
from vim_deploy.stages.verifying import VerifyOptions

SEGMENTOR, SCALES, PYRAMID = "E01_upernet", "D01_seg_fpn", "D08_det_sfp"
TWO = VerifyOptions(random=2, batches=(2,))
ONE = VerifyOptions(batches=(1,))
#: A float32 graph against stored float32 outputs, relative L2; measured: 1.3e-6 at most.
STORED = 1e-4

Exported = Callable[..., Path]


def checkpoint(case: str) -> str:
    return str(checkpoint_path(case))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Exports by case, head and precision; each is made once, and of a head there is one trace."""
    folder = tmp_path_factory.mktemp("verify")
    traces: dict[tuple[str, str], onnx.ModelProto] = {}

    def make(
        case: str, head: str, precision: str = "fp32", policy: PrecisionPolicy | None = None
    ) -> Path:
        path = folder / f"{case}.{head}.{precision}.{policy is None}.onnx"
        if path.exists():
            return path
        loaded = load_model(ModelRequest(checkpoint(case)))
        network = loaded.module
        parsed = parse_head(head, network.config, network.dense)
        module = DeployedModel(network, loaded.image, "none", parsed)
        options = ExportOptions(head=head, precision=precision)  # type: ignore[arg-type]
        info = export_info(loaded, options, "none")
        if policy is not None:
            info = dataclasses.replace(info, precision_policy=policy)
        if (case, head) not in traces:
            traces[case, head] = named_trace(module, None)
        model = onnx.ModelProto()
        model.CopyFrom(traces[case, head])
        finish_graph(model, network.config, info)
        onnx.save(model, path)
        return path

    return make


@pytest.mark.parametrize(
    ("case", "head", "outputs"),
    [
        (SEGMENTOR, "logits+aux", ("logits", "aux_logits")),
        (SEGMENTOR, "upsampled+aux", ("logits", "aux_logits")),
        (SCALES, "features", ("feature_0", "feature_1", "feature_2", "feature_3")),
        (PYRAMID, "features", ("p2", "p3", "p4", "p5", "p6")),
    ],
)
def test_stored_outputs_of_the_official_code(
    exported: Exported, case: str, head: str, outputs: tuple[str, ...]
) -> None:
    report = verify(exported(case, head), str(arrays_path(case)), ONE)
    found = {item.output: item for item in report.results[0].comparisons}
    assert tuple(found) == outputs
    for item in found.values():
        assert item.relative_l2 < STORED
        assert item.passed
        assert (item.mean_iou is None) == (case != SEGMENTOR)
    if case == SEGMENTOR:
        # Seven classes in stride 4 or at the picture's size, hardly a pixel of another one.
        assert found["logits"].mean_iou is not None
        assert found["logits"].mean_iou > 0.999


def test_what_a_stored_file_does_not_hold_is_said(exported: Exported, tmp_path: Path) -> None:
    stored = dict(arrays_of(arrays_path(PYRAMID)))
    del stored["output_p3"]
    np.savez(tmp_path / "part.npz", **stored)  # type: ignore[arg-type]
    report = verify(exported(PYRAMID, "features"), str(tmp_path / "part.npz"), ONE)
    report.require_passed()
    assert report.notes[-1] == "not compared, because part.npz does not hold it: p3"


def test_another_file_and_label_maps(exported: Exported) -> None:
    half, single = (exported(SEGMENTOR, "labels", precision) for precision in ("fp16", "fp32"))
    report = verify(half, str(single), TWO)
    report.require_passed()
    (labels,) = report.results[0].comparisons
    assert labels.indices
    assert labels.top1_agreement is not None
    assert 0.98 <= labels.top1_agreement < 1
    assert labels.mean_iou is not None
    assert 0.9 < labels.mean_iou < 1
    exact = verify(half, str(single), dataclasses.replace(TWO, limits={"top1_agreement": 1.0}))
    with pytest.raises(VimDeployError, match="'labels'") as caught:
        exact.require_passed()
    assert "pixel agreement" in caught.value.why
    # fp32 against the checkpoint: its limit leaves one pixel in five thousand.
    verify(single, checkpoint(SEGMENTOR), TWO).require_passed()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize(
    ("case", "head"), [(SEGMENTOR, "logits+aux"), (SCALES, "features"), (PYRAMID, "features")]
)
def test_the_twin_is_what_the_typed_graph_computes_behind_the_blocks(
    exported: Exported, case: str, head: str, precision: str
) -> None:
    """With float32 blocks nothing but neck and heads rounds, and the twin rounds the same way."""
    rule = Rule((*BLOCK_ROLES, "patch_embed", "rope", "head"), None, "to look at what is behind")
    path = exported(case, head, precision, PrecisionPolicy((rule,)))
    distances = {}
    for twin in (False, True):
        options = dataclasses.replace(TWO, twin=twin, per_block=True)
        report = verify(path, checkpoint(case), options)
        assert report.blocks is not None
        # Rounding is a chain of coins: one that falls otherwise moves what follows a little.
        behind = [p.relative_l2 for p in report.blocks.parts if p.place.role == "neck"]
        distances[twin] = max(behind)
    assert distances[False] > TABLE[precision].relative_l2 / 100
    assert distances[True] < distances[False] / 3


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_whole_twin_is_nearer_than_float32(exported: Exported, precision: str) -> None:
    path = exported(SEGMENTOR, "logits+aux", precision)
    worst = []
    for twin in (False, True):
        report = verify(path, checkpoint(SEGMENTOR), dataclasses.replace(TWO, twin=twin))
        report.require_passed()
        worst.append(report.worst.relative_l2)
    assert worst[1] < worst[0]


def test_every_rung_of_a_segmentation_network() -> None:
    options = VerifyOptions(random=1, batches=(1,), per_block=True)
    report = verify_ladder(
        checkpoint(SEGMENTOR), options=options, subject=SubjectOptions(precision="bf16")
    )
    report.require_passed()
    assert report.ladder is not None
    assert len(report.ladder.rungs) == 5
    assert report.blocks is not None
    # The low-rank form has no step sizes outside of its scan.
    assert all("dt_proj" in place for place in report.blocks.missing)


def test_bisection_keeps_roles_behind_the_blocks() -> None:
    options = VerifyOptions(random=1, limits={"relative_l2": 7e-4})
    found = bisect_precision(
        checkpoint(SEGMENTOR), options=options, subject=SubjectOptions(precision="fp16")
    ).bisection
    roles = {unit.role for unit in found.universe}
    assert {"neck", "decode_head", "head"} <= roles
    assert found.found.passed
    assert not found.nothing.passed
    kept = {unit.role for unit in found.units}
    assert kept <= roles
    assert kept & {"neck", "decode_head", "head"}


def test_a_data_set_is_for_classifiers(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(VimDeployError) as caught:
        verify_dataset(exported(SEGMENTOR, "labels"), checkpoint(SEGMENTOR), tmp_path)
    assert caught.value.code == "VIM-431"
    assert "--images" in caught.value.fix


def test_reports_speak_of_pixels(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("jinja2")
    path = exported(SEGMENTOR, "labels", "fp16")
    words = ["verify", str(path), "--against", checkpoint(SEGMENTOR), "--random", "1"]
    assert run([*words, "--batches", "1", "--per-block", "--report", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "mean IoU" in said
    assert "decode_head.conv_seg" in said
    value = json.loads((tmp_path / "parity.json").read_text())
    (output,) = value["results"][0]["outputs"]
    assert output["indices"]
    assert 0 < output["mean_iou"] <= 1
    for page in ("parity.html", "parity.md"):
        text = (tmp_path / page).read_text()
        assert "pixels top-1" in text
        assert "mean IoU" in text
        assert "smallest share of equal pixels of a label map" in text
