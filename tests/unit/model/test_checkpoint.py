"""Reading checkpoints: every layout that is understood, and what is said about it."""

from __future__ import annotations

import argparse
import hashlib
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.support import reference
from vim_deploy.errors import VimDeployError
from vim_deploy.model.checkpoint import read_checkpoint


def weights(scale: float = 1.0) -> dict[str, torch.Tensor]:
    return {"a.weight": torch.arange(6.0).reshape(2, 3) * scale, "b": torch.ones(2) * scale}


def saved(path: Path, value: object, **options: object) -> Path:
    torch.save(value, path, **options)
    return path


def error_of(path: Path | str, **options: str) -> VimDeployError:
    with pytest.raises(VimDeployError) as caught:
        read_checkpoint(path, **options)
    assert caught.value.fix
    return caught.value


def test_official_training_file(digits_checkpoint: Path) -> None:
    checkpoint = read_checkpoint(digits_checkpoint)
    assert checkpoint.info.part == "model"
    assert checkpoint.info.name == "vim_digits.pth"
    assert checkpoint.info.sha256 == hashlib.sha256(digits_checkpoint.read_bytes()).hexdigest()
    assert checkpoint.args["model"] == "vim_digits"
    assert checkpoint.args["input_size"] == 32
    assert any("model_ema" in note and "--use-ema" in note for note in checkpoint.notes)
    assert all(t.dtype == torch.float32 for t in checkpoint.state_dict.values())


def test_moving_average_is_another_set_of_weights(digits_checkpoint: Path) -> None:
    model = read_checkpoint(digits_checkpoint, part="model")
    ema = read_checkpoint(digits_checkpoint, part="model_ema")
    assert ema.info.part == "model_ema"
    assert ema.info.sha256 == model.info.sha256
    assert ema.state_dict.keys() == model.state_dict.keys()
    assert not torch.equal(ema.state_dict["head.weight"], model.state_dict["head.weight"])


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize(
    ("wrap", "part"),
    [
        (lambda w: w, "state_dict"),
        (lambda w: {"state_dict": w, "epoch": 3}, "state_dict"),
        (lambda w: {"model": OrderedDict(w), "args": argparse.Namespace(x=1)}, "model"),
        (lambda w: {f"module.{k}": v for k, v in w.items()}, "state_dict"),
        (lambda w: {"model": {f"module._orig_mod.{k}": v for k, v in w.items()}}, "model"),
        (lambda w: {k: torch.nn.Parameter(v) for k, v in w.items()}, "state_dict"),
    ],
)
def test_layouts(tmp_path: Path, wrap, part: str, new_format: bool) -> None:
    path = saved(
        tmp_path / "w.pth", wrap(weights()), _use_new_zipfile_serialization=new_format
    )  # fmt: skip
    checkpoint = read_checkpoint(path)
    assert checkpoint.info.part == part
    assert list(checkpoint.state_dict) == list(weights())
    assert all(torch.equal(checkpoint.state_dict[k], v) for k, v in weights().items())
    assert not any(tensor.requires_grad for tensor in checkpoint.state_dict.values())


