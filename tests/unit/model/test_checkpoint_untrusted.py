"""Damaged and hostile checkpoints: a coded error, and nothing in the file runs."""

from __future__ import annotations

import argparse
import builtins
import io
import pickle
import random
import tarfile
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vim_deploy.errors import VimDeployError
from vim_deploy.model import checkpoint, unpickle
from vim_deploy.model.checkpoint import read_checkpoint


class Payload:
    """Unpickling this creates the file ``target``."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return builtins.open, (str(self.target), "w")


def error_of(path: Path) -> VimDeployError:
    with pytest.raises(VimDeployError) as caught:
        read_checkpoint(path)
    assert caught.value.fix
    return caught.value


def tensors() -> dict[str, torch.Tensor]:
    return {"a": torch.arange(64.0)}


def zip_format(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def legacy_format(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def in_tar(value: object) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in (("storages", b""), ("pickle", pickle.dumps(value, protocol=2))):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


FORMATS = {
    "zip": zip_format,
    "legacy": legacy_format,
    "tar": in_tar,
    "tar of legacy": lambda value: in_tar_file(legacy_format(value)),
    "legacy, then a harmless zip": lambda value: before_a_harmless_zip(value),
    "pickle 0": lambda value: pickle.dumps(value, protocol=0),
    "pickle 4": lambda value: pickle.dumps(value, protocol=4),
    "zip with pickle 4": lambda value: zip_of_pickle(pickle.dumps(value, protocol=4)),
}


def before_a_harmless_zip(value: object) -> bytes:
    return legacy_format(value) + zip_format(tensors())


def in_tar_file(content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("model.pth")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def zip_of_pickle(content: bytes) -> bytes:
    source, result = io.BytesIO(zip_format(tensors())), io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(result, "w") as new:
        for member in old.infolist():
            is_pickle = member.filename.endswith("data.pkl")
            new.writestr(member.filename, content if is_pickle else old.read(member))
    return result.getvalue()


def test_the_payload_works_where_pickles_are_trusted(tmp_path: Path) -> None:
    target = tmp_path / "made"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        pickle.loads(pickle.dumps(Payload(target))).close()
    assert target.exists()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("place", ["alone", "weights", "args", "optimizer"])
def test_payload_is_named_and_never_runs(tmp_path: Path, form: str, place: str) -> None:
    target = tmp_path / "made"
    payload = Payload(target)
    value = {
        "alone": payload,
        "weights": {"model": {"a": payload}},
        "args": {"model": {}, "args": argparse.Namespace(model=payload)},
        "optimizer": {"model": {}, "optimizer": [payload]},
    }[place]
    path = tmp_path / "w.pth"
    path.write_bytes(FORMATS[form](value))
    error = error_of(path)
    assert error.code == "VIM-403"
    assert "io.open" in error.why
    assert not target.exists()


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_second_wall_alone_refuses_too(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpickle, "_refuse_code", lambda path, stream: None)
    target, path = tmp_path / "made", tmp_path / "w.pth"
    path.write_bytes(FORMATS[form]({"a": Payload(target)}))
    assert error_of(path).code == "VIM-403"
    assert not target.exists()


def test_names_that_others_allowed_in_this_process_stay_refused(tmp_path: Path) -> None:
    target, path = tmp_path / "made", tmp_path / "w.pth"
    path.write_bytes(zip_format({"a": Payload(target)}))
    with torch.serialization.safe_globals([builtins.open]):
        assert error_of(path).code == "VIM-403"
    assert not target.exists()


@pytest.mark.parametrize("form", ["zip", "legacy", "zip with pickle 4"])
def test_a_whole_pickled_module_gives_its_weights_and_is_not_made(
    tmp_path: Path, form: str
) -> None:
    path, linear = tmp_path / "w.pth", torch.nn.Linear(2, 2)
    network = torch.nn.Sequential(linear, torch.nn.BatchNorm1d(2))
    if form == "zip with pickle 4":
        torch.save(network, path, pickle_protocol=4)
    else:
        path.write_bytes(FORMATS[form](network))
    found = read_checkpoint(path)
    assert found.state_dict.keys() == network.state_dict().keys()
    assert torch.equal(found.state_dict["0.weight"], linear.weight)
    assert any("torch.nn.modules.linear.Linear" in note for note in found.notes)


def test_torchscript_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/constants.pkl", b"x")
        archive.writestr("w/data.pkl", b"x")
    error = error_of(path)
    assert error.code == "VIM-402"
    assert "TorchScript" in error.why


def test_a_harmless_tar_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(in_tar({"epoch": 1}))
    error = error_of(path)
    assert error.code == "VIM-402"
    assert "tar" in error.why


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"hello, I am a text file\n", "torch.save"),
        (b"import torch, io\nvalue = torch.ones(3)\nprint(value)\n", "torch.save"),
        (b"\n<!DOCTYPE html><html></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "LFS"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "torch.save"),
        (bytes(4096), "torch.save"),
        (b"PK\x03\x04" + bytes(60), "zip"),
        (pickle.dumps([1, 2], protocol=2), "torch.save"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, word: str) -> None:
    for suffix in ("pth", "safetensors"):
        path = tmp_path / f"w.{suffix}"
        path.write_bytes(content)
        error = error_of(path)
        assert error.code == "VIM-402"
        assert str(path) in error.message
        assert suffix == "safetensors" or word in error.why


def test_zip_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")
    error = error_of(path)
    assert error.code == "VIM-402"
    assert "torch.save" in error.why


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_truncated(tmp_path: Path, form: str) -> None:
    path = tmp_path / "w.pth"
    if form == "safetensors":
        save_file(tensors(), path)
        whole = path.read_bytes()
    else:
        whole = FORMATS[form]({"model": tensors()})
    for length in (1, 7, 8, 9, 64, len(whole) // 2, len(whole) - 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert error_of(path).code == "VIM-402", length


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_damaged_bytes_never_escape_as_another_error(tmp_path: Path, form: str) -> None:
    whole = FORMATS[form]({"model": tensors(), "args": argparse.Namespace(x=1)})
    path = tmp_path / "w.pth"
    numbers = random.Random(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(numbers.randint(1, 4)):
            damaged[numbers.randrange(min(len(whole), 900))] = numbers.randrange(256)
        path.write_bytes(damaged)
        try:
            read_checkpoint(path)
        except VimDeployError as error:
            assert error.code in ("VIM-402", "VIM-403", "VIM-404", "VIM-405")  # noqa: PT017
            refused += 1
    assert refused > 20


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_members_are_refused(tmp_path: Path, method: int) -> None:
    """torch.save never compresses, and a few megabytes can unpack to any amount of memory."""
    source, path = io.BytesIO(zip_format({"model": tensors()})), tmp_path / "w.pth"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.infolist():
            last = member.filename.endswith("/0")
            new.writestr(member.filename, old.read(member),
                         compress_type=method if last else zipfile.ZIP_STORED)  # fmt: skip
    error = error_of(path)
    assert error.code == "VIM-402"
    assert "never compresses" in error.why
    assert "torch.save" in error.fix


def test_members_that_claim_more_than_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    data = bytearray(zip_format({"model": tensors()}))
    # Every entry of the directory is made to say that its member has a gigabyte.
    at = data.find(b"PK\x01\x02")
    while at >= 0:
        data[at + 20 : at + 28] = (1 << 30).to_bytes(4, "little") * 2
        at = data.find(b"PK\x01\x02", at + 4)
    path.write_bytes(data)
    error = error_of(path)
    assert error.code == "VIM-402"
    assert "claim to hold" in error.why


@pytest.mark.parametrize("filler", [b"N0", b"]0", b"K\x000", b"(1"])
def test_a_pickle_of_cheap_instructions_is_not_followed_for_ever(
    tmp_path: Path, filler: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpickle, "MAX_INSTRUCTIONS", 10_000)
    content = b"\x80\x02" + filler * 10_000 + b"}."
    for form, data in (("legacy", content), ("zip", zip_of_pickle(content))):
        path = tmp_path / f"{form}.pth"
        path.write_bytes(data)
        error = error_of(path)
        assert error.code == "VIM-402"
        assert "instructions" in error.why


def test_instructions_of_the_largest_file_are_far_below_the_limit(tmp_path: Path) -> None:
    """Vim-Base with its average and two moments: 24 blocks of 21 tensors, four times."""
    weights = {f"layers.{block}.mixer.some.long.name.{number}": torch.zeros(1)
               for block in range(24) for number in range(21)}  # fmt: skip
    value = {"model": weights, "model_ema": weights,
             "optimizer": {"state": {key: {"exp_avg": tensor.clone(), "exp_avg_sq": tensor.clone()}
                                     for key, tensor in weights.items()}}}  # fmt: skip
    stream = io.BytesIO(zip_format(value))
    with zipfile.ZipFile(stream) as archive, archive.open("archive/data.pkl") as pickled:
        count = unpickle._imported_names(pickled, unpickle.MAX_INSTRUCTIONS)[2]
    assert 20 * count < unpickle.MAX_INSTRUCTIONS


@pytest.mark.parametrize("moment", ["hash", "load"])
def test_a_file_replaced_while_it_is_read_is_noticed(
    tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hash of one file must never be recorded for the weights of another."""
    path, other = tmp_path / "w.pth", tmp_path / "other.pth"
    path.write_bytes(zip_format({"model": tensors()}))
    other.write_bytes(zip_format({"model": {"a": torch.ones(64)}}))
    name = {"hash": "sha256_of", "load": "_load"}[moment]
    original = getattr(checkpoint, name)

    def replaced(place: Path) -> object:
        result = original(place)
        other.replace(place)
        return result

    monkeypatch.setattr(checkpoint, name, replaced)
    assert error_of(path).code == "VIM-439"


