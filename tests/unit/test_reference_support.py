"""The reference cases are whole, small, and told apart."""

from __future__ import annotations

import json
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data import pack_reference, round_mambavision, unpack
from tests.data.drawn import drawn
from tests.support import reference


def test_the_set_is_whole() -> None:
    names = reference.cases()
    assert len(names) == 36
    assert names[0] == "A01_middle_cls"
    assert reference.DIGITS in names
    dense = reference.dense_cases()
    assert [name[:3] for name in dense] == [*(f"D0{number}" for number in range(1, 10)), "E01"]
    detectors = reference.detector_cases()
    assert [name[:3] for name in detectors] == ["F01", "F02"]
    others = reference.mambavision_cases()
    assert [name[:3] for name in others] == ["M01", "M02"]
    for name in (*names, *dense, *detectors, *others):
        assert (reference.SMALL / f"{name}.json").is_file()
        for file in (f"{name}.pth.tar" if name in others else f"{name}.pth", f"{name}.npz"):
            assert reference.stored_path(file).is_file()
            is_packed = (reference.SMALL / f"{file}.xz").is_file()
            assert is_packed == (file not in pack_reference.PLAIN)
            assert is_packed != (reference.SMALL / file).is_file()


@pytest.mark.parametrize("contents", [b"", b"123", b"01234567", bytes(range(251))])
def test_packed_bytes_come_back(contents: bytes) -> None:
    assert unpack.unpacked(pack_reference.packed(contents)) == contents


def test_a_packed_checkpoint_is_made_once() -> None:
    name = reference.dense_cases()[0]
    path = reference.checkpoint_path(name)
    stored = (reference.SMALL / f"{name}.pth.xz").read_bytes()
    assert path.read_bytes() == unpack.unpacked(stored)
    assert reference.checkpoint_path(name) == path


def test_the_set_is_small() -> None:
    total = sum(path.stat().st_size for path in reference.SMALL.parent.rglob("*"))
    assert total <= pack_reference.MAX_TOTAL_BYTES


@pytest.mark.parametrize("name", reference.cases())
def test_arrays_have_the_recorded_shapes(name: str) -> None:
    case = reference.load_case(name)
    first = any(fnmatch(name, pattern) for pattern in pack_reference.FIRST_IMAGE_ONLY)
    assert first == (name != reference.DIGITS)
    images = case.record["input_shape"][0]
    assert images > 1
    recorded = {"image": case.record["input_shape"], **case.record["output_shapes"]}
    expected = {key: [1 if first else images, *shape[1:]] for key, shape in recorded.items()}
    arrays = {"image": case.image, **case.outputs, **case.extras}
    assert {key: list(array.shape) for key, array in arrays.items()} == expected
    assert case.image.dtype == case.output.dtype == np.float32
    assert not case.image.flags.writeable


@pytest.mark.parametrize("name", reference.dense_cases())
def test_dense_arrays_are_the_first_images_of_the_recorded_ones(name: str) -> None:
    case = reference.load_case(name)
    assert list(case.image.shape) == [1, *case.record["input_shape"][1:]]
    recorded = {key: shape[1:] for key, shape in case.record["output_shapes"].items()}
    found = {**case.outputs, **case.extras}
    left_out = {key for key in recorded if key.startswith("feature_")}
    assert bool(left_out) == name.startswith("E")
    assert set(found) == set(recorded) - left_out
    for key, array in found.items():
        size = [*recorded[key][:-2], 48, 56] if key == "slide_output" else recorded[key]
        assert list(array.shape[1:]) == size
        assert len(array) == 1
        assert array.dtype == np.float32


def test_dense_cases_have_a_configuration() -> None:
    assert reference.dense_case("D01").kwargs["embed_dim"] == 48
    assert reference.dense_case("D08").kwargs["net"]["last_layer_process"] == "add"
    assert reference.dense_case("D08").kwargs["norm"] == "LN"
    assert reference.dense_case("E01").kwargs["type"] == "EncoderDecoder"


