"""What a file names is never called: plain values are made, classes stand in, others refuse."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import io
import os
import pathlib
import pickle
import subprocess
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vim_deploy.errors import VimDeployError
from vim_deploy.model import unpickle
from vim_deploy.model.checkpoint import read_checkpoint
from vim_deploy.model.inert import StandIn, Unpickler, is_hostile


class Kind(enum.Enum):
    """An enumeration of a trainer's own."""

    BEST = "best"


class Call:
    """Unpickling this calls ``function``."""

    def __init__(self, function: Callable[..., Any], *args: object) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[object, ...]:
        return self.function, self.args


def optimizer() -> torch.optim.Optimizer:
    parameter = torch.nn.Parameter(torch.ones(2))
    made = torch.optim.AdamW([parameter], 0.1)
    parameter.grad = torch.ones(2)
    made.step()
    return made


def tagged() -> torch.Tensor:
    tensor = torch.ones(2)
    tensor._no_weight_decay = True  # type: ignore[attr-defined]
    return tensor


def states() -> dict[str, object]:
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 0.1)
    return {
        "optimizer": optimizer().state_dict(),
        "whole optimizer": optimizer(),
        "scheduler": torch.optim.lr_scheduler.MultiStepLR(sgd, [30, 60]).state_dict(),
        "whole scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(sgd, 10),
        "generator": torch.Generator().get_state(),
        "network": torch.nn.Linear(2, 2),
        "numpy state": np.random.RandomState(0).get_state(),
        "numpy generator": np.random.default_rng(0),
        "numpy scalar": np.float64(76.1),
        "numpy array": np.ones((2, 3)),
        "numpy type": np.dtype("float32"),
        "counter": collections.Counter([30, 60]),
        "defaultdict": collections.defaultdict(list, {"a": [1]}),
        "deque": collections.deque([1.0, 2.0], maxlen=20),
        "set": {1, 2},
        "frozenset": frozenset({"a"}),
        "date": datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc),
        "path": pathlib.PurePosixPath("/out"),
        "enumeration": Kind.BEST,
        "namespace": argparse.Namespace(model="m", out=pathlib.PurePosixPath("o")),
        "simple namespace": types.SimpleNamespace(a=1),
        "function": torch.nn.functional.relu,
        "method": collections.OrderedDict.fromkeys,
        "class": torch.nn.Linear,
        "bytes": b"ab",
        "complex": 1j,
        "device": torch.device("cpu"),
        "type": torch.float8_e4m3fn,
        "exception": ValueError("x"),
        "sparse": torch.eye(2).to_sparse(),
        "keys": {(1, "a"): 1, (1, (2,)): 2, None: 3, Kind.BEST: 4},
    }


@pytest.mark.parametrize("name", states())
@pytest.mark.parametrize("form", ["zip", "legacy", "protocol 4"])
def test_what_trainings_store_does_not_keep_the_weights(
    tmp_path: Path, name: str, form: str
) -> None:
    value = {"model": {"a": tagged(), "b": torch.ones(2)}, "other": states()[name], "epoch": 3}
    options = {"pickle_protocol": 4} if form == "protocol 4" else {}
    new = form != "legacy"
    torch.save(value, tmp_path / "w.pth", _use_new_zipfile_serialization=new, **options)
    found = read_checkpoint(tmp_path / "w.pth", key="model")
    assert list(found.state_dict) == ["a", "b"]
    assert type(found.state_dict["a"]) is torch.Tensor


def test_plain_containers_keep_their_values_and_others_are_said(tmp_path: Path) -> None:
    args = {"counter": collections.Counter("aab"), "name": "n", "path": pathlib.PurePosixPath("o")}
    torch.save({"model": {"a": torch.ones(1)}, "args": args, "kind": Kind.BEST}, tmp_path / "w.pth")
    loaded, foreign = unpickle.load_pickled(tmp_path / "w.pth")
    assert loaded["args"]["counter"] == {"a": 2, "b": 1}
    assert isinstance(loaded["kind"], StandIn)
    assert foreign == ("pathlib.PurePosixPath", f"{Kind.__module__}.Kind")
    notes = read_checkpoint(tmp_path / "w.pth").notes
    assert sum("pathlib.PurePosixPath" in note for note in notes) == 1


@pytest.mark.parametrize(
    "payload",
    [
        Call(os.system, "true"), Call(subprocess.check_output, ["true"]), Call(eval, "1"),
        Call(exec, "1"), Call(open, "x"), Call(io.FileIO, "x", "w"), Call(__import__, "os"),
        Call(torch.load, "x"), Call(pickle.loads, b"N."), Call(setattr, Kind, "a", 1),
        Call(os.remove, "x"), Call(torch.hub.load, "x", "y"),
    ],
    ids=lambda payload: payload.function.__qualname__,
)  # fmt: skip
def test_hostile_names_refuse_the_file(tmp_path: Path, payload: Call) -> None:
    torch.save({"model": {"a": torch.ones(1)}, "other": payload}, tmp_path / "w.pth")
    with pytest.raises(VimDeployError) as caught:
        read_checkpoint(tmp_path / "w.pth")
    assert caught.value.code == "VIM-403"


def test_names_of_sound_files_are_not_hostile() -> None:
    for name in ("builtins.getattr", "osmium.A", "system.B", "code.models.Vim", "posixpath.join"):
        assert not is_hostile(name)


