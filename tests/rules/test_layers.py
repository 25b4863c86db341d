"""Imports go one way, and heavy packages are imported where they belong and nowhere else."""

from __future__ import annotations

import ast
import sys

import pytest

from tests.support.source import SERVED, Module, imported, modules
from vim_deploy.families import FAMILIES

#: From the top down; a layer imports only from layers further down, and from itself. Names on one
#: line are siblings, which do not know each other.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("stages",),
    ("packaging", "report"),
    ("parity", "bench"),
    ("calibration",),
    ("scene",),
    ("runtimes",),
    # What a family plugs into the layers below it, which reach it by its row (``families``).
    ("families.*.fusion",),
    ("graph",),
    ("families.*.network",),
    ("model",),
    ("artifact",),
    ("heads",),
    ("families.*",),
    ("recipe",),
    ("families.base",),
    ("plugin",),
    ("cuda", "ops"),
    ("onnx_quantized",),
    ("onnx_graph",),
    ("images",),
    ("folder_output",),
    ("files", "folders", "helpers", "untrusted", "npz", "ranges", "image_bounds"),
    ("codec",),
    ("specs", "places", "interrupts", "threads"),
    ("families", "families.*.parts"),
    ("families.part",),
    ("precisions",),
    ("paths",),
    ("errors",),
    ("text", "progress", "installation"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
#: Modules of ``families`` that are no family.
_OF_ALL_FAMILIES = ("base", "part")
_FAMILIES = tuple(family.name for family in FAMILIES)


def layer_of(name: str) -> str:
    """The layer of a module: its first name in the package; more of it within ``families``."""
    _, first, *inner = name.split(".")
    if first != "families":
        return first
    if inner[:1] and inner[0] in _OF_ALL_FAMILIES:
        return f"families.{inner[0]}"
    if not family_of(name):
        return "families"
    part = f"families.*.{inner[1]}" if len(inner) > 1 else ""
    return part if part in RANK else "families.*"


def family_of(name: str) -> str:
    """The family that a module belongs to, or empty."""
    pieces = [*name.split("."), "", ""]
    return pieces[2] if pieces[1] == "families" and pieces[2] in _FAMILIES else ""


_TORCH = (
    "vim_deploy.model.",
    *(f"vim_deploy.families.{name}.network" for name in _FAMILIES),
    *(f"vim_deploy.families.{name}.network." for name in _FAMILIES),
    "vim_deploy.graph.trace",
    "vim_deploy.runtimes.torch.runner",
)
#: Package -> prefixes of the modules that may import it. What is not listed may not be imported,
#: the standard library, numpy and onnx apart.
HOMES = {
    "torch": _TORCH,
    "safetensors": ("vim_deploy.model.",),
    "onnxscript": ("vim_deploy.graph.",),
    "onnx_ir": ("vim_deploy.graph.",),
    "onnx_graphsurgeon": ("vim_deploy.graph.",),
    "openvino": ("vim_deploy.runtimes.openvino.capability",),
    "onnxruntime": ("vim_deploy.runtimes.onnxruntime.capability",),
    "tensorrt": ("vim_deploy.runtimes.tensorrt.capability",),
    "tensorrt_rtx": ("vim_deploy.runtimes.tensorrt_rtx.capability",),
    "cuda": ("vim_deploy.cuda.runtime",),
    "huggingface_hub": ("vim_deploy.model.hub",),
    "jinja2": ("vim_deploy.report.write",),
    "tritonclient": ("vim_deploy.packaging.check",),
    "pycocotools": ("vim_deploy.parity.average_precision",),
    "transformers": ("vim_deploy.model.deit",),
    "yaml": ("vim_deploy.recipe.lazy_yaml",),
    "PIL": (
        "vim_deploy.images",
        "vim_deploy.image_bounds",
        "vim_deploy.scene.boxes_overlay",
        "vim_deploy.scene.overlay",
        "vim_deploy.scene.pictures",
        "vim_deploy.scene.thumbnails",
    ),
    "click": ("vim_deploy.cli.",),
    "rich": ("vim_deploy.cli.",),
    "msgspec": ("vim_deploy.untrusted", "vim_deploy.codec"),
}
#: onnx and its serialiser are base dependencies, but the base modules do without them.
ONNX_FREE = (
    "errors",
    "specs",
    "precisions",
    "places",
    "interrupts",
    "paths",
    "threads",
    "progress",
    "text",
    "installation",
    "files",
    "untrusted",
    "codec",
    "npz",
    "ranges",
    "images",
    "image_bounds",
    "recipe",
    "families",
    "families.base",
    "families.part",
    "families.*",
    "families.*.parts",
    "families.*.network",
    "",
)
ONNX = ("onnx", "google")
EVERYWHERE = ("numpy",)
#: What the programs that packages carry may import.
SERVED_IMPORTS = (
    "numpy",
    "PIL",
    "onnxruntime",
    "tritonclient",
    "triton_python_backend_utils",
    "client_answers",
    "client_detections",
    "client_pictures",
    "server_watch",
)
STANDARD_FROM_3_11 = ("tomllib", "tomli")


def one_home(prefix: str, name: str) -> bool:
    return name == prefix or (prefix.endswith(".") and name.startswith(prefix))


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)
def test_imports_go_down(module: Module) -> None:
    if module.layer == "":
        return  # the package resolves its stage functions on first use
    layer = layer_of(module.name)
    assert layer in RANK, f"{module.name} is in no layer; add it to LAYERS"
    for name, line in imported(module.tree):
        if not name.startswith("vim_deploy."):
            continue
        target = layer_of(name)
        if target == "__version__" or target == layer:
            continue
        assert target in RANK, f"{module.path}:{line} imports {name}, which is in no layer"
        assert RANK[target] > RANK[layer], f"{module.path}:{line} imports {name} upwards"


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)
def test_nobody_knows_a_family_by_name(module: Module) -> None:
    """A family is found by its row; it knows itself, and no other."""
    for name, line in imported(module.tree):
        if name.startswith("vim_deploy.") and (family := family_of(name)):
            assert family == family_of(module.name), f"{module.path}:{line} imports {name}"


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)
def test_heavy_packages_stay_at_home(module: Module) -> None:
    for name, line in imported(module.tree):
        top = name.partition(".")[0]
        if module.name.startswith(SERVED):
            known = {*SERVED_IMPORTS} | sys.stdlib_module_names
            assert top in known, f"{module.path}:{line} imports {top}, which is not there"
        elif top in HOMES:
            allowed = any(one_home(prefix, module.name) for prefix in HOMES[top])
            assert allowed, f"{module.path}:{line} imports {top}; it belongs in {HOMES[top]}"
        elif top in ONNX:
            assert layer_of(module.name) not in ONNX_FREE, f"{module.path}:{line} imports {top}"
        else:
            known = {"vim_deploy", *EVERYWHERE, *STANDARD_FROM_3_11} | sys.stdlib_module_names
            assert top in known, f"{module.path}:{line} imports {top}, which has no home"