@pytest.mark.parametrize("name", reference.mambavision_cases())
def test_mambavision_weights_have_few_bits_and_every_array_is_there(name: str) -> None:
    case = reference.load_case(name)
    state = torch.load(case.checkpoint, weights_only=True)["state_dict"]
    assert len(state) == case.record["keys"]
    for key, value in state.items():
        weight = value.numpy()
        if value.is_floating_point():
            np.testing.assert_array_equal(round_mambavision.rounded(weight), weight, key)
        many = weight.size >= round_mambavision.MANY
        assert (len(np.unique(np.abs(weight))) == 1) or not many, key
    assert list(case.image.shape) == case.record["input_shape"]
    assert list(case.output.shape) == case.record["output_shape"]
    assert set(case.extras) == {"features", *(f"level_{number}" for number in range(4))}
    assert {array.dtype.name for array in (case.image, case.output, *case.extras.values())} == {
        "float32"
    }
    pooled = case.extras["level_3"].mean((2, 3))
    assert pooled.shape == case.extras["features"].shape
    assert case.record["float64_max_abs"] < 3e-6


def test_mambavision_with_its_weights_as_they_were() -> None:
    whole, few = (load("M01_mambavision_64") for load in (reference.full_case, reference.load_case))
    assert whole.kwargs == few.kwargs
    assert len(whole.image) == 2
    assert "rounded" in few.record
    assert "rounded" not in whole.record
    found = torch.load(whole.checkpoint, weights_only=True)["state_dict"]
    kept = torch.load(few.checkpoint, weights_only=True)["state_dict"]
    assert found.keys() == kept.keys()
    for key, value in found.items():
        expected = round_mambavision.rounded(value.numpy()) if value.dim() else value.numpy()
        np.testing.assert_array_equal(kept[key].numpy(), expected, key)


def test_an_archive_is_unpacked_for_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "M01_mambavision_64.npz"
    made = tmp_path / "made" / name
    monkeypatch.setattr(sys, "argv", ["unpack", name, "-o", str(made)])
    unpack.main()
    assert made.read_bytes() == reference.stored_path(name).read_bytes()


def test_blocks_and_factory() -> None:
    assert reference.load_case("A01_middle_cls").blocks == (0, 1, 2)
    assert reference.load_case("A02_head_cls").blocks == ()
    assert reference.load_case("A02_head_cls").factory == ""


def test_full_size_case_is_skipped_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(reference.REFERENCE_VARIABLE, str(tmp_path))
    reference.load_case.cache_clear()
    with pytest.raises(pytest.skip.Exception, match=reference.REFERENCE_VARIABLE):
        reference.load_case(reference.FULL_SIZE)


def test_packing_gives_the_same_bytes_and_keeps_the_contents(tmp_path: Path) -> None:
    source, packed = tmp_path / "source", tmp_path / "packed"
    source.mkdir()
    record = {"seed": 7, "input_shape": [2, 3, 8, 8], "output_shapes": {}}
    stored = {"image": drawn(record, "image"), "output": np.arange(3)[None]}
    np.savez(source / "A99_case.npz", **stored)
    np.savez(source / "vim_digits.npz", **stored)
    (source / "A99_case.json").write_text(json.dumps(record))
    (source / "B01_other.json").write_text("{}")
    pack_reference.pack(source, packed)
    first = {path.name: path.read_bytes() for path in packed.iterdir()}
    pack_reference.pack(source, packed)
    assert {path.name: path.read_bytes() for path in packed.iterdir()} == first
    assert set(first) == {"A99_case.npz.xz", "A99_case.json", "vim_digits.npz"}
    for case, kept in (("A99_case", {"output"}), ("vim_digits", {"image", "output"})):
        arrays = reference.arrays_of(packed / f"{case}.npz")
        assert arrays.keys() == kept
        for key, array in arrays.items():
            np.testing.assert_array_equal(array, stored[key])
    with zipfile.ZipFile(packed / "vim_digits.npz") as archive:
        kinds = {entry.compress_type for entry in archive.infolist()}
    assert kinds == {zipfile.ZIP_DEFLATED}


