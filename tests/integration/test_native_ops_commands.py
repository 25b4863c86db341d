"""Native ops through the commands: files of every precision, both ways of verify, what is told."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.support import reference
from tests.support.c_library import native_ops
from tests.support.ort_ops import built_library, relative_l2
from vim_deploy.artifact import Artifact
from vim_deploy.cli.main import run
from vim_deploy.ops import OPS
from vim_deploy.plugin.cases import cases
from vim_deploy.plugin.ort_library import LIBRARY_VARIABLE
from vim_deploy.plugin.region_cases import region_cases
from vim_deploy.precisions import TABLE
from vim_deploy.runtimes.onnxruntime.check_ops import check_native_ops
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.specs import GraphForm
from vim_deploy.stages import export
from vim_deploy.stages.export_options import ExportOptions

CHECKPOINT = str(reference.load_case(reference.DIGITS).checkpoint)


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(LIBRARY_VARIABLE, str(built_library()))
    return built_library()


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits") / "digits.onnx"
    return export("vim-digits", path, ExportOptions(check=False)).path


@pytest.mark.parametrize(
    ("precision", "graph"), [("fp32", "base"), ("fp16", "fused"), ("bf16", "fused-low-rank")]
)
def test_native_ops_and_functions_agree(precision: str, graph: GraphForm, tmp_path: Path) -> None:
    options = ExportOptions(precision=precision, graph=graph, check=False)  # type: ignore[arg-type]
    path = export("vim-digits", tmp_path / "m.onnx", options).path
    case = reference.load_case(reference.DIGITS)
    images, expected = case.image[:5], case.output[:5]
    native, functions = (OrtRunner(path, threads=1, ops=ops) for ops in ("native", "function"))
    assert native.library is not None
    found, plain = native.run(images)["logits"], functions.run(images)["logits"]
    limit = TABLE[precision].relative_l2
    assert relative_l2(found, expected) <= limit
    assert relative_l2(found, plain) <= limit
    if precision != "fp32":
        assert "rounding after every operator" in native.name


def test_verify_runs_both_ways(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["verify", str(digits), "--against", CHECKPOINT, "--random", "2", "--batches", "2"]
    before = digits.read_bytes()
    assert run([*words, "--per-block", "--json", "--report", str(digits.parent / "r")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "native ops" in told["candidate"]
    assert told["functions"]["passed"]
    assert "native" not in told["functions"]["candidate"]
    apart = told["functions"]["native"][0]["outputs"][0]["relative_l2"]
    assert 0 < apart < 1e-5
    assert any(note.startswith("native ops (") and "kernels" in note for note in told["notes"])
    page = (digits.parent / "r" / "parity.html").read_text()
    assert "The same file without native ops" in page
    assert digits.read_bytes() == before
    assert run([*words, "--ops", "function", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "functions" not in told
    assert "native" not in told["candidate"]


_run = OrtRunner.run


def wrong_by_functions(
    self: OrtRunner, image: np.ndarray, size: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """``OrtRunner.run`` whose outputs are one more where no native ops compute."""
    values = dict(_run(self, image, size))
    return values if self.kernels else {name: value + 1 for name, value in values.items()}


def test_functions_that_differ_fail(
    digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(OrtRunner, "run", wrong_by_functions)
    words = ["verify", str(digits), "--against", CHECKPOINT, "--random", "2", "--batches", "2"]
    assert run([*words, "--json"]) == 7
    told = json.loads(capsys.readouterr().out)
    assert told["error"]["code"] == "VIM-701"
    assert "native" not in told["error"]["message"]
    assert not told["passed"]
    assert told["results"][0]["outputs"][0]["passed"]
    # The figure that is said is that of what fails.
    assert run(words) == 7
    said = capsys.readouterr()
    assert re.search(r"does not agree .*: largest difference 1(\.\d+)?\b", said.out + said.err)


def test_parts_are_those_of_the_side_that_differs(
    digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the functions alone differ, their parts are looked into, and not the kernels'."""
    words = ["verify", str(digits), "--against", CHECKPOINT, "--random", "2", "--batches", "2"]
    assert run([*words, "--per-block", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["blocks"]["candidate"] == told["candidate"]
    monkeypatch.setattr(OrtRunner, "run", wrong_by_functions)
    assert run(words) == 7
    assert "--per-block names the part" in capsys.readouterr().err
    assert run([*words, "--per-block", "--json"]) == 7
    told = json.loads(capsys.readouterr().out)
    assert told["error"]["code"] == "VIM-702"
    assert "native" not in told["error"]["message"]
    plain = told["functions"]["candidate"]
    assert told["blocks"]["candidate"] == plain
    assert run([*words, "--per-block"]) == 7
    assert f"the parts are those of {plain}, which alone differs" in capsys.readouterr().out
    assert not told["blocks"]["passed"]


@pytest.mark.parametrize("ops", ["auto", "native", "function"])
def test_the_ladder_has_a_rung_for_each_way(
    ops: str, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["verify", str(digits), "--against", CHECKPOINT, "--random", "2", "--ladder"]
    assert run([*words, "--ops", ops, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    rungs = {rung["name"]: rung for rung in told["ladder"]["rungs"]}
    ends = {"auto": ["digits.onnx", "native ops"], "native": ["native ops"]}
    assert list(rungs)[3:] == ends.get(ops, ["digits.onnx"])
    assert "ops" not in rungs["PyTorch fp32"]
    made_here = [rung for name, rung in rungs.items() if name.endswith(" ONNX")]
    assert [rung["ops"] for rung in made_here] == ["function"] * 2
    if ops != "native":
        assert rungs["digits.onnx"]["ops"] == "function"
        assert "kernels" not in rungs["digits.onnx"]
    if ops != "function":
        native = rungs["native ops"]
        assert (native["ops"], native["against"]) == ("native", "PyTorch fp32")
        assert native["runner"] == told["candidate"]
        assert re.search(r"kernels [0-9a-f]+ of version", native["kernels"])
    assert told["notes"] == ([] if ops == "function" else [rungs["native ops"]["kernels"]])
    assert ("functions" in told) == (ops == "auto")
    if ops == "auto":
        assert told["functions"]["results"] == rungs["digits.onnx"]["results"]
        assert 0 < told["functions"]["native"][0]["outputs"][0]["relative_l2"] < 1e-5
        assert run(words) == 0
        assert "native ops against the functions in the file" in capsys.readouterr().out


@pytest.mark.parametrize(("broken", "native"), [("digits.onnx", False), ("native ops", True)])
def test_the_rung_of_the_way_that_differs_is_the_broken_one(
    broken: str,
    native: bool,
    digits: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = OrtRunner.run

    def wrong(
        self: OrtRunner, image: np.ndarray, size: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        values = dict(real(self, image, size))
        hit = self._file == digits.name and bool(self.kernels) == native
        return {name: value + 1 for name, value in values.items()} if hit else values

    monkeypatch.setattr(OrtRunner, "run", wrong)
    words = ["verify", str(digits), "--against", CHECKPOINT, "--random", "2", "--ladder"]
    assert run([*words, "--json"]) == 7
    told = json.loads(capsys.readouterr().out)
    assert told["error"]["code"] == "VIM-703"
    assert told["ladder"]["broken"] == broken
    assert told["ladder"]["left_out"] == ([] if native else ["native ops"])
    assert ("native ops" in told["ladder"]["blocks"]["candidate"]) == native
    # Kernels that have not run are not named.
    assert any("kernels" in note for note in told["notes"]) == native


def test_a_data_set_says_which_kernels_ran(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["verify", str(digits), "--against", str(digits), "--image-limit", "20"]
    words += ["--dataset", str(reference.SMALL / "vim_digits.npz")]
    assert run([*words, "--json", "--report", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    sides = told["candidate"], told["reference"]
    assert [side["ops"] for side in sides] == ["native", "function"]
    assert "kernels" not in sides[1]
    (note,) = told["notes"]
    assert sides[0]["kernels"] == note
    assert re.search(r"kernels [0-9a-f]+ of version", note)
    assert note in (tmp_path / "accuracy.html").read_text(encoding="utf-8")
    assert run([*words, "--ops", "function", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["candidate"]["ops"], told["notes"]) == ("function", [])


def test_a_data_set_says_why_kernels_did_not_run(
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "text.so").write_text("text")
    monkeypatch.setenv(LIBRARY_VARIABLE, str(tmp_path / "text.so"))
    words = ["verify", str(digits), "--against", str(digits), "--image-limit", "20", "--json"]
    assert run([*words, "--dataset", str(reference.SMALL / "vim_digits.npz")]) == 0
    (note,) = json.loads(capsys.readouterr().out)["notes"]
    assert "native ops not used" in note


def test_run_says_what_ran(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = str(reference.SMALL.parent / "digits" / "3.png")
    assert run(["run", str(digits), picture, "--ops", "native", "--json"]) == 0
    assert "native ops" in json.loads(capsys.readouterr().out)["runtime"]


def test_engines_have_no_native_ops(tmp_path: Path) -> None:
    from tests.support.artifacts import told
    from vim_deploy.errors import VimDeployError
    from vim_deploy.runtimes.base import RunnerOptions
    from vim_deploy.runtimes.tensorrt.runner import open_runner

    engine: Artifact = told(tmp_path / "m.plan", None)
    with pytest.raises(VimDeployError) as caught:
        open_runner(engine, RunnerOptions(ops="native"))
    assert caught.value.code == "VIM-203"


def test_kernels_are_checked_in_onnx_runtime(library: Path) -> None:
    report = check_native_ops(library, print, [*cases(lengths=(2, 33)), *region_cases()])
    report.require_ok()
    assert {line.op for line in report.summary()} == set(OPS)
    assert {result.tactic for result in report.results} == {1, 3}


def test_an_op_that_is_not_there_fails_the_check(tmp_path: Path) -> None:
    first = next(iter(cases(lengths=(2,))))
    report = check_native_ops(native_ops(tmp_path), print, [first])
    assert not report.ok
    assert report.results[0].fault


@pytest.mark.parametrize(
    "words",
    [
        ["plugin", "build", "--provider", "cpu"],
        ["plugin", "build", "--target", "onnxruntime", "--tensorrt", "10"],
        ["plugin", "build", "--target", "onnxruntime", "--arch", "80"],
        ["plugin", "info", "--provider", "cpu"],
        ["plugin", "test", "--provider", "cpu"],
    ],
)
def test_options_of_the_other_target(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*words, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "VIM-203"


def test_info_and_doctor(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["plugin", "info", "--target", "onnxruntime"], ["plugin", "info", str(library)]):
        assert run([*words, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["provider"], told["path"]) == ("cpu", str(library))
    assert run(["plugin", "info", str(library)]) == 0
    assert "instruction sets" in capsys.readouterr().out
    assert run(["doctor", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    found = next(item for item in findings if item["subject"] == "verify: native ops")
    assert found["ok"]
    assert str(library) in found["detail"]


def test_doctor_of_a_library_that_no_session_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(LIBRARY_VARIABLE, str(native_ops(tmp_path, ops=["VimOther"])))
    assert run(["doctor", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    found = next(item for item in findings if item["subject"] == "verify: native ops")
    assert not found["ok"]
    assert "it has VimOther" in found["detail"]