def test_optional_runtimes_have_one_importer() -> None:
    for package in ("onnxruntime", "tensorrt", "tensorrt_rtx", "cuda", "huggingface_hub"):
        importers = {
            module.name
            for module in modules()
            for name, _ in imported(module.tree)
            if name.partition(".")[0] == package and not module.name.startswith(SERVED)
        }
        assert len(importers) <= 1, f"{package} is imported in {sorted(importers)}"


def test_nothing_imports_the_programs_of_packages() -> None:
    for module in modules():
        assert not [name for name, _ in imported(module.tree) if name.startswith(SERVED[:-1])]


def test_no_import_cycles() -> None:
    names = {module.name for module in modules()}
    graph: dict[str, set[str]] = {}
    for module in modules():
        # Imports inside functions, and those for annotations alone, do not run at import time.
        top = ast.Module(
            [node for node in module.tree.body if isinstance(node, ast.Import | ast.ImportFrom)],
            [],
        )
        found = {name for name, _ in imported(top)}
        owners = {name if name in names else name.rpartition(".")[0] for name in found}
        graph[module.name] = (owners & names) - {module.name, "vim_deploy"}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name in done:
            return
        for target in sorted(graph[name]):
            visit(target, (*path, name))
        done.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_the_rules_can_fail() -> None:
    tree = ast.parse(
        "import torch.nn\nfrom vim_deploy.cli import main\n"
        "def f():\n    import tensorrt\n    importlib.import_module('cuda')\n"
    )
    assert [name for name, _ in imported(tree)] == [
        "torch.nn",
        "vim_deploy.cli.main",
        "tensorrt",
        "cuda",
    ]
    assert not one_home(
        "vim_deploy.runtimes.tensorrt.capability", "vim_deploy.runtimes.tensorrt_rtx.capability"
    )
    assert one_home("vim_deploy.model.", "vim_deploy.model.scan")