def test_a_picture_that_is_no_noise_of_the_seed_is_not_left_out(tmp_path: Path) -> None:
    record = {"seed": 8, "input_shape": [2, 3, 8, 8], "output_shapes": {}}
    np.savez(tmp_path / "A99_case.npz", image=drawn(record | {"seed": 7}, "image"))
    (tmp_path / "A99_case.json").write_text(json.dumps(record))
    with pytest.raises(SystemExit, match="A99_case: image is not the noise of seed 8"):
        pack_reference.pack(tmp_path, tmp_path / "packed")


def test_a_packed_checkpoint_is_smaller_and_means_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = torch.arange(12.0).reshape(3, 4)
    stored = {"model": {"a": shared, "b": shared.t(), "c": torch.ones(2, dtype=torch.int64)}}
    monkeypatch.setattr(pack_reference, "PLAIN", ("A99_case.pth", "vim_digits.pth"))
    for case in ("A99_case", "vim_digits"):
        torch.save(stored, tmp_path / f"{case}.pth")
    pack_reference.pack(tmp_path, tmp_path / "packed")
    sizes = {path.stem: path.stat().st_size for path in (tmp_path / "packed").iterdir()}
    assert sizes["A99_case"] < sizes["vim_digits"] < (tmp_path / "vim_digits.pth").stat().st_size
    for case, folder in (("A99_case", "w"), ("vim_digits", "vim_digits")):
        packed = tmp_path / "packed" / f"{case}.pth"
        found = torch.load(packed, weights_only=True)["model"]
        assert found.keys() == stored["model"].keys()
        for name, tensor in stored["model"].items():
            assert found[name].dtype == tensor.dtype
            assert found[name].stride() == tensor.stride()
            assert torch.equal(found[name], tensor)
        assert found["a"].data_ptr() == found["b"].data_ptr()
        with zipfile.ZipFile(packed) as archive:
            assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
            names = [name.partition("/") for name in archive.namelist()]
        assert {name[0] for name in names} == {folder}
        not_needed = set(pack_reference.NOT_NEEDED) & {name[2] for name in names}
        assert bool(not_needed) == (case == "vim_digits")


def test_the_committed_checkpoints_are_packed() -> None:
    for name in (*reference.cases(), *reference.dense_cases(), *reference.detector_cases()):
        if name not in pack_reference.BYTES_STAY:
            with zipfile.ZipFile(reference.checkpoint_path(name)) as archive:
                assert f"{pack_reference.FOLDER}/data.pkl" in archive.namelist()


def test_of_most_cases_the_first_image_is_packed(tmp_path: Path) -> None:
    arrays = {name: np.arange(12.0).reshape(2, 6) for name in ("image", "output", "feature_0")}
    for case in ("vim_digits", "D02_first", "E01_network"):
        np.savez(tmp_path / f"{case}.npz", **arrays)
    pack_reference.pack(tmp_path, tmp_path / "packed")
    both = reference.arrays_of(tmp_path / "packed" / "vim_digits.npz")
    first = reference.arrays_of(tmp_path / "packed" / "D02_first.npz")
    network = reference.arrays_of(tmp_path / "packed" / "E01_network.npz")
    assert both.keys() == first.keys() == arrays.keys()
    assert network.keys() == {"image", "output"}
    np.testing.assert_array_equal(both["image"], arrays["image"])
    np.testing.assert_array_equal(first["image"], arrays["image"][:1])
    np.testing.assert_array_equal(network["output"], arrays["output"][:1])


def test_nothing_to_pack_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no reference cases"):
        pack_reference.pack(tmp_path, tmp_path / "packed")
