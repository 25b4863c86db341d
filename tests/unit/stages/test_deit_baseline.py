"""DeiT beside engines: typed like the engine, built by the same builder, in every attention.

And its flash form beside files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.support.engines import record_of, write_engine, write_record
from vim_deploy.artifact import Artifact
from vim_deploy.bench import environment
from vim_deploy.bench.subject import ONNX_RUNTIME, Subject
from vim_deploy.errors import VimDeployError
from vim_deploy.graph.flash_attention import drop_idle_masks
from vim_deploy.precisions import TABLE
from vim_deploy.runtimes.base import RunnerOptions
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.stages import deit_baseline
from vim_deploy.stages.bench_subjects import SubjectMaker
from vim_deploy.stages.deit_baseline import FLASH, DeitMaker, deit_sizes, require_same

pytest.importorskip("transformers", reason="pip install 'vim-deploy[deit]'")

_IMAGE = (32, 48)


def engine_subject(precision: str, runner: str = "tensorrt") -> Subject:
    source = {
        "path": "own.plan",
        "plugin": "plugin.so",
        "allow_plan_code": False,
        "cuda_graph": True,
        "batch": 2,
    }
    return Subject("own", runner, source, 2, _IMAGE, facts={"precision": precision})


def maker(folder: Path) -> DeitMaker:
    return DeitMaker(folder, ONNX_RUNTIME, lambda path, batch: {"path": str(path)}, lambda _: None)


def no_builds(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Builds are noted instead of made, and nothing is traced for them."""
    built: list[dict[str, Any]] = []

    def exported(own: DeitMaker, size: str, image: Any, attention: str, kind: str = "fp32") -> Path:
        own._compared[size, image] = "not compared: nothing is made"
        return own._folder / f"deit-{size}-{attention}.{kind}.onnx"

    monkeypatch.setattr(DeitMaker, "_exported", exported)

    def build(model: Path, plan: Path, **options: Any) -> None:
        built.append({"model": model, "plan": plan, **options})

    monkeypatch.setattr(deit_baseline, "build_engine", build)
    return built


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where traced models stay, so that each is traced once."""
    return tmp_path_factory.mktemp("deit")


@pytest.mark.parametrize(
    "attention", ["eager", "sdpa"] if os.environ.get("VIM_TEST_ALL") else ["sdpa"]
)
def test_half_precision_deit_agrees_with_float32(exports: Path, attention: str) -> None:
    own = maker(exports)
    plain = own._exported("tiny", _IMAGE, attention)
    half = own._exported("tiny", _IMAGE, attention, "fp16")
    # No mask of T x T, which PyTorch does not make either.
    assert drop_idle_masks(onnx.load(plain)) == 0
    weights = onnx.load(half).graph.initializer
    assert sum(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in weights) > 100
    images = np.random.default_rng(0).standard_normal((2, 3, *_IMAGE), dtype=np.float32)
    expected, found = (OrtRunner(p, threads=1).run(images)["logits"] for p in (plain, half))
    distance = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    # The bound of our own models holds: as many roundings a block, half as many blocks.
    assert 0 < distance < TABLE["fp16"].relative_l2


def test_flash_attention_is_in_every_layer_and_computes_the_same(exports: Path) -> None:
    (own, members) = (maker(exports), [Subject("own", "onnxruntime", {}, 1, _IMAGE)])
    eager, _, flash = own.beside(members, "tiny", _IMAGE, 1, with_pytorch=False)
    assert (flash.label, flash.runtime) == ("DeiT-Ti flash", "onnxruntime")
    assert flash.facts["like eager"].startswith("largest difference")
    model = onnx.load(flash.source["path"])
    kinds = [(node.op_type, node.domain) for node in model.graph.node]
    assert kinds.count(("MultiHeadAttention", "com.microsoft")) == 12
    assert not {"Softmax", "Where"} & {kind for kind, _ in kinds}
    assert 0 < require_same(Path(eager.source["path"]), Path(flash.source["path"])) < 1e-5


def test_flash_attention_that_computes_something_else_is_refused(
    exports: Path, tmp_path: Path
) -> None:
    plain, flash = (maker(exports)._exported("tiny", _IMAGE, name) for name in ("eager", FLASH))
    model = onnx.load(flash)
    node = next(node for node in model.graph.node if node.op_type == "MultiHeadAttention")
    # One layer of twelve, by a twentieth.
    next(item for item in node.attribute if item.name == "scale").f *= 1.05
    onnx.save(model, tmp_path / "wrong.onnx")
    with pytest.raises(VimDeployError, match="does not compute what") as caught:
        require_same(plain, tmp_path / "wrong.onnx")
    assert caught.value.code == "VIM-502"


def test_flash_attention_is_not_compared_where_the_plain_form_has_no_room(
    exports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "available_memory", lambda: 1 << 20)
    own = maker(exports)
    own._exported("tiny", _IMAGE, FLASH)
    assert own._compared["tiny", _IMAGE] == "not compared: eager needs about 0.1 GB"


def test_engines_of_deit_are_built_like_those_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = no_builds(monkeypatch)
    members = [engine_subject("fp16"), engine_subject("fp32"), engine_subject("fp16")]
    found = maker(tmp_path).beside(members, "tiny", _IMAGE, 2, with_pytorch=False)
    kinds = [(s.label, s.runner, s.facts["precision"]) for s in found]
    assert kinds == [
        ("DeiT-Ti eager", "tensorrt", "fp16"),
        ("DeiT-Ti eager", "tensorrt", "fp32"),
        ("DeiT-Ti sdpa", "tensorrt", "fp16"),
        ("DeiT-Ti sdpa", "tensorrt", "fp32"),
    ]
    assert all(s.source["cuda_graph"] and s.source["plugin"] is None for s in found)
    assert [job["runtime"] for job in built] == ["tensorrt"] * 4
    assert [job["model"].suffixes[0] for job in built] == [".fp16", ".fp32"] * 2
    assert {job["profiles"].max_batch for job in built} == {2}
    assert [Path(s.source["path"]) for s in found] == [job["plan"] for job in built]


def test_files_beside_engines_get_deit_in_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_builds(monkeypatch)
    members = [engine_subject("fp32"), Subject("own", "onnxruntime", {}, 2, _IMAGE)]
    found = maker(tmp_path).beside(members, "tiny", _IMAGE, 2, with_pytorch=True)
    runners = [s.runner for s in found]
    assert runners == ["onnxruntime", "tensorrt"] * 2 + ["onnxruntime"] + ["pytorch-deit"] * 2
    attentions = ["eager"] * 2 + ["sdpa"] * 2 + ["flash", "eager", "sdpa"]
    assert [s.facts["attention"] for s in found] == attentions


def maker_of(folder: Path, *baselines: str) -> SubjectMaker:
    return SubjectMaker(
        folder,
        image_sizes=(),
        batches=(1,),
        baselines=baselines,
        random_weights=None,
        graph="fused",
        runner=RunnerOptions(),
        cuda_graph=False,
        progress=lambda _: None,
    )


def subjects_of(engine: Path, folder: Path, *baselines: str) -> list[list[Subject]]:
    return maker_of(folder, *baselines).groups([engine])


def test_an_engine_alone_takes_deit_but_not_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = no_builds(monkeypatch)
    path = write_engine(tmp_path)
    record = record_of(path, export=None, precision="fp16")
    write_record(path, record)
    monkeypatch.setattr(Artifact, "image_size", _IMAGE)
    ((own, *beside),) = subjects_of(path, tmp_path, "deit-tiny")
    assert own.label == path.stem
    assert [s.facts["precision"] for s in beside] == ["fp16", "fp16"]
    assert len(built) == 2
    with pytest.raises(VimDeployError, match="--baseline pytorch") as caught:
        subjects_of(path, tmp_path, "pytorch")
    assert caught.value.code == "VIM-203"


def test_pixels_that_no_patch_of_deit_reaches_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_builds(monkeypatch)
    path = write_engine(tmp_path)
    write_record(path, record_of(path, export=None, precision="fp32"))
    monkeypatch.setattr(Artifact, "image_size", (34, 48))
    made = maker_of(tmp_path, "deit-tiny")
    ((_, *beside),) = made.groups([path])
    assert [s.tokens for s in beside] == [2 * 3 + 1] * 2
    unread = [note for note in made.notes if "not read" in note]
    assert unread == [
        "DeiT at 34x48: 2 rows of pixels at the bottom are not read: no patch reaches there"
    ]


def test_the_width_has_to_be_known() -> None:
    assert deit_sizes(["deit", "deit-base"], [192, 192]) == ("base", "tiny")
    for widths, said in (([], "does not say how wide"), ([48], "no DeiT is as wide")):
        with pytest.raises(VimDeployError, match=said) as caught:
            deit_sizes(["deit"], widths)
        assert caught.value.code == "VIM-202"


@pytest.mark.rtx
@pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 builds these")
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_tensorrt_rtx_builds_half_precision_deit(tmp_path: Path, attention: str) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'vim-deploy[rtx]'")
    plan = maker(tmp_path)._engine("tiny", _IMAGE, attention, 1, ("tensorrt-rtx", "fp16"))
    assert plan.stat().st_size > 1_000_000
