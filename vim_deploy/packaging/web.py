"""A folder with a model and a page that runs it in the browser: pictures in, classes out.

    FOLDER/index.html, page.css, *.mjs    the page
    FOLDER/model.json                     what it has to know of the model
    FOLDER/model.onnx                     the ONNX file as it is
    FOLDER/runtime/                       onnxruntime-web, which runs it
    FOLDER/golden.npz                     a stored input and its outputs
    FOLDER/README.md                      how to show it
    FOLDER/manifest.json                  what is here, with hashes

onnxruntime-web has the operators of ONNX Runtime on a CPU and inlines functions, so it takes every
form of a file that ONNX Runtime takes. Equal input gives equal bytes.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vim_deploy
from vim_deploy.artifact import Artifact
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.files import output_errors, write_json
from vim_deploy.heads import of_file
from vim_deploy.heads.base import Output
from vim_deploy.images import require_picture_channels
from vim_deploy.packaging import web_runtime
from vim_deploy.packaging.about import WebAbout, read_about
from vim_deploy.packaging.check import WEB_TARGET, Check, check_onnx
from vim_deploy.packaging.manifest import Manifest
from vim_deploy.packaging.scripts import fill, template, unchanged, write_text
from vim_deploy.packaging.servable import ONNX_NAME, Servable, read_servable
from vim_deploy.scene.classes import palette_of
from vim_deploy.scene.segment import SceneModel
from vim_deploy.scene.windows import scene_settings
from vim_deploy.text import storable
from vim_deploy.untrusted import read_json

TARGET = WEB_TARGET
RUNTIME = web_runtime.PACKAGE
#: The page's files, as they lie in ``web`` beside this module.
_FOLDER, _PAGE = "web", (".html", ".css", ".mjs", ".txt")
#: What the page reads of a model, and where the runtime is.
FACTS_NAME, _RUNTIME_FOLDER = "model.json", "runtime"


@dataclass(frozen=True)
class WebPlan:
    """Everything about a page that is settled before a byte is written.

    Attributes:
        servable: the model.
        facts: what the page has to know of it, JSON-able.
        runtime: files of onnxruntime-web by their names.
    """

    servable: Servable
    facts: Mapping[str, Any]
    runtime: Mapping[str, bytes]

    @property
    def name(self) -> str:
        """Of the package: the artifact's, up to the first point."""
        return str(self.facts["name"])


def plan_web(artifact: Path, *, runtime: Path | None = None) -> WebPlan:
    """Settle what goes into the package.

    Args:
        artifact: an ONNX file made by ``export``.
        runtime: folder or archive of onnxruntime-web; None for the cache or the registry.

    Raises:
        VimDeployError: VIM-426 (an engine; bfloat16; a head without classes to show), VIM-415 (no
            picture has the model's channels; one class), and errors of ``read_servable``,
            ``scene_settings`` and ``web_runtime.runtime_files``.
    """
    if Artifact.open(artifact).is_engine:
        raise _refused(
            artifact,
            "it is an engine, and engines run in TensorRT on a GPU",
            "package the ONNX file that it was built from",
        )
    servable = read_servable(artifact)
    if servable.off_cpu:
        raise _refused(
            artifact,
            f"it holds {servable.off_cpu} operators, which onnxruntime-web does not have",
            "export it with --precision fp32 or fp16",
        )
    require_picture_channels(servable.info.image.channels)
    facts = _facts(servable)
    return WebPlan(servable, facts, web_runtime.runtime_files(runtime))


def _refused(path: Path, why: str, fix: str) -> VimDeployError:
    return VimDeployError("VIM-426", f"{path.name} cannot be shown in a browser", why=why, fix=fix)


def _facts(servable: Servable) -> dict[str, Any]:
    """What the page has to know of the model; it knows no head by name."""
    info, file = servable.info, servable.file
    files = servable.files()
    first, *beside = [name for _, name in files]
    return {
        "name": storable(file.name.partition(".")[0]),
        "about": f"{info.model}, {info.image.height} x {info.image.width} pixels, "
        f"{servable.precision}, by vim-deploy and {RUNTIME} {web_runtime.VERSION}",
        "file": first,
        "beside": beside,
        "bytes": sum(path.stat().st_size for path, _ in files),
        "runtime_bytes": sum(entry.bytes for entry in web_runtime.FILES.values()),
        "input": encode(servable.input),
        "outputs": [{"name": item.name, "holds": item.holds} for item in _outputs(servable)],
        "image": encode(info.image),
        "preprocess": info.preprocess,
        # Entries of its session: onnxruntime-web takes fp8 products for integers, and refuses what
        # it makes of them.
        "session": {"disable_quant_qdq": "1"} if servable.precision == "fp8" else {},
        "labels": list(info.labels),
        "scene": _scene(servable),
    }


