"""MambaVision checkpoints: layouts of files, architectures that are told, keys that do not fit."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.support import reference
from vim_deploy.errors import VimDeployError
from vim_deploy.families.mambavision.names import VARIANTS
from vim_deploy.families.mambavision.network.infer import infer_config
from vim_deploy.families.mambavision.network.model import MambaVision
from vim_deploy.model.checkpoint import read_checkpoint
from vim_deploy.model.describe import describe_checkpoint
from vim_deploy.model.load import LoadedModel, load_model
from vim_deploy.recipe.schema import ModelRequest

CASE = reference.mambavision_cases()[1]
BOUND = 2e-5


@pytest.fixture(scope="module")
def case() -> reference.ReferenceCase:
    return reference.load_case(CASE)


@pytest.fixture(scope="module")
def weights(case: reference.ReferenceCase) -> dict[str, torch.Tensor]:
    return dict(read_checkpoint(case.checkpoint).state_dict)


def config_of(case: reference.ReferenceCase) -> dict[str, Any]:
    return {"family": "mambavision", **case.kwargs, "img_size": list(case.image.shape[2:])}


def require_same(loaded: LoadedModel, case: reference.ReferenceCase) -> None:
    with torch.inference_mode():
        found = loaded.module(torch.tensor(case.image)).numpy()
    assert np.abs(found - case.output).max() <= BOUND


def refused(request: ModelRequest) -> VimDeployError:
    with pytest.raises(VimDeployError) as caught:
        load_model(request)
    return caught.value


def test_the_official_file(case: reference.ReferenceCase) -> None:
    loaded = load_model(ModelRequest(str(case.checkpoint), config=config_of(case)))
    require_same(loaded, case)
    assert loaded.pos_embed == "none"
    # Of .pth.tar both endings go.
    assert loaded.stem == CASE


def test_keywords_alone_are_of_the_weights_family(case: reference.ReferenceCase) -> None:
    height, width = case.image.shape[2:]
    request = ModelRequest(
        str(case.checkpoint), config=dict(case.kwargs), image_size=(height, width)
    )
    require_same(load_model(request), case)
    wrong = ModelRequest(str(case.checkpoint), config={**case.kwargs, "family": "vim"})
    assert refused(wrong).code == "VIM-404"


def test_weights_that_take_blue_first_are_turned_round(
    case: reference.ReferenceCase, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    request = hugging_face(tmp_path, case, weights)
    table = {"do_flip_channel_order": True, "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(table), encoding="utf-8")
    loaded = load_model(request)
    with torch.inference_mode():
        found = loaded.module(torch.tensor(case.image).flip(1)).numpy()
    assert np.abs(found - case.output).max() <= BOUND


def test_a_plain_state_dict_without_counts_of_steps(
    case: reference.ReferenceCase, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "plain.pth"
    torch.save({k: v for k, v in weights.items() if "num_batches" not in k}, path)
    require_same(load_model(ModelRequest(str(path), config=config_of(case))), case)


def hugging_face(
    folder: Path, case: reference.ReferenceCase, weights: dict[str, torch.Tensor], **changes: object
) -> ModelRequest:
    """A folder as ``save_pretrained`` makes it, and what asks for its model at the case's size."""
    save_file({f"model.{key}": value.clone() for key, value in weights.items()},
              folder / "model.safetensors")  # fmt: skip
    table = {
        "architectures": ["MambaVisionModelForImageClassification"], "model_type": "mambavision",
        "mean": [0.4, 0.4, 0.4], "std": [0.2, 0.2, 0.2], "crop_pct": 0.9, **case.kwargs, **changes,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(table), encoding="utf-8")
    height, width = case.image.shape[2:]
    return ModelRequest(str(folder), image_size=(height, width))


