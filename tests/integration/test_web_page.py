"""Pages in headless Chromium: what they answer and ask for, what hostile texts do to them."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tests.support import reference, web
from tests.support.browser import NAMES, Browser, browser, find_browser
from tests.support.engines import EXPORT
from tests.support.packages import classifier
from tests.support.scenes import export_e01
from vim_deploy.packaging.manifest import read_manifest
from vim_deploy.scene.records import RunOptions
from vim_deploy.stages import export, package, run
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.packaging import PackageOptions

pytestmark = pytest.mark.skipif(
    find_browser() is None, reason=f"no browser on the PATH ({', '.join(NAMES)})"
)

#: Width and height of a phone's window in CSS pixels.
PHONE = (390, 844)
COUNT = 20
#: Of a probability, whose logits may be 1e-4 apart.
BOUND = 1e-4
_LOADED = "['ready', 'failed'].includes(document.getElementById('page')?.dataset.state)"
_STATE = "document.getElementById('page').dataset.state"
_ANSWER = "document.getElementById('answer').dataset.answer"
_ERROR = "document.getElementById('error').textContent"


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    """One browser for all tests."""
    program = find_browser()
    assert program is not None
    with browser(program) as running:
        yield running


@pytest.fixture(scope="module")
def runtime(pytestconfig: pytest.Config) -> Path:
    """The files of onnxruntime-web."""
    return web.runtime_of(pytestconfig)


def page_of(model: Path, runtime: Path) -> Path:
    """The package of a model."""
    return package(model, options=PackageOptions(target="web", web_runtime=runtime)).folder


@pytest.fixture(scope="module")
def digits(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The digits model and its package."""
    folder = tmp_path_factory.mktemp("digits")
    options = ExportOptions(standalone=True, check=False)
    model = export("vim-digits", folder / "digits.onnx", options).path
    return model, page_of(model, runtime)


def opened(window: Browser, address: str, **options: Any) -> None:
    """Show a page and wait until its model is there."""
    window.open(address, *PHONE, phone=True, **options)
    window.until(_LOADED)
    assert window.ask(_STATE) == "ready", window.ask(_ERROR)


def answer(window: Browser, picture: Path) -> dict[str, Any]:
    """What the page says of a picture."""
    window.choose("#picture", picture)
    window.until(f"document.getElementById('page').dataset.file === {json.dumps(picture.name)}")
    assert window.ask(_STATE) == "done", window.ask(_ERROR)
    found: dict[str, Any] = json.loads(window.ask(_ANSWER))
    assert found["file"] == picture.name
    return found


def refusal(window: Browser, picture: Path) -> str:
    """Why a page does not take a picture."""
    window.choose("#picture", picture)
    window.until(f"document.getElementById('page').dataset.file === {json.dumps(picture.name)}")
    assert window.ask(_STATE) == "failed"
    assert window.ask("document.getElementById('answer').hidden")
    return str(window.ask(_ERROR))


def digit_pictures(folder: Path) -> list[Path]:
    """The first test digits as files of several kinds and sizes."""
    case = reference.load_case(reference.DIGITS)
    made = []
    for number, image in enumerate(case.image[:COUNT]):
        pixels = np.rint((image[0] * 0.5 + 0.5) * 255).clip(0, 255).astype(np.uint8)
        drawn = PIL.Image.fromarray(pixels)
        if number % 4 == 1:
            drawn = drawn.resize((61 + number, 47 + 2 * number))
        if number % 4 == 2:
            drawn = drawn.convert("RGB")
        kind = ("png", "bmp", "gif", "webp")[number % 4]
        path = folder / f"{number:02}.{kind}"
        drawn.save(path, **({"lossless": True} if kind == "webp" else {}))
        made.append(path)
    return made


def test_twenty_digits_are_those_of_run(
    digits: tuple[Path, Path], window: Browser, tmp_path: Path
) -> None:
    model, folder = digits
    pictures = digit_pictures(tmp_path)
    wanted = run(model, pictures, RunOptions())
    with web.served(folder) as (address, asked):
        opened(window, address)
        for picture, image in zip(pictures, wanted.images, strict=True):
            found = answer(window, picture)
            assert found["top"][0]["index"] == image.top[0].index
            shares = {item["index"]: item["share"] for item in found["top"]}
            for item in image.top:
                # Classes beyond the fifth have shares that may change places.
                assert shares.get(item.index, 0) == pytest.approx(item.probability, abs=BOUND)
            assert found["top"][0]["label"] == image.top[0].label
            assert len(found["times"]) == 1
            assert found["times"][0] > 0
    # Nothing but the page's own files was asked for, each of them once, and nothing complained.
    own = {address + name for name in read_manifest(folder).files}
    assert set(window.requests) - {address} - own == set()
    assert len(asked) == len(set(asked))
    assert window.messages == []


