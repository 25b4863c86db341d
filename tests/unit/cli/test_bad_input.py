"""Bad input through the command line: a code, a fix, the exit code, and nothing left behind."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import traces
from tests.support.models import perturbed, save_training_file, tiny_config
from vim_deploy.cli.main import run
from vim_deploy.codec import encode
from vim_deploy.families.vim.network.vim import VisionMamba

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    return save_training_file(perturbed(VisionMamba(tiny_config())), path)


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.json"
    path.write_text(json.dumps(encode(tiny_config())))
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, config_file: Path) -> Path:
    path = tmp_path_factory.mktemp("exported") / "tiny.onnx"
    arguments = ["-q", "export", str(checkpoint), "--config", str(config_file), "-o", str(path)]
    assert run(arguments) == 0
    return path


def fails(capsys: pytest.CaptureFixture[str], code: str, *arguments: str | Path) -> str:
    """Run, expect this code, a fix and its exit code; what was said."""
    status = run([str(argument) for argument in arguments])
    said = capsys.readouterr().err
    assert f"error {code}" in said, said
    assert "fix:" in said
    assert status == int(code.removeprefix("VIM-")[:-2])
    assert "Traceback" not in said
    return said


def empty(folder: Path) -> bool:
    return list(folder.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"hello, world\n", b"PK\x03\x04 cut off"])
def test_file_that_is_no_checkpoint(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, capsys: Any, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("bad") / "x.pth"
    path.write_bytes(content)
    fails(capsys, "VIM-402", "export", path)
    assert empty(folder)


def test_truncated_checkpoint(folder: Path, checkpoint: Path, capsys: Any) -> None:
    cut = checkpoint.parent / "cut.pth"
    cut.write_bytes(checkpoint.read_bytes()[:-2000])
    fails(capsys, "VIM-402", "export", cut)
    assert empty(folder)


class Payload:
    """Pickles as a call that would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def test_hostile_pickle_is_not_executed(folder: Path, checkpoint: Path, capsys: Any) -> None:
    target, hostile = checkpoint.parent / "executed", checkpoint.parent / "hostile.pth"
    torch.save({"model": Payload(target)}, hostile)
    said = fails(capsys, "VIM-403", "export", hostile)
    assert "mkdir" in said
    assert not target.exists()
    assert empty(folder)


def test_missing_checkpoint(folder: Path, capsys: Any) -> None:
    fails(capsys, "VIM-401", "export", "nowhere.pth")


def test_wrong_variant_lists_the_keys(folder: Path, checkpoint: Path, capsys: Any) -> None:
    fails(capsys, "VIM-404", "export", checkpoint, "--model", "vim-small")
    assert empty(folder)


def test_unknown_variant_names_the_nearest(folder: Path, checkpoint: Path, capsys: Any) -> None:
    assert "vim-tiny" in fails(capsys, "VIM-201", "export", checkpoint, "--model", "vim-tinny")