def test_a_folder_of_hugging_face(
    case: reference.ReferenceCase, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    loaded = load_model(hugging_face(tmp_path, case, weights))
    require_same(loaded, case)
    assert (loaded.image.mean, loaded.image.crop_ratio) == ((0.4, 0.4, 0.4), 0.9)
    assert any("num_heads=[1, 2, 2, 4] from config.json" in note.text for note in loaded.notes)


def test_a_config_json_of_another_model_is_not_used(
    case: reference.ReferenceCase, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    request = hugging_face(tmp_path, case, weights, depths=[1, 2, 3, 4])
    assert refused(request).code == "VIM-407"
    found = describe_checkpoint(tmp_path / "model.safetensors")
    assert found["holds"] == "classifier"
    assert found["architecture"] is None


def test_windows_of_unknown_shapes_are_not_guessed(case: reference.ReferenceCase) -> None:
    error = refused(ModelRequest(str(case.checkpoint)))
    assert error.code == "VIM-407"
    assert "window_size and num_heads" in error.message
    assert "--config" in error.fix


def test_another_models_name_is_refused(case: reference.ReferenceCase) -> None:
    error = refused(ModelRequest(str(case.checkpoint), model="mamba_vision_T"))
    assert error.code == "VIM-404"
    assert "dim 16, not 80" in error.why


def test_keys_that_do_not_fit_are_listed(
    case: reference.ReferenceCase, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    broken = {**weights, "levels.2.extra": torch.zeros(3), "head.weight": torch.zeros(5, 7)}
    del broken["levels.3.blocks.0.norm1.weight"]
    path = tmp_path / "broken.pth"
    torch.save({"state_dict": broken}, path)
    error = refused(ModelRequest(str(path), config=config_of(case)))
    assert error.code == "VIM-404"
    assert error.why.splitlines() == [
        "missing levels.3.blocks.0.norm1.weight, expected [128]",
        "unexpected levels.2.extra, found [3]",
        "head.weight: found [5, 7], expected [5, 128]",
    ]


def test_blocks_with_a_gap_are_refused(weights: dict[str, torch.Tensor]) -> None:
    kept = {key: value for key, value in weights.items() if "levels.3.blocks.1." not in key}
    with pytest.raises(VimDeployError) as caught:
        infer_config(kept, {}, {})
    assert caught.value.code == "VIM-407"
    assert "levels.3.blocks.1" in caught.value.why


def shapes_of(name: str, **changes: object) -> dict[str, torch.Tensor]:
    """The keys and shapes of a published model, without values."""
    with torch.device("meta"):
        return MambaVision(VARIANTS[name].config.replace(**changes)).state_dict()


@pytest.mark.parametrize("name", ["mambavision-tiny", "mambavision-small", "mambavision-large"])
def test_published_models_are_known_by_their_shapes(name: str) -> None:
    found = infer_config(shapes_of(name, num_classes=3), {}, {})
    assert found.config == VARIANTS[name].config.replace(num_classes=3)
    assert any(text.startswith("assumed window_size=") for text in found.statements)


def test_two_models_of_the_same_shapes() -> None:
    tensors = shapes_of("mambavision-large2-512")
    with pytest.raises(VimDeployError) as caught:
        infer_config(tensors, {}, {})
    assert caught.value.code == "VIM-407"
    assert "--model mambavision-large2 or --model mambavision-large2-512" in caught.value.fix
    wanted = VARIANTS["mambavision-large2-512"].config
    assert infer_config(tensors, {}, {}, image_size=512).config == wanted
    assert infer_config(tensors, {"model": "mamba_vision_L2_512_21k"}, {}).config == wanted
    assert infer_config(tensors, {}, {}, model="mambavision-large2-512").config == wanted


def test_stored_arguments_name_the_model_and_its_pictures(tmp_path: Path) -> None:
    config = VARIANTS["mambavision-tiny"].config.replace(depths=(1, 0, 1, 1), num_classes=2)
    path = tmp_path / "trained.pth.tar"
    args = argparse.Namespace(model="mamba_vision_T", input_size=96)
    torch.save({"state_dict": MambaVision(config).state_dict(), "args": args}, path)
    error = refused(ModelRequest(str(path)))
    # It is not that model: the name says nothing of windows then.
    assert error.code == "VIM-407"
    found = infer_config(shapes_of("mambavision-tiny"), vars(args), {})
    assert found.config.img_size == 96
    assert "the stored training arguments name it" in found.statements[0]


@pytest.mark.parametrize("ratio", [1, 2.5, 4, 0.3, 1.7])
def test_the_factor_of_mlps_is_found_again(ratio: float) -> None:
    config = VARIANTS["mambavision-small"].config.replace(
        dim=6, num_heads=(1, 1, 1, 1), mlp_ratio=ratio
    )
    with torch.device("meta"):
        tensors = MambaVision(config).state_dict()
    hugging = {"model_type": "mambavision", "window_size": [8, 8, 14, 7], "num_heads": [1] * 4}
    found = infer_config(tensors, {}, hugging).config
    assert [found.hidden(level) for level in (2, 3)] == [config.hidden(n) for n in (2, 3)]
