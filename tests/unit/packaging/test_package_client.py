"""client.py: pictures prepared as everywhere else, answers read, differences noticed."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tests.support.engines import EXPORT
from tests.support.packages import SERVED, classifier, names_of
from tests.support.pictures import DEEP, shallow
from vim_deploy.errors import VimDeployError
from vim_deploy.heads import find
from vim_deploy.images import crop_from_file, load_batch
from vim_deploy.packaging.manifest import read_manifest
from vim_deploy.scene.classifying import top_predictions
from vim_deploy.specs import ImagePreparation
from vim_deploy.stages import package
from vim_deploy.threads import no_warnings

pytest.importorskip("onnxruntime")

SMALL = ImagePreparation(12, 16)
#: What a manifest says of a model that takes bytes.
BYTES = {"image": dataclasses.asdict(SMALL), "preprocess": "uint8", "input": {"dtype": "uint8"}}


@pytest.fixture(scope="module")
def client() -> SimpleNamespace:
    return names_of(SERVED / "client.py")


@pytest.mark.parametrize("mode", ["none", "normalize", "uint8"])
@pytest.mark.parametrize("size", [(40, 30), (17, 90), (64, 512), (224, 224), (13, 13)])
@pytest.mark.parametrize("kind", ["RGB", "L", "RGBA", "P"])
def test_pictures_are_those_of_vim_deploy(
    client: SimpleNamespace, tmp_path: Path, mode: str, size: tuple[int, int], kind: str
) -> None:
    how = ImagePreparation(12, 16, crop_ratio=0.875)
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path = tmp_path / "picture.png"
    PIL.Image.fromarray(pixels).convert(kind).save(path)
    dtype = "uint8" if mode == "uint8" else "float32"
    facts = {
        "image": dataclasses.asdict(how),
        "preprocess": mode,
        "input": {"dtype": dtype},
    }
    np.testing.assert_array_equal(
        client.prepare(path, facts),
        load_batch([path], how, mode)[0],  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("name", DEEP)
def test_what_has_more_than_eight_bits_is_refused(
    client: SimpleNamespace, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(DEEP[name])
    with pytest.raises(ValueError, match="more than 8 bits a channel"):
        client.prepare(tmp_path / name, BYTES)


@pytest.mark.parametrize("name", shallow())
def test_other_kinds_of_pictures_are_those_of_vim_deploy(
    client: SimpleNamespace, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(shallow()[name])
    with no_warnings():
        pixels = client.prepare(tmp_path / name, BYTES)
    np.testing.assert_array_equal(pixels, crop_from_file(tmp_path / name, SMALL))


@pytest.mark.parametrize("head", ["logits", "softmax", "topk:2"])
def test_the_best_classes_are_those_of_vim_deploy(client: SimpleNamespace, head: str) -> None:
    generator = np.random.default_rng(2)
    scores = generator.random((3, 4)).astype(np.float32)
    outputs = {"logits": scores} if head == "logits" else {"probabilities": scores}
    if head.startswith("topk"):
        outputs["classes"] = np.array([[3, 1, 0, 2]] * 3)
    labels = ["a", "b", "c"]
    wanted = top_predictions(find(head, dense=False), outputs, labels, 2)
    for row in range(3):
        found = client.best(outputs, row, {"head": head, "labels": labels}, 2)
        assert [(i, label) for i, label, _ in found] == [(p.index, p.label) for p in wanted[row]]
        np.testing.assert_allclose(
            [score for _, _, score in found], [p.probability for p in wanted[row]]
        )
    assert client.best({"features": scores}, 0, {"head": "features", "labels": []}, 2) == []


def test_one_logit_is_that_of_the_second_class(client: SimpleNamespace) -> None:
    outputs = {"logits": np.array([[1.5], [-3.0]], np.float32)}
    wanted = top_predictions(find("logits", dense=False), outputs, ["no", "yes"], None)
    assert [[p.label for p in row] for row in wanted] == [["yes", "no"], ["no", "yes"]]
    for row in range(2):
        found = client.best(outputs, row, {"head": "logits", "labels": ["no", "yes"]}, 5)
        assert found == [(p.index, p.label, p.probability) for p in wanted[row]]


def test_differences(client: SimpleNamespace) -> None:
    limits = {"atol": 1e-4, "rtol": 0.0, "relative_l2": None, "same_integers": True}
    a = np.zeros((2, 3), np.float32)
    assert client.difference("x", a, a + 5e-5, limits) == []
    assert "differs by up to" in client.difference("x", a, a + 2e-4, limits)[0]
    for stray in (np.nan, np.inf, -np.inf):
        sick = np.full_like(a, stray)
        assert "answered values are NaN or Inf" in client.difference("x", a, sick, limits)[0]
        assert "NaN or Inf" in client.difference("x", sick, sick, limits)[0]
    assert "no values" in client.difference("x", a[:0], a[:0], limits)[0]
    nothing = {**limits, "atol": None}
    assert "limits no difference" in client.difference("x", a, a + 9, nothing)[0]
    assert "type" in client.difference("x", a, a.astype(np.int64), limits)[0]
    assert "shape" in client.difference("x", a, a[:1], limits)[0]
    half = {"atol": None, "rtol": 0.0, "relative_l2": 0.1, "same_integers": True}
    one = np.ones((2, 3), np.float32)
    assert client.difference("x", one, one * 1.05, half) == []
    assert client.difference("x", one, one * 1.2, half)
    whole = np.arange(3)
    assert client.difference("x", whole, whole, limits) == []
    assert "1 of 3" in client.difference("x", whole, np.array([0, 1, 1]), limits)[0]


def test_an_answer_without_numbers_is_a_failure(
    client: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = read_manifest(package(classifier(tmp_path / "m.onnx"), tmp_path / "made").folder).about
    pictures = [tmp_path / f"{name}.png" for name in "abc"]
    for picture in pictures:
        PIL.Image.fromarray(np.zeros((4, 4), np.uint8)).save(picture)
    logits = np.zeros((3, 4), np.float32)
    logits[1, 2] = np.nan
    options = SimpleNamespace(pictures=pictures, batch=8, top=1, json=True)
    model = SimpleNamespace(infer=lambda images: {"logits": logits})
    assert client.run(model, facts, options) == 1
    out, err = capsys.readouterr()
    shown = [json.loads(line, parse_constant=pytest.fail)["picture"] for line in out.splitlines()]
    assert shown == [str(pictures[0]), str(pictures[2])]
    assert "b.png: the model gives NaN or Inf: 1 values of logits" in err
    for wrong in (logits[:1], logits[0, 0], logits[:, :0], None):
        sick = SimpleNamespace(infer=lambda images, wrong=wrong: {"logits": wrong})
        with pytest.raises(client.ServerError, match="for 3 pictures"):
            client.run(sick, facts, options)


@pytest.mark.parametrize(
    "words", [("--batch", "0"), ("--top", "-1"), ("--top", "9" * 400), ("--batch", "\u0663"),
              ("--timeout", "nan"), ("--timeout", "inf"), ("--timeout", "0")]
)  # fmt: skip
def test_numbers_nobody_can_mean_are_usage_errors(
    client: SimpleNamespace, words: tuple[str, str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        client.main(["--check", *words])
    assert caught.value.code == 2


def test_the_protocol_round_trip(client: SimpleNamespace) -> None:
    facts = {"input": {"name": "image"}}
    images = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    body, length = client.encode(facts, images)
    header = json.loads(body[:length])
    assert header["inputs"][0]["datatype"] == "UINT8"
    assert body[length:] == images.tobytes()
    values = np.arange(4, dtype=np.float32)
    output = {"name": "y", "datatype": "FP32", "shape": [2, 2]}
    text = json.dumps({"outputs": [{**output, "parameters": {"binary_data_size": 16}}]}).encode()
    found = client.decode({client.HEADER_LENGTH: str(len(text))}, text + values.tobytes())
    np.testing.assert_array_equal(found["y"], values.reshape(2, 2))
    text = json.dumps({"outputs": [{**output, "data": [0, 1, 2, 3]}]}).encode()
    np.testing.assert_array_equal(
        client.decode({client.HEADER_LENGTH: None}, text)["y"], values.reshape(2, 2)
    )


def test_without_a_server_it_says_so(tmp_path: Path) -> None:
    made = package(classifier(tmp_path / "m.onnx"), tmp_path / "made").folder
    picture = tmp_path / "p.png"
    PIL.Image.fromarray(np.zeros((4, 4), np.uint8)).save(picture)
    for words in (["--check"], [str(picture)]):
        done = subprocess.run(
            [sys.executable, made / "client.py", "--url", "127.0.0.1:1", *words],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr
    assert read_manifest(made).about["labels"] == list(EXPORT.labels)


def facts_of(how: ImagePreparation) -> dict[str, Any]:
    return {"image": dataclasses.asdict(how), "preprocess": "uint8", "input": {"dtype": "uint8"}}


def jpeg_of_many_scans() -> bytes:
    stream = io.BytesIO()
    PIL.Image.new("RGB", (32, 32), 9).save(stream, "JPEG", progressive=True)
    whole = stream.getvalue()
    first = whole.index(b"\xff\xda")
    second = whole.index(b"\xff\xc4", first)
    return whole[:second] + whole[first:second] * 80 + b"\xff\xd9"


def png_of(width: int, height: int, mode: str = "L") -> bytes:
    stream = io.BytesIO()
    PIL.Image.new(mode, (width, height)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (jpeg_of_many_scans(), "scans"),
        (png_of(100_000, 1), "elongated"),
        (png_of(10_000, 8_000), "pixels in"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n", "identify"),
    ],
)
def test_a_picture_that_asks_for_much_is_refused_as_in_vim_deploy(
    client: SimpleNamespace, tmp_path: Path, data: bytes, why: str
) -> None:
    path = tmp_path / "picture"
    path.write_bytes(data)
    how = ImagePreparation(224, 224, crop_ratio=0.875)
    with pytest.raises((ValueError, OSError), match=why):
        client.prepare(path, facts_of(how))
    with pytest.raises(VimDeployError) as caught:
        load_batch([path], how, "uint8")
    assert caught.value.code == "VIM-411"


def test_texts_of_others_do_not_move_the_terminal(
    client: SimpleNamespace, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    facts = {"head": "logits", "labels": ["a\x1b]0;PWN\x07", "b\x9b2J"]}
    outputs = {"logits": np.array([[1.0, 2.0]], np.float32)}
    options = SimpleNamespace(top=2, json=False)
    client.show(Path("x\x1b[2Jy.png"), outputs, 0, facts, options)
    shown = capsys.readouterr().out
    assert "\\x1b]0;PWN\\x07" in shown
    assert shown.replace("\t", "").replace("\n", "").isprintable()
    missing = SimpleNamespace(pictures=[tmp_path / "z\x1b[2J.png"], batch=1, top=1, json=False)
    shape = {"input": {"shape": ["batch", 2]}, "max_batch": 8}
    assert client.run(None, {**facts, **facts_of(ImagePreparation(8, 8)), **shape}, missing) == 1
    assert "\x1b" not in capsys.readouterr().err