def test_nan_weights(folder: Path, capsys: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    model = VisionMamba(tiny_config())
    with torch.no_grad():
        model.layers[1].mixer.D_b[3] = float("nan")
    path = save_training_file(model, tmp_path_factory.mktemp("nan") / "nan.pth")
    assert "layers.1.mixer.D_b" in fails(capsys, "VIM-405", "export", path)


def test_image_smaller_than_a_patch(
    folder: Path, checkpoint: Path, config_file: Path, capsys: Any
) -> None:
    said = fails(
        capsys, "VIM-406", "export", checkpoint, "--config", config_file, "--image-size", "4"
    )
    assert "--image-size 8" in said
    assert empty(folder)


@pytest.mark.parametrize("size", [(), ("--image-size", "21x16")])
def test_pixels_that_are_not_read_are_said(
    folder: Path, checkpoint: Path, config_file: Path, capsys: Any, size: tuple[str, ...]
) -> None:
    described = {**json.loads(config_file.read_text()), "img_size": [21, 16] if not size else 16}
    (folder / "model.json").write_text(json.dumps(described))
    named = ("export", str(checkpoint), "--config", "model.json", *size, "-o", "m.onnx")
    for said in ("wrote m.onnx", "up to date"):
        assert run(list(named)) == 0
        output = capsys.readouterr().err
        assert said in output
        assert "5 rows of pixels at the bottom are not read" in output
        assert "as in the official code" in output


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", '{"depht": 2}', "[NaN]", "[" * 9999])
def test_config_that_is_none(
    folder: Path,
    checkpoint: Path,
    capsys: Any,
    tmp_path_factory: pytest.TempPathFactory,
    content: str,
) -> None:
    path = tmp_path_factory.mktemp("config") / "c.json"
    path.write_text(content)
    code = "VIM-201" if "depht" in content else "VIM-416"
    fails(capsys, code, "export", checkpoint, "--config", path)


@pytest.mark.parametrize("kind", ["bytes", "folder", "large", "pipe"])
def test_labels_that_are_no_text(
    folder: Path,
    checkpoint: Path,
    config_file: Path,
    capsys: Any,
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
) -> None:
    path = tmp_path_factory.mktemp("labels") / "labels.txt"
    if kind == "bytes":
        path.write_bytes(b"north\nso\xffth\n")
    elif kind == "folder":
        path.mkdir()
    elif kind == "large":
        # Sparse: it takes no place.
        with path.open("wb") as stream:
            stream.truncate(1 << 32)
    else:
        os.mkfifo(path)
    code = "VIM-416" if kind in ("bytes", "large") else "VIM-401"
    fails(capsys, code, "export", checkpoint, "--config", config_file, "--labels", path)


def test_model_and_config_contradict(
    folder: Path, checkpoint: Path, config_file: Path, capsys: Any
) -> None:
    fails(capsys, "VIM-203", "export", checkpoint, "--model", "vim-tiny", "--config", config_file)


def test_output_folder_missing(
    folder: Path, checkpoint: Path, config_file: Path, capsys: Any
) -> None:
    fails(capsys, "VIM-304", "export", checkpoint, "--config", config_file, "-o", "no/where.onnx")
    assert empty(folder)


def test_output_is_a_device(folder: Path, checkpoint: Path, config_file: Path, capsys: Any) -> None:
    fails(capsys, "VIM-304", "export", checkpoint, "--config", config_file, "-o", "/dev/full")
    assert not Path("/dev/full").is_file()


def start(
    *arguments: str | Path, folder: Path, limit: int | None = None, shared: Path | None = None
) -> Any:
    """The command line in a process of its own; with a limit on files from ``shared`` traces."""
    variables = traces.variables(shared) if shared else {"PYTHONPATH": str(REPOSITORY)}
    # Python keeps what a full disk has cut off of its compiled modules, and reads it later.
    variables["PYTHONDONTWRITEBYTECODE"] = "1"

    def restrict() -> None:
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "vim_deploy", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **variables},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=restrict,
    )


@pytest.mark.usefixtures("exported")
def test_disk_full(
    folder: Path, checkpoint: Path, config_file: Path, folder_of_traces: Path
) -> None:
    arguments = ("export", checkpoint, "--config", config_file, "-o", "x.onnx")
    process = start(*arguments, folder=folder, limit=10_000, shared=folder_of_traces)
    said = process.communicate()[1]
    assert "error VIM-305" in said
    assert process.returncode == 3
    assert empty(folder)


def test_read_only_folder(folder: Path, checkpoint: Path, config_file: Path, capsys: Any) -> None:
    if os.geteuid() == 0:
        # Root writes into read-only folders; a folder of the kernel's refuses root as well.
        place = Path("/proc/self")
    else:
        place = folder / "locked"
        place.mkdir(mode=0o500)
    fails(capsys, "VIM-304", "export", checkpoint, "--config", config_file, "-o", place / "x.onnx")


def test_two_exports_to_one_path(
    folder: Path, checkpoint: Path, config_file: Path, folder_of_traces: Path
) -> None:
    arguments = ("export", checkpoint, "--config", config_file, "-o", "x.onnx", "--force")
    processes = [start(*arguments, folder=folder, shared=folder_of_traces) for _ in range(2)]
    said = [process.communicate()[1] for process in processes]
    codes = sorted(process.returncode for process in processes)
    # Whoever comes while another writes is refused; whoever comes later replaces the file.
    assert codes[0] == 0
    assert set(codes) <= {0, 3}
    assert all("VIM-306" in text for text, p in zip(said, processes, strict=True) if p.returncode)
    assert [path.name for path in folder.iterdir()] == ["x.onnx"]
    assert run(["-q", "inspect", str(folder / "x.onnx")]) == 0


def test_interrupted_export_leaves_nothing(
    folder: Path, checkpoint: Path, config_file: Path
) -> None:
    process = start("export", checkpoint, "--config", config_file, "-o", "x.onnx", folder=folder)
    lock = folder / ".x.onnx.lock"
    deadline = time.monotonic() + 60
    while not lock.exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130, said
    assert "interrupted" in said
    assert empty(folder)


