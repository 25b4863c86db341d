"""Dense checkpoints as users have them: layouts of mmsegmentation, mmengine and detectron2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support import reference
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.network.dense.weights import dense_weights, kind_of, name_of
from vim_deploy.model.describe import describe_checkpoint
from vim_deploy.model.load import LoadedModel, load_model
from vim_deploy.recipe.schema import ModelRequest

NAMES = ("wall", "floor", "sky", "tree", "door", "road", "sea")
COLOURS = [[10 * index, 20, 30] for index in range(7)]


def weights_of(short: str) -> dict[str, Tensor]:
    stored = torch.load(reference.dense_case(short).checkpoint, weights_only=True)
    state: dict[str, Tensor] = stored.get("model", stored.get("state_dict"))
    return state


def config_text(**changes: Any) -> str:
    """E01's configuration as mmcv writes it."""
    config = json.loads(json.dumps(dict(reference.dense_case("E01").kwargs)))
    for path, value in changes.items():
        table, _, name = path.partition("__")
        config[table][name] = value
    return f"norm_cfg = dict(type='SyncBN')\nmodel = {config!r}\nwork_dir = 'x'\n"


def saved(folder: Path, content: object, name: str = "iter_60000.pth") -> Path:
    path = folder / name
    torch.save(content, path)
    return path


def loaded(path: Path, **options: Any) -> LoadedModel:
    return load_model(ModelRequest(str(path), **options))


def palette_of(model: LoadedModel) -> list[list[int]]:
    assert model.module.dense is not None
    return [list(colour) for colour in model.module.dense.palette]


def assert_same(found: LoadedModel, short: str) -> None:
    """The weights of the case came through, whatever they were wrapped in."""
    expected = loaded(reference.dense_case(short).checkpoint).module.state_dict()
    own = found.module.state_dict()
    assert own.keys() == expected.keys()
    assert all(torch.equal(own[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    "meta",
    [
        {"CLASSES": NAMES, "PALETTE": COLOURS, "config": config_text()},
        {"CLASSES": list(NAMES), "PALETTE": [tuple(c) for c in COLOURS], "config": "{}"},
        {"dataset_meta": {"classes": NAMES, "palette": COLOURS}, "cfg": config_text()},
    ],
    ids=["mmcv", "mmcv without config", "mmengine"],
)
def test_mmsegmentation_files(meta: dict[str, Any], tmp_path: Path) -> None:
    content = {
        "meta": {"mmseg_version": "0.29.1", "iter": 60000, "hook_msgs": {}, **meta},
        "state_dict": weights_of("E01"),
        "optimizer": {"state": {}, "param_groups": [{"lr": 6e-5}]},
    }
    found = loaded(saved(tmp_path, content))
    assert_same(found, "E01")
    assert found.labels == NAMES
    assert palette_of(found) == COLOURS
    config = any("the configuration in the checkpoint" in str(note) for note in found.notes)
    assert config == ("model =" in str(meta.get("config", meta.get("cfg"))))


def test_the_stored_configuration_counts_more_than_assumptions(tmp_path: Path) -> None:
    changes = {"backbone__out_indices": [0, 1, 2, 2 + 1], "test_cfg__stride": [20, 30]}
    meta = {"config": config_text(**changes)}
    found = loaded(saved(tmp_path, {"meta": meta, "state_dict": weights_of("E01")}))
    assert found.module.dense is not None
    assert found.module.dense.test is not None
    assert found.module.dense.test.stride == (20, 30)
    # Without it two thirds of the window are assumed, and that is said.
    bare = loaded(saved(tmp_path, {"state_dict": weights_of("E01")}))
    assert bare.module.dense is not None
    assert bare.module.dense.test is not None
    assert bare.module.dense.test.stride == (42, 42)
    assert any("assumed sliding windows" in str(note) for note in bare.notes)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"decode_head__type": "SegformerHead"}, "VIM-408"),
        ({"backbone__patch_sizes": 16}, "VIM-201"),
        ({"backbone__embed_dim": 96}, "VIM-404"),
        ({"backbone__depth": 65536}, "VIM-404"),
        ({"decode_head__channels": 65536}, "VIM-404"),
        ({"decode_head__num_classes": 150}, "VIM-404"),
        ({"decode_head__pool_scales": [1, 2]}, "VIM-404"),
        ({"auxiliary_head__num_convs": 2}, "VIM-404"),
        ({"auxiliary_head__kernel_size": 9999}, "VIM-404"),
        ({"backbone__img_size": 128}, "VIM-408"),
    ],
)
def test_a_stored_configuration_that_does_not_fit(
    changes: dict[str, Any], code: str, tmp_path: Path
) -> None:
    meta = {"config": config_text(**changes)}
    path = saved(tmp_path, {"meta": meta, "state_dict": weights_of("E01")})
    with pytest.raises(VimDeployError) as caught:
        loaded(path)
    assert caught.value.code == code
    assert caught.value.fix


def test_names_and_colours_that_are_none(tmp_path: Path) -> None:
    state = weights_of("E01")
    for classes, colours in (
        (("a", "b"), None),
        ((1, 2, 3, 4, 5, 6, 7), None),
        (("x" * 1000,) * 7, None),
        (("a\nb",) * 7, None),
        ("abcdefg", None),
        ({"a": 1}, None),
        (NAMES, [[0, 0, 999]] * 7),
        (NAMES, [[0, 0, 0]] * 3),
        (NAMES, "red"),
    ):
        meta = {"CLASSES": classes, "PALETTE": colours}
        found = loaded(saved(tmp_path, {"meta": meta, "state_dict": state}))
        assert found.labels == (NAMES if classes == NAMES else ())
        assert palette_of(found) == []
        if classes == ("a", "b"):
            assert any("names 2 classes and the model has 7" in str(note) for note in found.notes)


