"""Packages for the browser: contents, refusals, checks, and where the runtime comes from.

A small archive stands in for onnxruntime-web here; the real one runs in ``tests/integration``.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import http.client
import io
import json
import re
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner

import vim_deploy
from tests.support.engines import EXPORT
from tests.support.packages import bytes_classifier, classifier, engine
from tests.unit.packaging.test_package_dense import LABELS, segmentor
from vim_deploy.artifact import onnx_file
from vim_deploy.cli.main import cli
from vim_deploy.errors import VimDeployError
from vim_deploy.files import sha256_of
from vim_deploy.packaging import web_runtime
from vim_deploy.packaging.golden import read_golden
from vim_deploy.packaging.manifest import FileEntry, paths_in, read_manifest, write_manifest
from vim_deploy.packaging.repository import ServingOptions
from vim_deploy.stages import check_package, inspect, package
from vim_deploy.stages.packaging import PackageOptions
from vim_deploy.untrusted import OnError, read_bytes

pytest.importorskip("onnxruntime")

CONTENTS = {name: name.encode() * 7 for name in web_runtime.FILES}
PAGE = {
    *("index.html", "page.css", "page.mjs", "prepare.mjs", "answer.mjs", "scene.mjs", "decode.mjs"),
    *("model.json", "model.onnx", "golden.npz", "README.md", "LICENSE-onnxruntime.txt"),
    *(f"runtime/{name}" for name in CONTENTS),
}


def archive_of(contents: dict[str, bytes]) -> bytes:
    """What npm packs of such files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as made:
        for name, data in contents.items():
            item = tarfile.TarInfo(f"package/dist/{name}")
            item.size = len(data)
            made.addfile(item, io.BytesIO(data))
    return stream.getvalue()


