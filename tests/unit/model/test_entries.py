"""The weights are found by their keys, in any container, and what stands beside them is said."""

from __future__ import annotations

import argparse
import dataclasses
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from tests.support.models import perturbed, tiny_config
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.network.dense.weights import kind_of
from vim_deploy.families.vim.network.infer import infer_config
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.model.checkpoint import Checkpoint, read_checkpoint
from vim_deploy.model.load import load_model
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.stages import inspect

Weights = dict[str, Tensor]
TrainState = namedtuple("TrainState", ["params", "step"])


class Box(OrderedDict[str, Any]):
    """A dict of a trainer's own."""


@dataclasses.dataclass
class Bundle:
    """A record of a trainer's own."""

    weights: Weights
    best: float = 0.0


def network(seed: int = 0, **changes: Any) -> VisionMamba:
    return perturbed(VisionMamba(tiny_config(final_pool_type="mean", **changes)), seed)


def weights(seed: int = 0) -> Weights:
    return dict(network(seed).state_dict())


def under(prefix: str, found: Weights) -> Weights:
    return {prefix + key: value for key, value in found.items()}


def read(folder: Path, value: object, **options: Any) -> Checkpoint:
    torch.save(value, folder / "w.pth")
    return read_checkpoint(folder / "w.pth", **options)


def refusal(folder: Path, value: object, **options: Any) -> VimDeployError:
    with pytest.raises(VimDeployError) as caught:
        read(folder, value, **options)
    assert caught.value.fix
    assert "again" not in caught.value.fix, "the file is sound"
    return caught.value


CONTAINERS: dict[str, Callable[[Weights], object]] = {
    "tutorial": lambda w: {"epoch": 3, "model_state_dict": w, "optimizer_state_dict": {}},
    "net": lambda w: {"net": w, "acc": 0.9},
    "deepspeed": lambda w: {"module": w, "global_steps": 3, "dp_world_size": 1},
    "fastai": lambda w: {"model": w, "opt": {"state": [{"sqr_avg": torch.ones(3)}], "hypers": []}},
    "lightning": lambda w: {"state_dict": under("model.", w), "hyper_parameters": {"lr": 0.1}},
    "lightning of two names": lambda w: {"state_dict": under("net.backbone.", w)},
    "fabric": lambda w: {"state_dict": under("_forward_module.model.", w)},
    "compiled inside": lambda w: {"state_dict": under("model._orig_mod.", w)},
    "fsdp": lambda w: {"model": under("_fsdp_wrapped_module.", w)},
    "checkpointing": lambda w: {
        k.replace(".mixer.", "._checkpoint_wrapped_module.mixer."): v for k, v in w.items()
    },
    "deep": lambda w: {"trainer": {"checkpoint": [{"student": {"model": w}}]}},
    "tuple": lambda w: (w, 3),
    "dict of its own": lambda w: Box(weights=Box(w)),
    "record of its own": Bundle,
    "namedtuple": lambda w: TrainState(w, 3),
    "namespace": lambda w: {"state": argparse.Namespace(model=w)},
    "bare with numbers": lambda w: {**w, "epoch": 3, "best": None, "args": {"lr": 0.1}},
    "profiled": lambda w: {
        **w, "total_ops": torch.zeros(1), "layers.0.mixer.total_params": torch.zeros(1),
    },
    "criterion": lambda w: {**under("model.", w), "criterion.weight": torch.ones(7)},
    "criterion beside bare": lambda w: {**w, "criterion.weight": torch.ones(7)},
    "backbone and head": lambda w: {
        k if k.startswith("head.") else f"backbone.{k}": v for k, v in w.items()
    },
    "mmpretrain": lambda w: {
        k.replace("head.", "head.fc.") if k.startswith("head.") else f"backbone.{k}": v
        for k, v in w.items()
    },
    "extra state": lambda w: {**w, "layers.0._extra_state": None},
}  # fmt: skip


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_vim_is_found_wherever_it_stands(tmp_path: Path, name: str) -> None:
    found = read(tmp_path, CONTAINERS[name](weights()))
    assert found.state_dict.keys() == weights().keys()
    assert all(torch.equal(found.state_dict[key], value) for key, value in weights().items())
    assert kind_of(found.state_dict) is None
    assert infer_config(found.state_dict).config.num_classes == 7
    again = read_checkpoint(tmp_path / "w.pth", key=found.info.part)
    assert again.state_dict.keys() == weights().keys(), "as the reference of a parity check reads"


