"""Archives of arrays from strangers: what is read, what is refused, how much memory it takes."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vim_deploy import npz
from vim_deploy.errors import VimDeployError


def bad(why: str) -> VimDeployError:
    return VimDeployError("VIM-414", "bad", why=why)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    stream = io.BytesIO()
    described = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, described)
    return stream.getvalue()


def packed(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / "a.npz"
    arrays = {"image": np.arange(12.0).reshape(3, 4), "labels": np.array([1, 2]),
              "half": np.float16([[1]]), "empty": np.zeros((0, 3)), "one": np.array(5)}  # fmt: skip
    save(path, **arrays)
    with npz.opened_npz(path, bad) as archive:
        assert sorted(archive.names) == sorted(arrays)
        for name, array in arrays.items():
            found = archive.read(name)
            assert found.dtype == array.dtype
            assert np.array_equal(found, array)


def pickled() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.array([{"a": 1}], dtype=object))
    return stream.getvalue()


def duplicate() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.npy", npy(np.array(1)))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.npy", npy(np.array(2)))
    return stream.getvalue()


GOOD = packed({"a.npy": npy(np.arange(1000.0))})
HOSTILE = {
    "empty": (b"", "zip"),
    "text": (b"not an archive", "zip"),
    "a single array": (npy(np.arange(3)), "zip"),
    "cut off": (GOOD[:-30], "zip"),
    "a byte changed": (GOOD[:3000] + bytes([GOOD[3000] ^ 1]) + GOOD[3001:], "CRC"),
    "pickled objects": (pickled(), "not numbers"),
    "text arrays": (packed({"a.npy": npy(np.array(["x"]))}), "not numbers"),
    "other files": (packed({"evil.sh": b"x"}), "no .npy"),
    "a name twice": (duplicate(), "twice"),
    "lzma": (packed({"a.npy": npy(np.arange(9))}, zipfile.ZIP_LZMA), "as NumPy does not"),
    "many members": (packed({f"{i}.npy": b"" for i in range(4097)}), "members"),
    "no header": (packed({"a.npy": b"hello"}), "magic"),
    "a header that is no literal": (
        packed({"a.npy": b"\x93NUMPY\x01\x00\x76\x00" + b"(" * 117 + b"\n"}), "EOF|header",
    ),
    "a shape beyond the file": (packed({"a.npy": header((1 << 40,))}), "more than the file stores"),
    "an absurd shape": (packed({"a.npy": header((1 << 62, 1 << 62))}), "more than the file stores"),
    "version 9": (packed({"a.npy": b"\x93NUMPY\x09\x00"}), r"format|version"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_archive_of_numbers_is_refused_in_words(tmp_path: Path, name: str) -> None:
    content, why = HOSTILE[name]
    path = tmp_path / "a.npz"
    path.write_bytes(content)

    def read_all() -> None:
        with npz.opened_npz(path, bad) as archive:
            for entry in archive.names:
                archive.read(entry)

    with pytest.raises(VimDeployError, match=f"(?i){why}") as caught:
        read_all()
    assert caught.value.why


def test_what_unpacks_to_far_more_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.zeros(npz.FREE_BYTES // 8 - 100), b=np.zeros(1000))
    with (
        pytest.raises(VimDeployError, match="claim to unpack"),
        npz.opened_npz(path, bad) as archive,
    ):
        archive.read("a")


def test_a_member_gives_no_more_than_it_claims(tmp_path: Path) -> None:
    """The directory says a kilobyte, the compressed data hold a hundred megabytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header((100 << 20,), "|u1") + bytes(100 << 20))
    data = bytearray(stream.getvalue())
    directory = data.index(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = (1024).to_bytes(4, "little")
    path = tmp_path / "a.npz"
    path.write_bytes(data)
    with (
        pytest.raises(VimDeployError, match=r"CRC|more than the file stores"),
        npz.opened_npz(path, bad) as found,
    ):
        found.read("a")
