"""Standalone files on the command line: made in two ways, taken everywhere, refused in words."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import onnx
import PIL.Image
import pytest

import vim_deploy
from tests.support.builds import build_engine_rtx, build_engine_trt
from tests.support.models import perturbed, save_training_file, tiny_config
from tests.support.trt_builds import make_machine
from vim_deploy.cli.main import run
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.runtimes.building.request import TrtOptions

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, x.onnx of it, and its standalone form in s.onnx."""
    folder = tmp_path_factory.mktemp("standalone")
    config = tiny_config()
    save_training_file(perturbed(VisionMamba(config)), folder / "x.pth")
    (folder / "x.json").write_text(json.dumps(encode(config)))
    words = ["export", str(folder / "x.pth"), "--config", str(folder / "x.json"), "-o"]
    assert run([*words, str(folder / "x.onnx")]) == 0
    assert run([*words, str(folder / "s.onnx"), "--standalone"]) == 0
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of this test with the two files and a picture."""
    monkeypatch.chdir(tmp_path)
    for name in ("x.onnx", "s.onnx"):
        (tmp_path / name).write_bytes((made / name).read_bytes())
    picture = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    PIL.Image.fromarray(picture).save("p.png")
    return tmp_path


def said(capsys: Capture, *words: str) -> dict[str, object]:
    assert run([*words, "--json"]) == 0, capsys.readouterr().err
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def refused(capsys: Capture, *words: str) -> str:
    capsys.readouterr()
    assert run(list(words)) != 0
    return capsys.readouterr().err


def test_an_exported_file_gives_the_file_that_its_checkpoint_gives(
    here: Path, capsys: Capture
) -> None:
    found = said(capsys, "export", "x.onnx", "--standalone")
    assert found["path"] == "x-standalone.onnx"
    assert Path("x-standalone.onnx").read_bytes() == Path("s.onnx").read_bytes()
    assert found["export"]["standalone"] is True
    assert found["parity"]["passed"] is True
    assert found["scans"] == 4
    assert said(capsys, "export", "x.onnx", "--standalone")["up_to_date"] is True


def test_the_other_body_is_another_file(here: Path, capsys: Capture) -> None:
    words = ("export", "x.onnx", "--standalone", "-o", "u.onnx")
    found = said(capsys, *words, "--scan-body", "unrolled")
    assert found["loops"] == 0
    assert found["export"]["scan_body"] == "unrolled"
    assert "differs in scan_body" in refused(capsys, *words)
    assert said(capsys, *words, "--force")["loops"] == found["scans"] // 2
    # What the file has stays, where nothing else is asked for.
    assert run(["export", "x.onnx", "--standalone", "--scan-body", "unrolled", "-o", "v.onnx"]) == 0
    model = onnx.load("v.onnx")
    assert not any(node.op_type == "Scan" for node in model.graph.node)


def test_a_file_with_functions_is_no_standalone_one(here: Path, capsys: Capture) -> None:
    plain = said(capsys, "inspect", "x.onnx")
    inlined = said(capsys, "inspect", "s.onnx")
    assert "standalone" not in plain["export"]
    assert inlined["export"]["standalone"] is True
    assert inlined["functions"] == []
    for key in ("scans", "forward_scans", "fused_scans", "fused_convolutions"):
        assert inlined["graph"][key] == plain["graph"][key], key
    assert run(["inspect", "s.onnx"]) == 0
    assert "standard operators only" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("export", "x.onnx"), "VIM-203", "--standalone writes it"),
        (("export", "x.onnx", "--standalone", "--precision", "fp16"), "VIM-203", "--precision"),
        (("export", "x.onnx", "--standalone", "--image-size", "64"), "VIM-203", "--image-size"),
        (("export", "x.onnx", "--standalone", "--batch", "2"), "VIM-203", "--batch"),
        (("export", "s.onnx", "--standalone"), "VIM-203", "standalone file already"),
        (("export", "x.onnx", "--standalone", "-o", "x.onnx"), "VIM-203", "the source itself"),
        (("export", "missing.onnx", "--standalone"), "VIM-401", "missing.onnx"),
        (("run", "s.onnx", "p.png", "--ops", "native"), "VIM-203", "to hold on to"),
        (("verify", "s.onnx", "--against", "x.onnx", "--ops", "native"), "VIM-203", "--ops native"),
        (("package", "s.onnx", "--ops", "native"), "VIM-203", "--ops native"),
    ],
)
def test_what_such_files_do_not_take(
    here: Path, capsys: Capture, words: tuple[str, ...], code: str, text: str
) -> None:
    before = sorted(here.iterdir())
    error = refused(capsys, *words)
    assert code in error
    assert text in error
    assert sorted(here.iterdir()) == before


def test_a_file_of_others_is_not_made_one(here: Path, capsys: Capture) -> None:
    model = onnx.load("x.onnx")
    del model.metadata_props[:]
    model.graph.doc_string = ""
    onnx.save(model, "foreign.onnx")
    assert "VIM-410" in refused(capsys, "export", "foreign.onnx", "--standalone")


def test_a_picture_that_is_stored_as_well_is_no_input(here: Path, capsys: Capture) -> None:
    model = onnx.load("x.onnx")
    stored = np.zeros((1, 3, 16, 16), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(stored, "image"))
    onnx.save(model, "none.onnx")
    for words in (("export", "none.onnx", "--standalone"), ("inspect", "none.onnx", "--graph")):
        error = refused(capsys, *words)
        assert "VIM-415" in error
        assert "0 inputs" in error
    found = said(capsys, "inspect", "none.onnx")
    assert "0 inputs" in found["activations"]["not_measured"]


def test_run_gives_the_same_answer(here: Path, capsys: Capture) -> None:
    one, other = (said(capsys, "run", name, "p.png") for name in ("x.onnx", "s.onnx"))
    classes = [[row["index"] for row in found["images"][0]["top"]] for found in (one, other)]
    assert classes[0] == classes[1]


def test_verify_looks_into_the_blocks(here: Path, capsys: Capture) -> None:
    found = said(capsys, "verify", "s.onnx", "--against", "x.onnx", "--per-block")
    assert found["passed"] is True
    parts = {(row["block"], row["part"], row["direction"]) for row in found["blocks"]["parts"]}
    assert {
        (0, "in_proj", ""),
        (0, "conv", "bwd"),
        (1, "x_proj", "fwd"),
        (1, "out_proj", ""),
    } <= parts
    assert {(block, "scan", way) for block in (0, 1) for way in ("fwd", "bwd")} <= parts
    assert not found["blocks"]["missing"]
    assert not [note for note in found["notes"] if "part by part" in note]


def test_per_block_says_what_it_cannot_see(here: Path, capsys: Capture) -> None:
    model = onnx.load("s.onnx")
    for node in model.graph.node:
        node.name = node.name.replace("_rows", "")
        for names in (node.input, node.output):
            names[:] = [name.replace("/gate_silu", "/renamed") for name in names]
    onnx.save(model, "t.onnx")
    found = said(capsys, "verify", "t.onnx", "--against", "t.onnx", "--per-block")
    assert found["passed"] is True
    assert {row["direction"] for row in found["blocks"]["parts"]} == {""}
    (note,) = [note for note in found["notes"] if "part by part" in note]
    assert "only what both directions of a mixer share was compared" in note


def test_outputs_that_only_one_side_has_are_named(here: Path, capsys: Capture) -> None:
    model = onnx.load("s.onnx")
    last = model.graph.output[0]
    more = model.graph.output.add()
    more.CopyFrom(last)
    more.name = "more"
    model.graph.node.add(op_type="Identity", name="more", input=[last.name], output=["more"])
    onnx.save(model, "two.onnx")
    words = ("--random", "1", "--batches", "1")
    for pair in (("two.onnx", "s.onnx"), ("s.onnx", "two.onnx")):
        found = said(capsys, "verify", pair[0], "--against", pair[1], *words)
        assert found["passed"] is True
        (note,) = found["notes"]
        assert note.startswith("not compared, because ")
        assert note.endswith(" does not give it: more")
    del model.graph.output[0]
    onnx.save(model, "renamed.onnx")
    error = refused(capsys, "verify", "renamed.onnx", "--against", "s.onnx", *words)
    assert "VIM-415" in error
    assert "no output in common" in error


def test_packages_serve_it(here: Path, capsys: Capture) -> None:
    assert run(["package", "s.onnx", "-o", "served"]) == 0
    assert run(["package", "--check", "served"]) == 0
    assert "reproduced by" in capsys.readouterr().out


def test_full_tensorrt_says_that_the_plugin_has_nothing_to_hold_on_to(
    here: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine = make_machine(monkeypatch, here, "10.14")
    with caplog.at_level(logging.WARNING):
        record = build_engine_trt(Path("s.onnx"), Path("s.plan"))
    assert record.plugin is None
    assert any("nothing to hold on to" in text for text in caplog.messages)
    with pytest.raises(VimDeployError, match=r"--plugin for s\.onnx") as caught:
        build_engine_trt(
            Path("s.onnx"), Path("t.plan"), options=TrtOptions(plugin=str(machine.library))
        )
    assert caught.value.code == "VIM-203"
    # The file with functions gets its plugin there.
    assert build_engine_trt(Path("x.onnx"), Path("x.plan")).plugin is not None


def test_precision_of_an_engine_is_the_files_own(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_machine(monkeypatch, here, "10.14")
    with pytest.raises(VimDeployError, match="fp16 was asked for") as caught:
        build_engine_trt(Path("s.onnx"), Path("s.plan"), precision="fp16")
    assert "standalone" in caught.value.why


@pytest.mark.rtx
@pytest.mark.slow
def test_tensorrt_rtx_builds_it(here: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    record = build_engine_rtx(Path("s.onnx"), Path("s.plan"))
    assert record.export is not None
    assert record.export.standalone
    assert record.layers > 0


def test_python_takes_an_exported_file_too(here: Path) -> None:
    result = vim_deploy.export("x.onnx", "api.onnx", vim_deploy.ExportOptions(standalone=True))
    assert result.info.standalone
    assert result.parity is not None
    assert Path("api.onnx").read_bytes() == Path("s.onnx").read_bytes()


def test_weights_beside_the_source_are_not_written_over(here: Path, capsys: Capture) -> None:
    onnx.save_model(onnx.load("x.onnx"), "e.onnx", save_as_external_data=True, location="w")
    before = Path("w").read_bytes()
    text = refused(capsys, "export", "e.onnx", "--standalone", "-o", "w", "--force")
    assert "VIM-203" in text
    assert "or its weights" in text
    assert Path("w").read_bytes() == before