def test_an_averaged_model_alone_is_the_model(tmp_path: Path) -> None:
    found = read(tmp_path, AveragedModel(network()).state_dict())
    assert found.state_dict.keys() == weights().keys()
    notes = "\n".join(found.notes)
    assert "'module.'" in notes
    assert "n_averaged" in notes


def test_a_whole_network_gives_its_weights_and_keywords(tmp_path: Path) -> None:
    model = network()
    model.register_buffer("passing", torch.ones(3), persistent=False)
    model.if_bidirectional = True
    found = read(tmp_path, {"net": torch.nn.DataParallel(model)})
    assert found.state_dict.keys() == weights().keys()
    alone = read(tmp_path, model)
    assert alone.state_dict.keys() == weights().keys()
    assert infer_config(alone.state_dict, alone.args).config.if_bidirectional


@pytest.mark.parametrize(
    "name", ["model_ema", "state_dict_ema", "ema", "ema_state_dict", "ModelEMA", "ema_model",
             "swa_model", "averaged_weights", "model.ema"]
)  # fmt: skip
def test_averages_are_known_by_their_names(tmp_path: Path, name: str) -> None:
    value = {"model_state_dict": weights(), name: under("module.", weights(1)), "epoch": 1}
    assert torch.equal(read(tmp_path, value).state_dict["head.bias"], weights()["head.bias"])
    ema = read(tmp_path, value, part="model_ema")
    assert torch.equal(ema.state_dict["head.bias"], weights(1)["head.bias"])
    assert ema.info.part == "model_ema"


def test_an_average_under_a_prefix_of_the_same_entry(tmp_path: Path) -> None:
    both = {**under("model.", weights()), **under("ema_model.module.", weights(1)),
            "ema_model.n_averaged": torch.tensor(3)}  # fmt: skip
    value = {"state_dict": both}
    assert torch.equal(read(tmp_path, value).state_dict["head.bias"], weights()["head.bias"])
    ema = read(tmp_path, value, part="model_ema").state_dict["head.bias"]
    assert torch.equal(ema, weights(1)["head.bias"])


@pytest.mark.parametrize(
    "value",
    [
        {"state_dict": weights(), "ema_state_dict": under("module.", weights(1)),
         "message_hub": {}},
        {"state_dict": under("model.", weights()), "averaging_state": {"n_averaged": 3},
         "current_model_state": under("model.", weights(1))},
    ],
    ids=["mmengine", "Lightning"],
)  # fmt: skip
def test_some_exchange_the_two(tmp_path: Path, value: dict[str, object]) -> None:
    for part in ("auto", "model_ema"):
        found = read(tmp_path, value, part=part).state_dict["head.bias"]
        assert torch.equal(found, weights()["head.bias"])


def test_several_are_listed_and_one_is_chosen_by_its_name(tmp_path: Path) -> None:
    value = {"state_dict": {**under("student.", weights()), **under("teacher.", weights(1))}}
    error = refusal(tmp_path, value)
    assert error.code == "VIM-404"
    assert "state_dict.student, state_dict.teacher" in error.why
    for name in ("teacher", "state_dict.teacher"):
        found = read(tmp_path, value, key=name)
        assert torch.equal(found.state_dict["head.bias"], weights(1)["head.bias"])
        assert found.info.part == "state_dict.teacher"
    error = refusal(tmp_path, value, key="net")
    assert error.code == "VIM-404"
    assert "state_dict.student" in error.why
    assert refusal(tmp_path, value, key="state_dict").code == "VIM-404"