def test_other_settings_are_not_overwritten(
    folder: Path, checkpoint: Path, config_file: Path, exported: Path, capsys: Any
) -> None:
    before = exported.read_bytes()
    arguments = ("export", checkpoint, "--config", config_file, "-o", exported)
    assert run(["-q", *map(str, arguments)]) == 0
    assert "preprocess" in fails(capsys, "VIM-204", *arguments, "--preprocess", "normalize")
    assert exported.read_bytes() == before


def test_identical_settings_are_up_to_date(
    checkpoint: Path, config_file: Path, exported: Path, capsys: Any
) -> None:
    before = exported.stat().st_mtime_ns
    arguments = ["export", str(checkpoint), "--config", str(config_file), "-o", str(exported)]
    assert run([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["up_to_date"] is True
    assert exported.stat().st_mtime_ns == before


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x08"])
@pytest.mark.parametrize("command", ["inspect", "verify", "build-engine"])
def test_file_that_is_no_model(folder: Path, capsys: Any, command: str, content: bytes) -> None:
    path = folder / "x.onnx"
    path.write_bytes(content)
    more = ["--against", "seed:0"] if command == "verify" else []
    fails(capsys, "VIM-409", command, path, *more)
    assert [item.name for item in folder.iterdir()] == ["x.onnx"]


def test_truncated_model(folder: Path, exported: Path, capsys: Any) -> None:
    cut = folder / "cut.onnx"
    cut.write_bytes(exported.read_bytes()[:-5000])
    fails(capsys, "VIM-409", "inspect", cut)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n cut off"])
def test_file_that_is_no_image(
    folder: Path, exported: Path, checkpoint: Path, capsys: Any, content: bytes
) -> None:
    picture = folder / "x.png"
    picture.write_bytes(content)
    fails(capsys, "VIM-411", "verify", exported, "--against", checkpoint, "--images", picture)


def test_verify_against_another_checkpoint(folder: Path, exported: Path, capsys: Any) -> None:
    other = save_training_file(perturbed(VisionMamba(tiny_config()), 1), folder / "other.pth")
    fails(capsys, "VIM-404", "verify", exported, "--against", other)


def test_verify_that_differs_leaves_with_seven(folder: Path, exported: Path, capsys: Any) -> None:
    image = np.zeros((2, 3, 16, 16), np.float32)
    np.savez(folder / "s.npz", image=image, logits=np.ones((2, 7), np.float32))
    fails(capsys, "VIM-701", "verify", exported, "--against", "s.npz", "--report", ".")
    assert json.loads((folder / "parity.json").read_text())["passed"] is False


def test_garbage_engine(folder: Path, capsys: Any) -> None:
    (folder / "x.plan").write_bytes(b"not an engine")
    fails(capsys, "VIM-413", "inspect", "x.plan")


def test_json_error_goes_to_stdout(folder: Path, capsys: Any) -> None:
    assert run(["export", "nowhere.pth", "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "VIM-401"


@pytest.mark.parametrize(
    "arguments",
    [
        ["exprot"],
        ["export"],
        ["export", "x.pth", "--batch", "0"],
        ["export", "x.pth", "--image-size", "1x2x3"],
        ["export", "x.pth", "--mean", "a"],
        ["verify", "x.onnx", "--against", "y", "--batches", "1,0"],
        ["build-engine", "x.onnx", "--max-batch", "0"],
    ],
    ids=" ".join,
)
def test_usage_errors(folder: Path, capsys: Any, arguments: list[str]) -> None:
    assert run(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        ("VIM-203", ["--precision-policy", "p.toml"]),
        ("VIM-203", ["--io-precision", "fp16"]),
        ("VIM-203", ["--precision", "fp16", "--io-precision", "bf16"]),
        ("VIM-401", ["--precision", "fp16", "--precision-policy", "none.toml"]),
        ("VIM-420", ["--precision", "fp16", "--precision-policy", "p.toml"]),
    ],
)
def test_precision_options(
    code: str,
    arguments: list[str],
    folder: Path,
    checkpoint: Path,
    config_file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The model has two blocks, 0 and 1.
    rule = '[[keep_fp32]]\nroles = ["scan"]\nblocks = "2"\n'
    (folder / "p.toml").write_text(f"format = 1\n{rule}")
    fails(capsys, code, "export", checkpoint, "--config", config_file, "-o", "m.onnx", *arguments)
    assert sorted(path.name for path in folder.iterdir()) == ["p.toml"]


def test_twin_needs_a_checkpoint(
    folder: Path, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fails(capsys, "VIM-203", "verify", exported, "--against", exported, "--twin")