@pytest.fixture(autouse=True)
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A small archive in the place of the real one; no network, and a cache of its own."""
    data = archive_of({**CONTENTS, "other.js": b"never unpacked"})
    entries = {
        name: FileEntry(hashlib.sha256(text).hexdigest(), len(text))
        for name, text in CONTENTS.items()
    }
    digest = base64.b64encode(hashlib.sha512(data).digest()).decode()
    monkeypatch.setattr(web_runtime, "FILES", entries)
    monkeypatch.setattr(web_runtime, "_INTEGRITY", f"sha512-{digest}")
    monkeypatch.setattr(web_runtime, "_ARCHIVE_BYTES", len(data))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in web_runtime.REGISTRY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "urlopen", refused)
    return data


def refused(*_: object, **__: object) -> None:
    """No network."""
    raise urllib.error.URLError("no route to host")


@pytest.fixture
def runtime(tmp_path: Path, archive: bytes) -> Path:
    """The archive as a file."""
    path = tmp_path / "runtime.tgz"
    path.write_bytes(archive)
    return path


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return classifier(tmp_path / "toy.onnx")


def web(runtime: Path | None, **options: Any) -> PackageOptions:
    return PackageOptions(target="web", web_runtime=runtime, **options)


def code_of(call: Callable[[], object]) -> tuple[str, str]:
    """The code that ``call`` fails with, and everything that is said."""
    with pytest.raises(VimDeployError) as caught:
        call()
    error = caught.value
    return error.code, f"{error.message}\n{error.why}\n{error.fix}"


def test_contents_of_a_page(toy: Path, runtime: Path) -> None:
    made = package(toy, options=web(runtime))
    assert made.folder == toy.with_name("toy-web")
    assert (made.target, made.name, made.runtime) == ("web", "toy", "onnxruntime-web")
    assert set(made.files) == PAGE == set(paths_in(made.folder)) - {"manifest.json"}
    assert (made.folder / "model.onnx").read_bytes() == toy.read_bytes()
    for name, data in CONTENTS.items():
        assert (made.folder / "runtime" / name).read_bytes() == data
    facts = json.loads((made.folder / "model.json").read_text())
    assert facts["outputs"] == [{"name": "logits", "holds": "logits"}]
    assert facts["scene"] is None
    assert facts["input"]["shape"] == ["batch", 1, 2, 3]
    given, outputs = read_golden(made.folder / "golden.npz")
    assert len(given.images) == len(outputs["logits"]) == 3
    # What a reader is told of the runtime is what is there.
    assert web_runtime.VERSION in (made.folder / "README.md").read_text()
    assert "onnxruntime-web" in str(inspect(made.folder))


def test_the_model_is_read_once(toy: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def counted(path: Path, on_error: OnError, *, max_bytes: int) -> bytes:
        read.append(path.name)
        return read_bytes(path, on_error, max_bytes=max_bytes)

    monkeypatch.setattr(onnx_file, "read_bytes", counted)
    package(toy, options=web(runtime))
    assert read == [toy.name]


def test_same_input_same_bytes(toy: Path, runtime: Path, tmp_path: Path) -> None:
    folders = [package(toy, tmp_path / name, web(runtime)).folder for name in ("a", "b")]
    first, second = (
        {name: sha256_of(folder / name) for name in (*paths_in(folder), "manifest.json")}
        for folder in folders
    )
    assert first == second
    assert package(toy, folders[0], web(runtime)).up_to_date


def test_another_package_is_replaced_by_force_only(
    toy: Path, runtime: Path, tmp_path: Path
) -> None:
    folder = package(toy, tmp_path / "made", web(runtime)).folder
    other = classifier(tmp_path / "other.onnx", seed=5)
    assert code_of(lambda: package(other, folder, web(runtime)))[0] == "VIM-204"
    assert not package(other, folder, web(runtime, force=True)).up_to_date
    assert read_manifest(folder).about["name"] == "other"
    (folder / "mine.txt").write_text("mine")
    assert code_of(lambda: package(toy, folder, web(runtime, force=True)))[0] == "VIM-304"


def test_the_page_asks_for_nothing_elsewhere(toy: Path, runtime: Path) -> None:
    folder = package(toy, options=web(runtime)).folder
    page = (folder / "index.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    allowed = dict(part.strip().partition(" ")[::2] for part in policy[1].split(";"))
    assert allowed.pop("img-src") == "data:"
    assert allowed.pop("default-src") == allowed.pop("base-uri") == "'none'"
    assert allowed.pop("form-action") == "'none'"
    assert allowed.pop("script-src") == "'self' 'wasm-unsafe-eval'"
    assert set(allowed.values()) == {"'self'"}
    for name in PAGE:
        if name.endswith((".mjs", ".css", ".html")) and not name.startswith("runtime/"):
            text = (folder / name).read_text().replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"(?<!>)https?://(?!127\.0\.0\.1)", text), name
            # Texts of others become text.
            assert "innerHTML" not in text
            assert "insertAdjacentHTML" not in text


def test_a_segmentation_page_knows_windows_and_colours(runtime: Path, tmp_path: Path) -> None:
    for head, holds in (("upsampled", "logits"), ("labels", "classes")):
        made = package(segmentor(tmp_path / f"{head}.onnx", head), options=web(runtime))
        facts = json.loads((made.folder / "model.json").read_text())
        assert [item["holds"] for item in facts["outputs"]] == [holds]
        scene = facts["scene"]
        assert (scene["mode"], scene["window"], scene["classes"]) == ("slide", [2, 3], 4)
        assert len({tuple(colour) for colour in scene["palette"]}) == len(LABELS)
        names = {item.name: item.checked for item in check_package(made.folder).checks}
        assert names == {
            "manifest": True,
            "model": True,
            "runtime": True,
            "facts": True,
            "golden output": True,
            "page": False,
        }


def test_weights_beside_the_model_go_along(toy: Path, runtime: Path) -> None:
    onnx.save(
        onnx.load(toy), toy, save_as_external_data=True, location="w#1.data", size_threshold=0
    )
    made = package(toy, options=web(runtime))
    facts = json.loads((made.folder / "model.json").read_text())
    assert facts["beside"] == ["w#1.data"]
    assert (made.folder / "w#1.data").read_bytes() == toy.with_name("w#1.data").read_bytes()


def test_what_no_page_can_show_is_refused(runtime: Path, tmp_path: Path) -> None:
    features = dataclasses.replace(EXPORT, head="features")
    wide = dataclasses.replace(
        EXPORT, image=dataclasses.replace(EXPORT.image, channels=2, mean=(0, 0), std=(1, 1))
    )
    cases = {
        engine(tmp_path): ("VIM-426", "built from"),
        classifier(tmp_path / "features.onnx", info=features): ("VIM-426", "--head"),
        classifier(tmp_path / "wide.onnx", info=wide): ("VIM-415", "2 channels"),
        classifier(tmp_path / "foreign.onnx", info=None): ("VIM-410", ""),
    }
    for path, (wanted, part) in cases.items():
        code, said = code_of(lambda path=path: package(path, tmp_path / "made", web(runtime)))
        assert code == wanted
        assert part in said
        assert not (tmp_path / "made").exists()


def test_options_of_other_targets_are_refused(toy: Path, runtime: Path) -> None:
    serving = web(runtime, serving=ServingOptions(max_batch=2))
    assert code_of(lambda: package(toy, options=serving))[0] == "VIM-203"
    for target in ("triton", "cpp"):
        options = PackageOptions(target=target, web_runtime=runtime)
        code, said = code_of(lambda options=options: package(toy, options=options))
        assert code == "VIM-203"
        assert "--web-runtime" in said or target == "cpp"


def test_a_package_with_another_runtime_or_other_facts_is_found(
    toy: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = package(toy, options=web(runtime)).folder
    manifest = read_manifest(folder)

    def changed(name: str, data: bytes) -> None:
        """A file changed by somebody who writes a manifest for it."""
        (folder / name).write_bytes(data)
        (folder / "manifest.json").unlink()
        write_manifest(
            folder,
            manifest.target,
            manifest.about,
            tool_version=manifest.tool_version,
            settings=manifest.settings_hash,
        )

    name = next(iter(CONTENTS))
    changed(f"runtime/{name}", b"other")
    assert code_of(lambda: check_package(folder))[0] == "VIM-425"
    changed(f"runtime/{name}", CONTENTS[name])
    check_package(folder)
    facts = json.loads((folder / "model.json").read_text())
    changed("model.json", json.dumps({**facts, "labels": ["taken"]}).encode())
    code, said = code_of(lambda: check_package(folder))
    assert code == "VIM-428"
    assert "labels" in said
    changed("model.json", b"[]")
    assert code_of(lambda: check_package(folder))[0] == "VIM-428"
    # Of another version's page only its maker knows what belongs there.
    monkeypatch.setattr(vim_deploy, "__version__", "9.9")
    checks = {item.name: item.checked for item in check_package(folder).checks}
    assert checks["golden output"]
    assert not checks["runtime"]
    assert not checks["facts"]


def test_the_command_makes_and_checks_a_page(toy: Path, runtime: Path) -> None:
    arguments = ["package", str(toy), "--target", "web", "--web-runtime", str(runtime)]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    checked = CliRunner().invoke(cli, ["package", "--check", str(toy.with_name("toy-web"))])
    assert checked.exit_code == 0, checked.output
    assert "model.json says what model.onnx says" in " ".join(checked.output.split())
    # An input of bytes.
    other = bytes_classifier(toy.with_name("bytes.onnx"))
    assert CliRunner().invoke(cli, ["package", str(other), *arguments[2:]]).exit_code == 0


def test_the_runtime_comes_from_a_folder(toy: Path, tmp_path: Path) -> None:
    for inside in ("", "dist", "package/dist", "node_modules/onnxruntime-web/dist"):
        place = tmp_path / "named" / (inside or "plain") / inside
        place.mkdir(parents=True)
        for name, data in CONTENTS.items():
            (place / name).write_bytes(data)
        root = tmp_path / "named" / (inside or "plain")
        assert web_runtime.runtime_files(root) == CONTENTS
    (place / next(iter(CONTENTS))).write_bytes(b"other")
    code, said = code_of(lambda: web_runtime.runtime_files(root))
    assert code == "VIM-425"
    assert "npm pack onnxruntime-web@" in said
    assert code_of(lambda: web_runtime.runtime_files(tmp_path))[0] == "VIM-401"
    assert code_of(lambda: web_runtime.runtime_files(tmp_path / "none.tgz"))[0] == "VIM-401"


def test_an_archive_is_read_only_when_its_hash_is_right(tmp_path: Path, archive: bytes) -> None:
    path = tmp_path / "it.tgz"
    for data in (archive[:-1], archive[:-1] + b"\1", b"", archive + b"x", archive_of({})):
        path.write_bytes(data)
        assert code_of(lambda: web_runtime.runtime_files(path))[0] == "VIM-425"


class Registry:
    """Answers in the place of a network; notes what it is asked."""

    def __init__(self, data: bytes) -> None:
        self.data, self.asked = data, []

    def __call__(self, address: str, timeout: float) -> io.BytesIO:
        assert timeout > 0
        self.asked.append(address)
        return io.BytesIO(self.data)


def test_the_runtime_is_fetched_once(
    toy: Path, archive: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    registry = Registry(archive)
    monkeypatch.setattr(urllib.request, "urlopen", registry)
    package(toy, tmp_path / "one", web(None))
    monkeypatch.setattr(urllib.request, "urlopen", refused)
    package(toy, tmp_path / "two", web(None))
    version = web_runtime.VERSION
    assert registry.asked == [
        f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{version}.tgz"
    ]
    # What was changed in the cache is not used, and fetched again.
    (kept,) = (tmp_path / "cache").rglob("*.wasm")
    kept.write_bytes(b"other")
    assert code_of(lambda: package(toy, tmp_path / "three", web(None)))[0] == "VIM-301"
    monkeypatch.setattr(urllib.request, "urlopen", registry)
    monkeypatch.setenv("npm_config_registry", "https://mirror.example/npm/")
    package(toy, tmp_path / "three", web(None))
    assert registry.asked[1].startswith("https://mirror.example/npm/onnxruntime-web/-/")
    assert kept.read_bytes() == CONTENTS[kept.name]


def test_a_network_that_gives_no_archive_is_told(
    toy: Path, archive: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise http.client.IncompleteRead(b"")

    answers: list[tuple[Any, str]] = [
        (refused, "VIM-301"),
        (broken, "VIM-301"),
        (Registry(b"<html>log in first</html>"), "VIM-301"),
        (Registry(archive + b"x"), "VIM-301"),
        (Registry(archive[:-1] + bytes([archive[-1] ^ 1])), "VIM-425"),
    ]
    for answer, wanted in answers:
        monkeypatch.setattr(urllib.request, "urlopen", answer)
        code, said = code_of(lambda: package(toy, tmp_path / "made", web(None)))
        assert code == wanted
        assert f"npm pack onnxruntime-web@{web_runtime.VERSION}" in said
        assert "--web-runtime" in said
        assert not (tmp_path / "made").exists()
    monkeypatch.setenv("npm_config_registry", "http://plain.example/")
    assert code_of(lambda: package(toy, tmp_path / "made", web(None)))[0] == "VIM-202"
