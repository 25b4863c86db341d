"""The C++ runtime's JSON reader, hash and image preparation, compared with Python's."""

from __future__ import annotations

import hashlib
import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support import cpp, cpp_builds
from vim_deploy import images
from vim_deploy.artifact.record import record_path
from vim_deploy.specs import ImagePreparation, TensorSpec

pytestmark = pytest.mark.slow


def units(*arguments: str | Path, stdin: bytes = b"") -> Any:
    return cpp_builds.run(cpp_builds.need_program("units"), *arguments, stdin=stdin)


def parse(documents: list[bytes], name: str = "json") -> list[str]:
    """What the C++ reader says of each document."""
    stdin = b"".join(b"%d\n%s" % (len(document), document) for document in documents)
    lines = units(name, stdin=stdin).stdout.splitlines()
    assert len(lines) == len(documents)
    return lines


class Number(str):
    """A number as it stands in the document."""


def dump(value: Any) -> str:
    """The form in which ``units json`` prints a document."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, str):
        return f'"{value.encode().hex()}"'
    if isinstance(value, list):
        return "[" + ",".join(map(dump, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{dump(key)}:{dump(item)}" for key, item in value.items()) + "}"
    return {None: "null", True: "true", False: "false"}[value]


def strict(document: bytes) -> str | None:
    """Python's reading of a document in that form, made as strict as RFC 8259; None: refused."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError("a key stands twice")
        return dict(pairs)

    def constant(name: str) -> Any:
        raise ValueError(name)

    try:
        text = document.decode()
        if text.startswith("\ufeff"):
            return None
        value = json.loads(
            text,
            object_pairs_hook=unique,
            parse_constant=constant,
            parse_int=Number,
            parse_float=Number,
        )
        return dump(value)
    except (ValueError, RecursionError):
        return None  # UnicodeError, which a lone surrogate raises, is a ValueError


GOOD = [
    b"{}",
    b' [1, -0, 0.5, 1e5, 1.25E-3, -12.0e+9, true, false, null, "", [], {"a": {"b": []}}]\r\n\t',
    '{"é": "\U0001f600 ß", "\\u00e9\\ud83d\\ude00": "\\"\\\\\\/\\b\\f\\n\\r\\t"}'.encode(),
    b'"\\u0000"',
    b"[" * 32 + b"]" * 32,
]
BAD = [
    b"", b" ", b"nul", b"nullx", b"True", b"[1,]", b"[,1]", b'{"a":1,}', b"{a:1}", b"{'a':1}",
    b'{"a" 1}', b'{"a":}', b"[1 2]", b"1 2", b"01", b"-", b"+1", b".5", b"1.", b"1e", b"1e+",
    b"0x10", b"NaN", b"Infinity", b"-Infinity", b'"', b'"\\', b'"\\x"', b'"\\u12"', b'"\n"',
    b'"\\ud800"', b'"\\udc00"', b'"\\ud800\\u0041"', b'{"a":1,"a":2}', b'{"a":1,"\\u0061":2}',
    b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\xe2\x82"',
    b"\xef\xbb\xbf{}", b"[" * 33 + b"]" * 33, b"[" * 1_000_000, b'{"a":' * 100_000, b"[1]]",
    b"// x\n1", b"1\x00", b"\x00",
]  # fmt: skip


def test_json_accepts_and_refuses() -> None:
    assert [line == f"ok {strict(text)}" for text, line in zip(GOOD, parse(GOOD), strict=True)] == [
        True
    ] * len(GOOD)
    answers = parse(BAD)
    assert [text for text, line in zip(BAD, answers, strict=True) if line.startswith("ok")] == []
    assert answers[5] == "error line 1, column 4: a value was expected"
    assert "deeper than 32" in answers[BAD.index(b"[" * 1_000_000)]


def test_json_bounds_the_number_of_values() -> None:
    assert "more than 1000000 values" in parse([b"[" + b"0," * 1_000_001 + b"0]"])[0]