def rewritten(path: Path, content: bytes) -> Path:
    """A checkpoint whose pickle is ``content``."""
    torch.save({"a": torch.arange(4.0)}, path)
    with zipfile.ZipFile(path) as old:
        members = {member.filename: old.read(member) for member in old.infolist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, data in members.items():
            new.writestr(name, content if name.endswith("data.pkl") else data)
    return path


#: A function that the list of hostile names lacks, and whose call would be seen.
_UNSEEN = b"ctests.unit.model.test_inert\nset_off\n"
_OFF: list[object] = []


def set_off(*args: object) -> None:
    _OFF.append(args)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02" + _UNSEEN + b")R.",
        b"\x80\x02" + _UNSEEN + b")\x81.",
        b"\x80\x04" + _UNSEEN + b")}\x92.",
        b"(" + b"itests.unit.model.test_inert\nset_off\n.",
        b"(" + _UNSEEN + b"o.",
        b"\x80\x02" + _UNSEEN + b"}X\x01\x00\x00\x00aK\x01sb.",
        b"\x80\x02" + _UNSEEN + b"K\x01a.",
        b"\x80\x04\x8c\x1ctests.unit.model.test_inert_\x8c\x07set_off\x93)R.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nq\x00N}X\x0c\x00\x00\x00__defaults__Nsb\x86b.",
        b"\x80\x02ccollections\nOrderedDict\n)R}X\x08\x00\x00\x00__init__K\x01sb.",
        b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(" + _UNSEEN + b"N)NtR.",
        b"\x80\x02X\x04\x00\x00\x00evilQ.",
        b"\x80\x02K\x01)R.",
    ],
)  # fmt: skip
def test_no_instruction_calls_sets_or_imports(tmp_path: Path, content: bytes) -> None:
    defaults = torch._utils._rebuild_tensor_v2.__defaults__
    with pytest.raises(VimDeployError) as caught:
        read_checkpoint(rewritten(tmp_path / "w.pth", content))
    assert caught.value.code == "VIM-402"
    assert not _OFF
    assert torch._utils._rebuild_tensor_v2.__defaults__ == defaults


def test_every_instruction_that_acts_is_replaced() -> None:
    acting = ("REDUCE", "NEWOBJ", "NEWOBJ_EX", "BUILD", "APPEND", "APPENDS", "SETITEM", "SETITEMS",
              "ADDITEMS", "FROZENSET", "DICT", "BINPERSID", "PERSID", "EMPTY_SET")  # fmt: skip
    for name in acting:
        code = getattr(pickle, name)[0]
        assert Unpickler.dispatch[code] is not pickle._Unpickler.dispatch[code], name


@pytest.mark.parametrize("form", [True, False])
def test_storages_hold_no_more_than_the_file(tmp_path: Path, form: bool) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.arange(4.0)}, path, _use_new_zipfile_serialization=form)
    data = path.read_bytes()
    place = data.index(b"cpu") + 3
    end = data.index(b"K\x04", place)
    if form:
        with zipfile.ZipFile(path) as archive:
            content = archive.read("w/data.pkl")
        end = content.index(b"K\x04", content.index(b"cpu"))
        rewritten(path, content[:end] + b"J\xff\xff\xff\x7f" + content[end + 2 :])
    else:
        path.write_bytes(data[:end] + b"J\xff\xff\xff\x7f" + data[end + 2 :])
    with pytest.raises(VimDeployError) as caught:
        read_checkpoint(path)
    assert caught.value.code == "VIM-402"
    assert "claim more numbers" in caught.value.why


def test_pytorch_told_to_use_its_own_reader_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "w.pth")
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(VimDeployError) as caught:
        read_checkpoint(tmp_path / "w.pth")
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" in caught.value.fix


@pytest.mark.parametrize(
    ("called", "shared"),
    [
        (b"cbuiltins\nlist\n", b"](" + b"N" * 100_000 + b"e\x85"),
        (b"c_codecs\nencode\n", b"X\xa0\x86\x01\x00" + b"a" * 100_000 + b"\x85"),
        (b"ccollections\nCounter\n",
         b"}(" + b"".join(b"I%d\nN" % n for n in range(30_000)) + b"u\x85"),
        (b"ctorch._tensor\n_rebuild_from_type_v2\n",
         b"(cbuiltins\nlist\nN](" + b"N" * 100_000 + b"e\x85Nt"),
    ],
    ids=["list", "text", "dict", "nested"],
)  # fmt: skip
def test_calls_copy_no_more_than_the_file(tmp_path: Path, called: bytes, shared: bytes) -> None:
    # One long argument, memoised, and a hundred calls of it of some bytes each.
    once = called + b"q\x000" + shared + b"q\x010"
    content = b"\x80\x02" + once + b"(" + b"h\x00h\x01R" * 100 + b"l."
    with pytest.raises(VimDeployError) as caught:
        read_checkpoint(rewritten(tmp_path / "w.pth", content))
    assert caught.value.code == "VIM-402"
    assert "larger than the file" in caught.value.why


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    "number", [np.float64(0.9), np.float32(0.5), np.int64(-3), np.uint8(200), np.bool_(1)]
)
def test_numbers_of_numpy_are_pythons(tmp_path: Path, number: Any, protocol: int) -> None:
    torch.save({"args": {"n": number}}, tmp_path / "w.pth", pickle_protocol=protocol)
    loaded, _ = unpickle.load_pickled(tmp_path / "w.pth")
    assert loaded["args"]["n"] == number.item()
    assert type(loaded["args"]["n"]) is type(number.item())