def _outputs(servable: Servable) -> tuple[Output, ...]:
    """The outputs that the page reads; VIM-426 for a head that has nothing to show."""
    head = of_file(servable.info)
    shapes = {spec.name: spec.shape for spec in servable.file.outputs}
    if head.kind in ("pixel scores", "label map"):
        return head.gives[:1]
    if head.kind == "detections":
        raise _refused(
            servable.file.path,
            "it finds boxes and masks, and the page shows classes of whole pictures and of pixels",
            "--target triton serves it, with a client that pastes the masks; run PICTURE --overlay "
            "draws them",
        )
    if not head.has_classes(shapes):
        raise _refused(
            servable.file.path,
            f"its head {head.text} gives no scores of classes, and the page has nothing else to "
            "show",
            "export the model with another --head",
        )
    return head.gives


def _scene(servable: Servable) -> dict[str, Any] | None:
    """How a segmentation model goes through a picture, and its colours; None for a classifier."""
    info = servable.info
    if info.dense is None:
        return None
    patch = info.model_config.patch_hw
    model = SceneModel.of(info, info.dense, patch)
    settings = scene_settings(info.dense, info.image)
    return {
        "mode": settings.mode,
        "window": list(settings.window),
        "stride": list(settings.stride),
        "scale": None if settings.scale is None else list(settings.scale),
        "patch": list(patch),
        "classes": model.classes,
        "palette": [list(colour) for colour in palette_of(info.dense.palette, model.classes)],
    }


def _page() -> dict[str, str]:
    """The page's files by their names."""
    folder = importlib.resources.files("vim_deploy.packaging") / _FOLDER
    # And no file that an editor has left there.
    names = sorted(item.name for item in folder.iterdir() if item.name.endswith(_PAGE))
    return {name: unchanged(f"{_FOLDER}/{name}") for name in names}


def _texts(plan: WebPlan) -> dict[str, str]:
    """Every file of the package that is text, but the JSON ones."""
    readme = fill(template("web_README.md"), model=ONNX_NAME, version=web_runtime.VERSION)
    return {**_page(), "README.md": readme}


def settings_of(plan: WebPlan) -> dict[str, Any]:
    """What decides the contents of the package, for ``files.settings_hash``."""
    return {
        "target": TARGET,
        "artifact": plan.servable.file.sha256,
        "facts": plan.facts,
        "texts": {
            name: hashlib.sha256(text.encode()).hexdigest() for name, text in _texts(plan).items()
        },
        "runtime": {name: entry.sha256 for name, entry in web_runtime.FILES.items()},
    }


def write_web(folder: Path, plan: WebPlan) -> None:
    """Write everything but the stored answers and the manifest into an empty folder."""
    with output_errors(folder):
        for source, name in plan.servable.files():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)
        (folder / _RUNTIME_FOLDER).mkdir()
        for name, data in plan.runtime.items():
            (folder / _RUNTIME_FOLDER / name).write_bytes(data)
        for name, text in _texts(plan).items():
            write_text(folder / name, text)
        write_json(folder / FACTS_NAME, plan.facts)


def about(plan: WebPlan, golden: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest says of the model; ``--check`` and ``inspect`` read it."""
    servable, info = plan.servable, plan.servable.info
    artifact, *companions = [name for _, name in servable.files()]
    return {
        "name": plan.name,
        "runtime": RUNTIME,
        "runtime_version": web_runtime.VERSION,
        "artifact": {
            "path": artifact,
            "source": storable(servable.file.name),
            "sha256": servable.file.sha256,
        },
        "companions": companions,
        "input": encode(servable.input),
        "outputs": [encode(spec) for spec in servable.file.outputs],
        "precision": servable.precision,
        "preprocess": info.preprocess,
        "image": encode(info.image),
        "head": info.head,
        "labels": list(info.labels),
        "model": info.model,
        "checkpoint": encode(info.checkpoint),
        "golden": golden,
        "notes": [],
    }


def check_web(folder: Path, manifest: Manifest) -> list[Check]:
    """What of a page can be checked without a browser; its files have been compared.

    Raises:
        VimDeployError: VIM-425 (another runtime), VIM-427 (the manifest describes no page),
            VIM-409 (ONNX file), VIM-428 (tensors, or what the page says of the model).
    """
    about = read_about(folder, manifest, WebAbout)
    artifact = folder / about.artifact.path
    checks = [
        Check("manifest", True, f"{len(manifest.files)} files have their hashes"),
        check_onnx(artifact, about),
    ]
    if (maker := manifest.tool_version) != vim_deploy.__version__:
        # Its page reads what its own version wrote, and had a runtime of its own.
        made = f"the page was made by vim-deploy {maker}, which can check it"
        return [*checks, Check("runtime", False, made), Check("facts", False, made)]
    checks.append(Check("runtime", True, web_runtime.check_runtime(folder, manifest.files)))

    def not_described(why: str) -> VimDeployError:
        return VimDeployError(
            "VIM-428",
            f"{FACTS_NAME} does not describe the model",
            why=why,
            fix="make the package again: vim-deploy package ARTIFACT --target web --force",
        )

    said = read_json(folder / FACTS_NAME, not_described)
    # The name is the artifact's from before it was packaged.
    known = {**_facts(read_servable(artifact)), "name": about.name}
    wrong = [key for key in known if not isinstance(said, dict) or said.get(key) != known[key]]
    if wrong:
        raise not_described(f"it says otherwise or nothing of: {', '.join(wrong)}")
    checks.append(Check("facts", True, f"{FACTS_NAME} says what {artifact.name} says"))
    return checks