def test_json_agrees_with_python_on_mutated_documents(tmp_path: Path) -> None:
    record = record_path(cpp.FakeEngine().write(tmp_path)).read_bytes()
    seeds = [*GOOD[:4], record[:700], json.dumps(json.loads(record)).encode()[:900]]
    rng = random.Random(7)
    alphabet = b'{}[]",:\\u0123456789.eE+-tfn \n\x00\x80\xc3\xe2\xf0\xff'
    documents = []
    for _ in range(3000):
        text = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(text) + 1)
            text[at : at + rng.randint(0, 2)] = bytes(rng.choices(alphabet, k=rng.randint(0, 2)))
        documents.append(bytes(text))
    answers = parse(documents)
    accepted = 0
    for document, answer in zip(documents, answers, strict=True):
        expected = strict(document)
        assert (answer == f"ok {expected}") if expected else answer.startswith("error"), document
        accepted += expected is not None
    assert accepted > 100


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    found = [path]
    for key in keys:
        inner = isinstance(value[key], dict | list)
        found += places(value[key], (*path, key)) if inner else [(*path, key)]
    return found


def changed(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    """A copy of a document with something else in one place."""
    if not path:
        return other
    copy = value.copy()
    copy[path[0]] = changed(value[path[0]], path[1:], other)
    return copy


def test_mutated_records_are_read_or_refused(tmp_path: Path) -> None:
    path = record_path(cpp.FakeEngine().write(tmp_path))
    whole = json.loads(path.read_text("utf-8"))
    others = (None, True, -1, 0, 2**70, 1e999, 0.5, "x", "", [], {}, [[]], [{}], {"image": 1})
    documents, named = [], []
    for place in places(whole):
        for other in others:
            text = json.dumps(changed(whole, place, other)).replace("Infinity", "1e999")
            documents.append(text.encode())
            named.append(next((key for key in place if isinstance(key, str)), ""))
    answers = parse(documents, "records")
    refusals = [(name, line) for name, line in zip(named, answers, strict=True) if line != "ok"]
    assert len(refusals) > 500
    for name, line in refusals:
        # The reason begins with the place, or above it when a whole part is missing.
        assert line.startswith("VIM-413 ")
        assert name in line or not name, (name, line)


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 100_003])
def test_sha256(size: int, tmp_path: Path) -> None:
    data = random.Random(size).randbytes(size)
    path = tmp_path / "data"
    path.write_bytes(data)
    assert units("sha256", path).stdout.strip() == hashlib.sha256(data).hexdigest()


def prepared(
    folder: Path,
    preparation: ImagePreparation,
    mode: str,
    pictures: list[Path],
    program: Path | None = None,
) -> np.ndarray:
    """The batch that the C++ library makes of these pictures."""
    plan = cpp.FakeEngine(image=preparation, preprocess=mode).write(folder)
    program = program or cpp_builds.need_program("units")
    done = cpp_builds.run(program, "prepare", record_path(plan), folder / "out", *pictures)
    assert done.returncode == 0, done.stderr
    dtype, shape = done.stdout.split(maxsplit=1)
    sizes = [int(text) for text in re.findall(r"\d+", shape)]
    return np.fromfile(folder / "out", dtype).reshape(sizes)