def test_stored_values_that_nothing_can_be_made_of_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    stored = {"good": 1, "text": "ok", "half": "\ud800", "nan": float("nan"), "huge": 1 << 500,
              "\udfff": 1, "rate": 0.1}  # fmt: skip
    path.write_bytes(zip_format({"model": tensors(), "args": stored, "meta": {**stored,
                                 "CLASSES": ("a", "\ud800"), "PALETTE": [[1, 2, 3]]}}))  # fmt: skip
    found = read_checkpoint(path)
    assert found.args == {"good": 1, "text": "ok", "rate": 0.1}
    assert set(found.meta) == {"good", "text", "rate", "PALETTE"}


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(zip_format({"a": torch.zeros(1), "\ud800": torch.zeros(1)}))
    assert error_of(path).code == "VIM-402"


def test_huge_pickle_inside_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(zip_format({"model": tensors()}))
    monkeypatch.setattr(unpickle, "MAX_PICKLE_BYTES", 10)
    assert error_of(path).code == "VIM-402"


def test_shape_beyond_the_stored_numbers(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(zip_format({"a": torch.zeros(1).expand(1 << 40)}))
    error = error_of(path)
    assert error.code == "VIM-402"
    assert "claims shape" in error.why


def test_a_tar_archive_that_leads_back_to_itself(tmp_path: Path) -> None:
    """A member of negative size: the reader met the same one for ever (CVE-2025-8194)."""

    def header(name: str, size: int) -> bytes:
        block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
        if size < 0:
            block[124:136] = b"\xff" + (256**11 + size).to_bytes(11, "big")
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        return bytes(block)

    path = tmp_path / "a.pth"
    path.write_bytes(header("a", 0) + header("b", -512) + bytes(1024))
    with pytest.raises(VimDeployError) as caught:
        read_checkpoint(path)
    assert caught.value.code == "VIM-402"


def test_a_zip_archive_with_two_tables_of_contents(tmp_path: Path) -> None:
    """Python reads the one before the end record, PyTorch the one that the record points to."""
    data = zip_format(tensors())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start = archive.start_dir
    size = int.from_bytes(data[-10:-6], "little")
    table = data[start : start + size]
    path = tmp_path / "a.pth"
    path.write_bytes(data)
    read_checkpoint(path)
    for other in (data[: start + size] + table + data[start + size :], data[:-2] + b"\x01\0c"):
        path.write_bytes(other)
        with pytest.raises(VimDeployError) as caught:
            read_checkpoint(path)
        assert caught.value.code == "VIM-402"