def test_files_are_read_as_python_reads_them(
    digits: tuple[Path, Path], window: Browser, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (47, 61, 4), dtype=np.uint8)
    smooth = np.add.outer(np.arange(90) * 2, np.arange(70)).astype(np.uint8)
    turned = PIL.Image.Exif()
    turned[0x0112] = 6
    rgba = PIL.Image.fromarray(noise, "RGBA")
    indexed = rgba.convert("RGB").quantize(16)
    profile = PIL.Image.open(io.BytesIO(_png_with_profile(noise[..., :3])))
    saves: dict[str, tuple[PIL.Image.Image, dict[str, Any]]] = {
        "alpha.png": (rgba, {}),
        "alpha.webp": (rgba, {"quality": 90}),
        "alpha-index.png": (indexed, {"transparency": 3}),
        "alpha-index.gif": (indexed, {"transparency": 3}),
        "turned.jpg": (PIL.Image.fromarray(smooth), {"exif": turned, "quality": 95}),
        "turned.png": (PIL.Image.fromarray(smooth), {"exif": turned}),
        "turned.webp": (PIL.Image.fromarray(noise[..., :3]), {"exif": turned, "lossless": True}),
        "profile.png": (profile, {"icc_profile": profile.info["icc_profile"]}),
        "grey.jpg": (PIL.Image.fromarray(smooth), {"progressive": True}),
        "two.png": (PIL.Image.fromarray(smooth > 90), {}),
    }
    model, folder = digits
    pictures = []
    for name, (image, options) in saves.items():
        image.save(tmp_path / name, **options)
        pictures.append(tmp_path / name)
    with web.served(folder) as (address, _):
        opened(window, address)
        for picture, wanted in zip(pictures, run(model, pictures).images, strict=True):
            found = answer(window, picture)
            shares = {item["index"]: item["share"] for item in found["top"]}
            for item in wanted.top[:3]:
                assert shares[item.index] == pytest.approx(item.probability, abs=BOUND), picture
            assert found["note"] == ""
        # Its alpha cannot be told from its colours, and the page says that it could not.
        rgba.save(tmp_path / "lossless.webp", lossless=True)
        assert "transparent" in answer(window, tmp_path / "lossless.webp")["note"]


def _png_with_profile(pixels: np.ndarray[Any, Any]) -> bytes:
    """A PNG whose colours a browser would change: a profile with red and blue exchanged."""
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"tmp0").replace(b"bXYZ", b"rXYZ").replace(b"tmp0", b"bXYZ")
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, "PNG", icc_profile=swapped)
    return stream.getvalue()