def expected(preparation: ImagePreparation, mode: str, pictures: list[Path]) -> np.ndarray:
    return images.load_batch(pictures, preparation, mode)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two photographs of scikit-learn, as PPM."""
    datasets = pytest.importorskip("sklearn.datasets")
    folder = tmp_path_factory.mktemp("photographs")
    paths = []
    for number, pixels in enumerate(datasets.load_sample_images().images):
        paths.append(folder / f"{number}.ppm")
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.mark.parametrize("mode", ["uint8", "normalize", "none"])
def test_photographs_are_prepared_as_in_python(
    mode: str, photographs: list[Path], tmp_path: Path
) -> None:
    preparation = ImagePreparation(224, 224)
    found = prepared(tmp_path, preparation, mode, photographs)
    wanted = expected(preparation, mode, photographs)
    assert found.dtype == wanted.dtype
    # Bit for bit: pixels and floats.
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("interpolation", images.INTERPOLATIONS)
@pytest.mark.parametrize("size", [(32, 32, 0.875), (50, 37, 1.0), (300, 420, 0.9)])
def test_every_filter(
    interpolation: str, size: tuple[int, int, float], photographs: list[Path], tmp_path: Path
) -> None:
    pixels = np.asarray(Image.open(photographs[0]))
    parts = {"wide": pixels[:90, :400], "high": pixels[:200, 60:97], "same": pixels[:57, :42]}
    paths = []
    for name, part in parts.items():
        paths.append(tmp_path / f"{name}.ppm")
        Image.fromarray(part).save(paths[-1])
    preparation = ImagePreparation(
        size[0], size[1], crop_ratio=size[2], interpolation=interpolation
    )
    found = prepared(tmp_path, preparation, "uint8", paths)
    np.testing.assert_array_equal(found, expected(preparation, "uint8", paths))


def test_grey_and_colour(photographs: list[Path], tmp_path: Path) -> None:
    grey_file = tmp_path / "grey.pgm"
    Image.open(photographs[1]).convert("L").save(grey_file)
    for channels in (1, 3):
        preparation = ImagePreparation(
            64, 48, channels, (0.45,) * channels, (0.225,) * channels, 0.9, "bilinear"
        )
        pictures = [photographs[0], grey_file]
        found = prepared(tmp_path, preparation, "none", pictures)
        np.testing.assert_array_equal(found, expected(preparation, "none", pictures))


def test_png_and_jpeg(photographs: list[Path], tmp_path: Path) -> None:
    program = cpp_builds.need_units_with_decoders()
    picture = Image.open(photographs[0])
    alpha = picture.copy()
    alpha.putalpha(picture.convert("L"))
    preparation = ImagePreparation(64, 48)
    forms = {"rgb": picture, "alpha": alpha, "grey": picture.convert("L")}
    forms |= {"palette": picture.convert("P")}
    paths = []
    for name, image in forms.items():
        paths.append(tmp_path / f"{name}.png")
        image.save(paths[-1])
    found = prepared(tmp_path, preparation, "uint8", paths, program)
    np.testing.assert_array_equal(found, expected(preparation, "uint8", paths))
    photo = tmp_path / "photo.jpeg"
    picture.save(photo, quality=95)
    found = prepared(tmp_path, preparation, "uint8", [photo], program)
    # JPEG leaves the rounding to the decoder; this is the margin that docs/cpp.md names.
    wanted = expected(preparation, "uint8", [photo])
    assert np.abs(found.astype(int) - wanted).max() <= 2
    for name in ("rgb.png", "photo.jpeg"):
        cut = tmp_path / f"cut-{name}"
        whole = (tmp_path / name).read_bytes()
        for size in (3, 20, 60, len(whole) // 2):
            cut.write_bytes(whole[:size])
            done = cpp_builds.run(
                program, "prepare", tmp_path / "digits.plan.json", tmp_path / "o", cut
            )
            assert done.returncode == 4
            assert "VIM-411" in done.stderr


def test_header_forms(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 101, (40, 30, 3), np.uint8).tobytes()
    preparation = ImagePreparation(24, 24)
    for number, header in enumerate(
        (b"P6\n30 40\n100\n", b"P6 # made by hand\n30\t40 # size\n#\n100 ", b"P6\r\n30 40\r100\n")
    ):
        path = tmp_path / f"{number}.ppm"
        path.write_bytes(header + pixels + b"trailing")
        found = prepared(tmp_path, preparation, "uint8", [path])
        np.testing.assert_array_equal(found, expected(preparation, "uint8", [path]))


BROKEN = {
    "empty": b"",
    "text": b"this is no picture",
    "magic only": b"P6",
    "no sizes": b"P6\n",
    "no end": b"P6 1 1 255",
    "negative": b"P6 -1 1 255\nabc",
    "zero": b"P6 0 1 255\n",
    "truncated": b"P6 10 10 255\n" + bytes(299),
    "deep": b"P6 1 1 65535\n" + bytes(6),
    "zero maximum": b"P6 1 1 0\nabc",
    "bomb": b"P6 60000 60000 255\nabc",
    "overflow": b"P6 4294967297 4294967297 255\nabc",
    "digits": b"P6 " + b"9" * 5000 + b" 1 255\nabc",
    "ascii": b"P3 1 1 255\n1 2 3\n",
    "png header": b"\x89PNG\r\n\x1a\n" + bytes(30),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_pictures_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.ppm"
    path.write_bytes(BROKEN[name])
    record = record_path(cpp.FakeEngine().write(tmp_path))
    done = units("prepare", record, tmp_path / "out", path)
    assert done.returncode == 4
    assert done.stderr.startswith("error VIM-411: ")


def test_elongated_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.pgm"
    path.write_bytes(b"P5 2000000 1 255\n" + bytes(2_000_000))
    record = record_path(cpp.FakeEngine(image=ImagePreparation(224, 224)).write(tmp_path))
    done = units("prepare", record, tmp_path / "out", path)
    assert done.returncode == 4
    assert "too elongated" in done.stderr


def test_fake_record_is_what_the_engine_says() -> None:
    # The plan text and the record come from one description.
    text = cpp.FakeEngine(input=TensorSpec("image", "uint8", ("b", 32, 32, 1))).plan()
    assert b"input image uint8 -1x32x32x1\noutput logits float32 -1x10\n" in text
