"""Faults behind the blocks of dense models, and in one of them: verify names part and role.

The reference cases E01 (UPerHead), D01 (feature scales) and D08 (feature pyramid).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from tests.support import plant
from tests.support.reference import checkpoint_path
from vim_deploy.errors import VimDeployError
from vim_deploy.parity.report import ParityReport
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.stages import verify
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.exporting import export
from vim_deploy.stages.verifying import VerifyOptions

ONE_IMAGE = VerifyOptions(random=1, batches=(1,), per_block=True)
SEGMENTOR, SCALES, PYRAMID = "E01_upernet", "D01_seg_fpn", "D08_det_sfp"
HEADS = {SEGMENTOR: "logits+aux", SCALES: "features", PYRAMID: "features"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Right exports by case and form, each made once."""
    folder = tmp_path_factory.mktemp("dense")

    def make(case: str, graph: str) -> Path:
        path = folder / f"{case}.{graph}.onnx"
        if not path.exists():
            options = ExportOptions(graph=graph, head=HEADS[case], check=False)  # type: ignore[arg-type]
            export(ModelRequest(str(checkpoint_path(case))), path, options)
        return path

    return make


def verified(path: Path, case: str, weight: str) -> ParityReport:
    """The report on a copy of ``path`` in which one value of ``weight`` is another."""
    graph = onnx.load(path)

    def change(values: plant.Values) -> plant.Values:
        values.reshape(-1)[1] += 1
        return values

    plant.change_weight(graph, weight, change)
    wrong = path.with_name(f"wrong_{path.name}")
    onnx.save(graph, wrong)
    return verify(wrong, str(checkpoint_path(case)), ONE_IMAGE)


@pytest.mark.parametrize("case", HEADS)
def test_the_right_files_pass_and_every_part_is_on_both_sides(
    exported: Callable[[str, str], Path], case: str
) -> None:
    report = verify(exported(case, "fused"), str(checkpoint_path(case)), ONE_IMAGE)
    report.require_passed()
    assert report.blocks is not None
    assert report.blocks.missing == ()
    roles = {part.place.role for part in report.blocks.parts if not part.place.in_block}
    assert "neck" in roles
    assert ({"decode_head", "head"} <= roles) == (case == SEGMENTOR)


@pytest.mark.parametrize(
    ("case", "weight", "place", "role"),
    [
        (SEGMENTOR, "backbone.fpn1.weight_folded", "feature_0", "neck"),
        (SEGMENTOR, "decode_head.lateral_convs.1.weight_folded", "decode_head.lateral_convs.1", ""),
        (SEGMENTOR, "decode_head.psp_modules.2.1.weight_folded", "decode_head.psp_modules.2", ""),
        (SEGMENTOR, "decode_head.fpn_bottleneck.weight_folded", "decode_head.fpn_bottleneck", ""),
        (SEGMENTOR, "decode_head.conv_seg.weight", "decode_head.conv_seg", "head"),
        (SEGMENTOR, "auxiliary_head.convs.0.weight_folded", "auxiliary_head.convs.0", ""),
        (SCALES, "fpn2.0.weight", "feature_1", "neck"),
        (PYRAMID, "simfp_4.1.weight", "p4", "neck"),
    ],
)
def test_one_weight_behind_the_blocks(
    exported: Callable[[str, str], Path], case: str, weight: str, place: str, role: str
) -> None:
    report = verified(exported(case, "fused"), case, weight)
    assert report.blocks is not None
    first = report.blocks.first
    assert first is not None, report.blocks.verdict
    assert (str(first.place), first.place.role) == (place, role or "decode_head")
    with pytest.raises(VimDeployError, match=place) as caught:
        report.require_passed()
    assert caught.value.code == "VIM-702"


@pytest.mark.parametrize("graph", ["base", "fused"])
@pytest.mark.parametrize("case", [SEGMENTOR, PYRAMID])
def test_one_weight_of_block_2(exported: Callable[[str, str], Path], case: str, graph: str) -> None:
    path = exported(case, graph)
    names = [item.name for item in onnx.load(path).graph.initializer]
    (name,) = [item for item in names if "layers.2.mixer.out_proj" in item]
    report = verified(path, case, name)
    assert report.blocks is not None
    assert report.blocks.first is not None
    assert str(report.blocks.first.place) == "block 2 out_proj"