def test_what_is_no_picture_is_refused_in_words(
    digits: tuple[Path, Path], window: Browser, tmp_path: Path
) -> None:
    good = digit_pictures(tmp_path)[0]
    photo, lossy = io.BytesIO(), io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    PIL.Image.fromarray(noise).save(photo, "JPEG")
    PIL.Image.fromarray(noise).save(lossy, "WEBP")
    deep = tmp_path / "deep.png"
    PIL.Image.fromarray(np.zeros((9, 9), np.uint16)).save(deep)
    files = {
        "<img src=x onerror=alert(1)>.png": (b"no picture at all", "no PNG, JPEG"),
        "empty.png": (b"", "no PNG, JPEG"),
        "cut.png": (good.read_bytes()[:-20], "not complete"),
        "short.png": (good.read_bytes()[:30], "damaged"),
        "half.jpg": (photo.getvalue()[:-500], "not complete"),
        "half.webp": (lossy.getvalue()[:-500], "not complete"),
        "bits.jpg": (b"\xff\xd8" + bytes(range(256)) + b"\xff\xd9", "cannot decode"),
        "deep.png": (deep.read_bytes(), "16 bits"),
        "cut.jpg": (b"\xff\xd8\xff\xe0\x00\x10JFIF", "not complete"),
    }
    with web.served(digits[1]) as (address, _):
        opened(window, address, dark=True)
        for name, (data, part) in files.items():
            (tmp_path / name).write_bytes(data)
            assert part in refusal(window, tmp_path / name)
        assert window.ask("document.querySelectorAll('img').length") == 0
        # The page goes on, and fits the window.
        chosen = answer(window, good)
        # What is dropped is run as well as what is chosen.
        data = base64.b64encode(good.read_bytes()).decode()
        bytes_ = f"Uint8Array.from(atob({json.dumps(data)}), item => item.charCodeAt(0))"
        window.ask(
            f"(() => {{ const dataTransfer = new DataTransfer();"
            f"dataTransfer.items.add(new File([{bytes_}], 'dropped.png'));"
            "document.body.dispatchEvent("
            "new DragEvent('drop', {dataTransfer, bubbles: true, cancelable: true})); })()"
        )
        window.until("document.getElementById('page').dataset.file === 'dropped.png'")
        dropped = json.loads(window.ask(_ANSWER))
        assert (dropped["file"], dropped["top"]) == ("dropped.png", chosen["top"])
        # What has to be told to who does not see the page has a name and is told.
        tree = window.call("Accessibility.getFullAXTree")["nodes"]
        named = {
            n["role"]["value"]: n.get("name", {}).get("value", "") for n in tree if "role" in n
        }
        assert named["image"].startswith("What the model sees")
        assert {"status", "alert", "heading", "region"} <= set(named)
        said = window.ask("document.getElementById('status').textContent")
        assert said == f"dropped.png: {dropped['top'][0]['label']}"
        assert window.ask("document.documentElement.scrollWidth") == PHONE[0]
        assert window.ask("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"


def test_hostile_names_stay_text(runtime: Path, window: Browser, tmp_path: Path) -> None:
    labels = (
        "<script>document.title = 'taken'</script>",
        "<img src=x onerror=\"document.title='taken'\">",
        "\u202eright to left ",
        "a" * 3000,
    )
    info = dataclasses.replace(EXPORT, labels=labels, model="<b onclick=x>bold</b>")
    model = classifier(tmp_path / "toy.onnx", info=info)
    picture = tmp_path / "p.png"
    PIL.Image.fromarray(np.full((5, 5), 77, np.uint8)).save(picture)
    with web.served(page_of(model, runtime)) as (address, asked):
        opened(window, address)
        found = answer(window, picture)
        assert {item["label"] for item in found["top"]} == set(labels)
        rows = "[...document.querySelectorAll('#rows li > span:first-child')]"
        shown = window.ask(f"{rows}.map(item => item.textContent)")
        assert set(shown) == set(labels)
        assert window.ask("document.title") == "toy"
        assert (
            window.ask("document.querySelectorAll('#page script, #page img, #page b').length") == 0
        )
        assert "<b onclick" in window.ask("document.getElementById('about').textContent")
        assert window.ask("document.documentElement.scrollWidth") == PHONE[0]
    assert "/x" not in asked


def test_a_segmentation_page_shows_the_map(runtime: Path, window: Browser, tmp_path: Path) -> None:
    model = export_e01(tmp_path, "scene", standalone=True)
    folder = page_of(model, runtime)
    pixels = np.random.default_rng(6).integers(0, 256, (70, 100, 3), dtype=np.uint8)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    picture = tmp_path / "street.png"
    PIL.Image.fromarray(pixels).save(picture, exif=exif)
    labels_file = tmp_path / "wanted.npz"
    wanted = run(model, picture, RunOptions(output=labels_file)).images[0]
    with np.load(labels_file) as stored:
        wanted_labels = stored["labels_0"]
    with web.served(folder) as (address, _):
        opened(window, address)
        found = answer(window, picture)
        assert found["windows"] == wanted.windows
        script = (
            "btoa(String.fromCharCode(...new Uint8Array("
            "document.getElementById('page').answer.labels.buffer)))"
        )
        raw = base64.b64decode(window.ask(script))
        labels = np.frombuffer(raw, np.uint16).reshape(wanted_labels.shape)
        # The network is not trained: two classes may be a rounding apart.
        assert (labels == wanted_labels).mean() >= 0.999
        size = "[document.getElementById('seen').width, document.getElementById('seen').height]"
        assert window.ask(size) == [70, 100]
        legend = window.ask("[...document.querySelectorAll('#rows li.area')].length")
        assert legend == len(found["areas"]) == wanted.classes
        window.ask("(document.getElementById('mode').value = 'whole', null)")
        window.ask("void document.getElementById('mode').dispatchEvent(new Event('change'))")
        window.until(f"JSON.parse({_ANSWER}).windows === 1")
    assert window.messages == []


def test_a_file_that_is_missing_is_named(runtime: Path, window: Browser, tmp_path: Path) -> None:
    folder = page_of(classifier(tmp_path / "toy.onnx"), runtime)
    (folder / "model.onnx").unlink()
    with web.served(folder) as (address, _):
        window.open(address, *PHONE, phone=False)
        window.until(_LOADED)
        assert window.ask(_STATE) == "failed"
        assert "model.onnx: the server answers 404" in window.ask(_ERROR)
    # Opened as a file no script runs, and what is there already says what to do.
    window.open(folder / "index.html", *PHONE, phone=False)
    assert "python3 -m http.server" in window.ask("document.getElementById('served').textContent")