def test_wrapped_keys_and_counters(tmp_path: Path) -> None:
    # DistributedDataParallel's prefix, SyncBN's counters, float16.
    state = {f"module.{key}": value.half().float() for key, value in weights_of("E01").items()}
    for key in list(state):
        if key.endswith("running_var"):
            counter = key.replace("running_var", "num_batches_tracked")
            state[counter] = torch.tensor(60000)
    found = loaded(saved(tmp_path, {"state_dict": state}))
    assert found.module.config.embed_dim == 48
    assert any("'module.'" in str(note) for note in found.notes)


def test_averaged_weights(tmp_path: Path) -> None:
    state = weights_of("E01")
    averaged = {key: value * 0 + 0.5 for key, value in state.items()}
    path = saved(tmp_path, {"model": state, "model_ema": averaged})
    assert_same(loaded(path), "E01")
    found = loaded(path, use_ema=True)
    assert found.checkpoint.part == "model_ema"
    assert float(next(iter(found.module.parameters())).detach().flatten()[0]) == 0.5
    with pytest.raises(VimDeployError) as caught:
        loaded(saved(tmp_path, {"state_dict": state}), use_ema=True)
    assert caught.value.code == "VIM-404"
    assert "--use-ema" in caught.value.fix


def test_the_backbone_of_an_mmsegmentation_file(tmp_path: Path) -> None:
    state = {f"backbone.{key}": value for key, value in weights_of("D01").items()}
    found = loaded(saved(tmp_path, {"state_dict": state}))
    assert_same(found, "D01")
    assert any("no decode_head: the backbone alone" in str(note) for note in found.notes)


def test_the_backbone_of_a_whole_detector(tmp_path: Path) -> None:
    state = {f"backbone.{key}": value for key, value in weights_of("D08").items()}
    state |= {
        "proposal_generator.rpn_head.conv.weight": torch.ones(2),
        "roi_heads.box_predictor.0.cls_score.weight": torch.ones(2),
        "pixel_mean": torch.ones(3, 1, 1),
    }
    path = saved(tmp_path, {"model": state, "iteration": 184374}, "model_final.pth")
    found = loaded(path, config=dict(reference.dense_case("D08").kwargs))
    assert_same(found, "D08")
    (note,) = (note for note in map(str, found.notes) if "behind the backbone" in note)
    assert note.startswith("2 tensors")
    assert "proposal_generator, roi_heads" in note


def test_a_network_whose_auxiliary_head_was_left_out(tmp_path: Path) -> None:
    state = {k: v for k, v in weights_of("E01").items() if not k.startswith("auxiliary_head.")}
    path = saved(tmp_path, {"state_dict": state})
    for config in (None, dict(reference.dense_case("E01").kwargs)):
        found = loaded(path, config=config)
        assert found.module.dense is not None
        assert found.module.dense.auxiliary_head is None
    assert any("no auxiliary head" in str(note) for note in found.notes)


def test_a_network_described_without_its_auxiliary_head() -> None:
    case = reference.dense_case("E01")
    config = {**case.kwargs, "auxiliary_head": None}
    found = load_model(ModelRequest(str(case.checkpoint), config=config))
    assert not hasattr(found.module, "auxiliary_head")
    assert any("auxiliary head of the checkpoint" in str(note) for note in found.notes)


@pytest.mark.parametrize(
    ("keys", "kind", "name"),
    [
        (
            ("backbone.pos_embed", "decode_head.conv_seg.weight"),
            "segmentor",
            "segmentation network",
        ),
        (("backbone.pos_embed", "backbone.fpn1.0.weight"), "backbone", "backbone alone"),
        (("pos_embed", "fpn1.0.weight"), "backbone", "backbone alone"),
        (("net.pos_embed", "simfp_2.0.weight"), "detector", "detection backbone"),
        (("backbone.net.pos_embed", "backbone.simfp_2.0.weight"), "detector", "detection backbone"),
        (
            ("backbone.simfp_2.0.weight", "proposal_generator.x", "roi_heads.x"),
            "rcnn",
            "whole detector",
        ),
        (("pos_embed", "head.weight"), None, "classifier"),
        (("pos_embed", "cls_token"), None, "classifier"),
        (("pos_embed", "norm_f.weight"), None, "bare Vim"),
    ],
)
def test_kinds(keys: tuple[str, ...], kind: str | None, name: str) -> None:
    state = dict.fromkeys(keys, torch.ones(1))
    assert kind_of(state) == kind
    assert name in name_of(state)


def test_counters_are_not_weights() -> None:
    state = {**weights_of("D09"), "simfp_4.0.norm.num_batches_tracked": torch.tensor(3)}
    found = dense_weights(state, "detector")
    assert not [key for key in found.tensors if key.endswith("num_batches_tracked")]
    assert found.vim_path == "net"
    assert "patch_embed.proj.weight" in found.vim()


@pytest.mark.parametrize(("short", "task"), [("E01", "segmentation"), ("D08", "detection")])
def test_inspect_describes_them(short: str, task: str) -> None:
    found = describe_checkpoint(reference.dense_case(short).checkpoint)
    assert found["model"] == "custom"
    assert found["architecture"]["embed_dim"] == 48
    assert found["dense"]["task"] == task
    assert any(text.startswith("assumed") for text in found["statements"])
    json.dumps(found, allow_nan=False)