def test_a_wrapper_in_a_key_is_kept_where_two_would_be_one(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", {"module.a": torch.ones(1), "a": torch.ones(1)})
    assert list(read_checkpoint(path).state_dict) == ["module.a", "a"]


def test_safetensors(tmp_path: Path) -> None:
    for name in ("w.safetensors", "other_suffix.bin"):
        save_file(weights(), tmp_path / name)
        checkpoint = read_checkpoint(tmp_path / name)
        assert checkpoint.info.part == "state_dict"
        assert all(torch.equal(checkpoint.state_dict[k], v) for k, v in weights().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32_and_are_named(tmp_path: Path, dtype: torch.dtype) -> None:
    path = saved(tmp_path / "w.pth", {k: v.to(dtype) for k, v in weights().items()})
    checkpoint = read_checkpoint(path)
    assert {t.dtype for t in checkpoint.state_dict.values()} == {torch.float32}
    assert any(str(dtype).removeprefix("torch.") in note for note in checkpoint.notes)


def test_stored_arguments_are_plain_values(tmp_path: Path) -> None:
    args = argparse.Namespace(model="m", nested={"a": 1}, input_size=32, tensor=torch.ones(1))
    path = saved(tmp_path / "w.pth", {"model": weights(), "args": args})
    assert read_checkpoint(path).args == {"model": "m", "input_size": 32}


def test_folder_with_one_checkpoint(tmp_path: Path) -> None:
    saved(tmp_path / "w.pth", weights())
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden.pth").write_text("x")
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.info.name == "w.pth"
    assert any("w.pth" in note for note in checkpoint.notes)


def test_folder_with_several_or_none(tmp_path: Path) -> None:
    assert error_of(tmp_path).code == "VIM-401"
    for name in ("a.pth", "b.safetensors"):
        (tmp_path / name).write_text("x")
    error = error_of(tmp_path)
    assert error.code == "VIM-401"
    assert "a.pth" in error.why
    assert "b.safetensors" in error.why


def test_missing_file(tmp_path: Path) -> None:
    assert error_of(tmp_path / "none.pth").code == "VIM-401"


def test_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("vim_deploy.model.checkpoint.sha256_of", denied)
    error = error_of(saved(tmp_path / "w.pth", weights()))
    assert error.code == "VIM-402"
    assert error.why == "Permission denied"


def test_unknown_part(tmp_path: Path) -> None:
    error = error_of(saved(tmp_path / "w.pth", weights()), part="model_emma")
    assert error.code == "VIM-202"
    assert "model_ema" in error.fix


@pytest.mark.parametrize("value", [weights(), {"model": weights(), "model_ema": None}])
def test_moving_average_asked_and_not_there(tmp_path: Path, value: object) -> None:
    error = error_of(saved(tmp_path / "w.pth", value), part="model_ema")
    assert error.code == "VIM-404"
    assert "--use-ema" in error.fix


def test_moving_average_alone_is_not_taken_for_the_model(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", {"model_ema": weights(), "epoch": 1})
    assert error_of(path).code == "VIM-404"
    assert "--use-ema" in error_of(path).fix
    assert read_checkpoint(path, part="model_ema").info.part == "model_ema"


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ({"epoch": 3, "net": {"a": 1}}, "epoch, net"),
        ({"model": {}}, "model"),
        ({}, "nothing"),
        (torch.ones(3), "Tensor"),
        ({"model": {"a": "text"}}, "model"),
        ({"model": {3: torch.ones(1)}}, "'3'"),
        ({"model": {"layers.0.a": "text", "b": torch.ones(1)}}, "'layers.0.a' is a str"),
    ],
)
def test_no_usable_weights(tmp_path: Path, value: object, word: str) -> None:
    error = error_of(saved(tmp_path / "w.pth", value))
    assert error.code == "VIM-402"
    assert word in error.why
    assert "again" not in error.fix, "the file is sound"


@pytest.mark.parametrize("tensor", [torch.eye(3).to_sparse(), torch.ones(2, dtype=torch.complex64)])
def test_kinds_of_tensor_that_no_vim_has_are_refused(tmp_path: Path, tensor: torch.Tensor) -> None:
    error = error_of(saved(tmp_path / "w.pth", {"a": tensor}))
    assert error.code == "VIM-402"
    assert "'a'" in error.why


def test_non_finite_weights_are_named(tmp_path: Path) -> None:
    bad = weights() | {
        "c.nan": torch.tensor([1.0, float("nan")]),
        "d.inf": torch.tensor([float("-inf")]),
    }
    error = error_of(saved(tmp_path / "w.pth", {"model": bad, "model_ema": weights()}))
    assert error.code == "VIM-405"
    assert "c.nan, d.inf" in error.why
    assert "2 of 4" in error.message
    read_checkpoint(tmp_path / "w.pth", part="model_ema")


def test_every_reference_checkpoint_is_readable() -> None:
    for name in reference.cases():
        checkpoint = read_checkpoint(reference.load_case(name).checkpoint)
        assert checkpoint.info.part == "model"
        assert "norm_f.weight" in checkpoint.state_dict