def test_the_official_entry_comes_first_and_one_network_counts_once(tmp_path: Path) -> None:
    found = read(tmp_path, {"best": weights(1), "model": weights()})
    assert found.info.part == "model"
    assert any("--key best" in note for note in found.notes)
    one = weights()
    assert read(tmp_path, {"net": one, "copy": dict(one)}).info.part == "net"


def test_a_layer_that_may_be_the_head_is_not_left_out_in_silence(tmp_path: Path) -> None:
    vim = dict(network(num_classes=0).state_dict())
    value = {"state_dict": {**under("encoder.", vim), "classifier.weight": torch.ones(5, 16)}}
    error = refusal(tmp_path, value)
    assert error.code == "VIM-404"
    assert "classifier.weight" in error.why
    name = error.fix.split()[1]
    assert read(tmp_path, value, key=name).state_dict.keys() == vim.keys()


@pytest.mark.parametrize("key", ["pos_embed", "cls_token", "layers.0.mixer.D", "head.weight"])
@pytest.mark.parametrize("value", [None, 3, torch.ones(())])
def test_a_weight_that_is_none_is_not_left_out(tmp_path: Path, key: str, value: object) -> None:
    torch.save({**weights(), key: value}, tmp_path / "w.pth")
    with pytest.raises(VimDeployError) as caught:
        load_model(ModelRequest(str(tmp_path / "w.pth")))
    assert key in f"{caught.value.message} {caught.value.why}"


@pytest.mark.parametrize("wrap", ["", "model."])
@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (("backbone.", "decode_head.conv_seg.weight"), "segmentor"),
        (("backbone.", "backbone.fpn1.0.weight"), "backbone"),
        (("backbone.net.", "backbone.simfp_2.0.weight"), "detector"),
        (("net.", "simfp_2.0.weight"), "detector"),
    ],
)
def test_dense_models_keep_their_keys(
    tmp_path: Path, wrap: str, keys: tuple[str, str], kind: str
) -> None:
    prefix, other = keys
    vim = dict(network(if_cls_token=False, num_classes=0).state_dict())
    whole = {**under(prefix, vim), other: torch.ones(2, 16)}
    found = read(tmp_path, {"state_dict": under(wrap, whole)})
    assert found.state_dict.keys() == whole.keys()
    assert kind_of(found.state_dict) == kind


def test_key_contradicts_the_other_ways_to_choose(tmp_path: Path) -> None:
    torch.save({"a": weights()}, tmp_path / "w.pth")
    for options in ({"use_ema": True}, {"random_weights": 1}):
        with pytest.raises(VimDeployError) as caught:
            load_model(ModelRequest(str(tmp_path / "w.pth"), key="a", **options))
        assert caught.value.code == "VIM-203"


# Folders.


@pytest.mark.parametrize(
    "names",
    [
        ["model_best.pth.tar"],
        ["last.ckpt", ".hidden.pth"],
        ["model.safetensors", "optimizer.bin", "scheduler.bin", "random_states_0.pkl"],
        ["mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"],
    ],
)
def test_a_folder_with_one_file_of_weights(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    torch.save({"model": weights()}, tmp_path / names[0])
    assert read_checkpoint(tmp_path).info.name == names[0]
    found = inspect(tmp_path)
    assert (found["kind"], found["file"]) == ("checkpoint", names[0])


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], "save_file"),
        (["__0_0.distcp", ".metadata"], "dcp_to_torch"),
    ],
)
def test_weights_in_pieces_are_refused_with_the_way_out(
    tmp_path: Path, names: list[str], word: str
) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(VimDeployError) as caught:
        read_checkpoint(tmp_path)
    assert caught.value.code == "VIM-401"
    assert word in caught.value.fix
