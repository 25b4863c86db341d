"""What ``vim-deploy inspect`` prints first: one screen that says what a file is and takes.

It is made of the JSON-able description; rows for what a description does not hold are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from vim_deploy.codec import decode
from vim_deploy.errors import VimDeployError
from vim_deploy.families.base import ModelConfig
from vim_deploy.specs import Target

#: The head whose pictures are fitted into the input (``heads.Head.takes_size``).
_FITTED = "detections"

Facts = Mapping[str, Any]
Row = tuple[str, str]

#: Class names that are shown; --verbose has all.
_CLASSES_SHOWN = 5
#: What preparation is left to whoever calls, by what the graph does itself.
_LEFT = {
    "none": "(pixel / 255 - mean) / std",
    "normalize": "pixel / 255",
    "uint8": "nothing: it takes bytes",
}


def summary(description: Facts) -> list[Row]:
    """The rows of a description of ``stages.inspecting.inspect``: a name and a text each."""
    rows = {
        "onnx": _onnx,
        "engine": _engine,
        "checkpoint": _checkpoint,
        "recipe": _recipe,
        "package": _package,
    }[description["kind"]]
    found = [*rows(description), ("size", f"{description['bytes']:,} bytes")]
    if "sha256" in description:
        found.append(("SHA-256", description["sha256"]))
    return [(name, text) for name, text in found if text]


def _onnx(found: Facts) -> Iterator[Row]:
    export, graph, sizes = found["export"], found["graph"], found["activations"]
    yield from _said(export, found["description"])
    yield from _exported(export, found)
    needs = "runs in plain ONNX Runtime" if found["runs_without_plugin"] else "needs the plugin"
    yield "graph", f"opset {found['opset']}, {sum(graph['ops'].values())} nodes; {needs}"
    if graph["scans"]:
        fused = (
            f", {graph['fused_scans']} pairs of directions fused" if graph["fused_scans"] else ""
        )
        yield "scans", f"{graph['scans']}{fused}"
    most = sorted(graph["ops"].items(), key=lambda item: -item[1])
    yield "operators", ", ".join(f"{count} {name}" for name, count in most)
    yield "parameters", f"{found['parameters']:,}"
    if sizes is not None and "peak_bytes" in sizes:
        most_at_once = _megabytes(sizes["peak_bytes"])
        yield "activations", f"{sizes['tokens']} tokens, {most_at_once} at once with batch 1"
    beside = [f"{item['file']} ({_megabytes(item['bytes'])})" for item in found["external_data"]]
    yield "weights beside it", ", ".join(beside)


def _said(export: Facts | None, found: Facts) -> Iterator[Row]:
    """Who made the file, and where it says what it is, when that is not as an export leaves it."""
    producer = "" if found["producer"].startswith("vim-deploy ") else found["producer"]
    if export is None:
        made = "vim-deploy, and a tool left out what it said" if found["was_exported"] else ""
        yield "made by", made or "another exporter: it says nothing about its model"
    elif found["place"] == "doc_string":
        yield "description", "from the text of the graph: a tool left out the metadata"
    yield "last written by", producer
    for name, change in found["changed"].items():
        yield f"changed {name}", f"{change['found']}; the export said {change['said']}"
    yield "in doubt", found["doubt"]


def _engine(found: Facts) -> Iterator[Row]:
    record = found["record"]
    yield "runtime", f"{found['runtime']} {found['runtime_version']}"
    later = " and later" if found["later_gpus"] else ""
    gpus = ", ".join(found["compute_capabilities"])
    yield "compute capability", f"{gpus}{later}" if gpus else ""
    if record is None:
        yield "record", "none beside it: nothing else is known"
        return
    yield "built from", record["source"]["name"]
    yield "built on", record["gpu"]
    yield from _exported(record["export"], record)
    yield "engine's precision", record["precision"]
    for number, profile in enumerate(record["profiles"]):
        for name, sizes in profile.items():
            shapes = " / ".join("x".join(map(str, sizes[key])) for key in ("min", "opt", "max"))
            yield f"profile {number}, {name}", f"{shapes} (smallest / tuned for / largest)"
    yield "layers", str(record["engine_layers"] or record["layers"])
    yield "plugin library", (record["plugin"] or {}).get("name", "")
    counts = record["plugin_layers"].items()
    yield "plugin layers", ", ".join(f"{count} {name}" for name, count in counts)
    marks = {"refittable": record["refittable"], "without weights": record["stripped"]}
    yield "kind of build", ", ".join(name for name, is_so in marks.items() if is_so)
    if record["inner_tensors"]:
        yield "for diagnosis", f"{len(record['inner_tensors'])} inner tensors, verify --per-block"


def _checkpoint(found: Facts) -> Iterator[Row]:
    yield "holds", found["holds"]
    yield "model", found["model"]
    yield "weights", f"{found['part']}: {found['tensors']} tensors"
    yield "parameters", f"{found['parameters']:,}"
    yield from _architecture(found["architecture"], found["dense"])
    for text in (*found["statements"], *found["notes"]):
        yield "", text


def _recipe(found: Facts) -> Iterator[Row]:
    yield "name", found["name"]
    yield "what", found["title"]
    yield "model", found["model"]
    yield "checkpoint", found["checkpoint"]["address"]
    yield from _architecture(found["model_config"], found["dense"])
    yield "preparation", _preparation(found["image"])
    yield "class names", found["labels"] or ""


def _package(found: Facts) -> Iterator[Row]:
    about = found["about"]
    yield "package for", found["target"]
    yield "files", f"{len(found['files'])}, all as the manifest says"
    if found["target"] not in get_args(Target):
        return
    yield "model's name", about["name"]
    yield "runtime", about["runtime"]
    yield "artifact", about["artifact"]["path"]
    inputs = about.get("inputs") or [spec for spec in (about["input"], about.get("size")) if spec]
    yield from _exported(about, {"inputs": inputs, "outputs": about["outputs"]})
    yield "largest batch", str(about["max_batch"]) if "max_batch" in about else ""


def _exported(export: Facts | None, tensors: Facts) -> Iterator[Row]:
    """What an export says of its model, wherever that is stored, and what goes in and out."""
    if export is None:
        yield from _tensors(tensors)
        return
    origin = export["checkpoint"]
    yield "model", f"{export['model']}, weights {origin['part']} of {origin['name']}"
    if "model_config" in export:
        yield from _architecture(export["model_config"], export["dense"] or None)
    yield from _tensors(tensors)
    yield "head", export["head"]
    names = export["labels"]
    shown = ", ".join(names[:_CLASSES_SHOWN]) + (", ..." if len(names) > _CLASSES_SHOWN else "")
    yield "class names", f"{len(names)}: {shown}" if names else ""
    fitted = export["head"] == _FITTED
    yield "preparation", _preparation(export["image"], fitted=fitted)
    left = _LEFT[export["preprocess"]]
    yield "left to the caller", f"{left}; the size of each picture" if fitted else left
    inside = f", {export['io_precision']} in and out" if "io_precision" in export else ""
    if "precision" in export:
        yield "precision", f"{export['precision']}{inside}"
        yield "quantization", _quantization(export, tensors.get("quantized_products"))
    if "graph" in export:
        inlined = ", standard operators only" if export.get("standalone") else ""
        yield "form", f"{export['graph']}, body {export['scan_body']}{inlined}"
        yield "made by", f"vim-deploy {export['tool_version']}"


def _quantization(export: Facts, products: int | None) -> str:
    """How products were quantized; empty where none were."""
    found = export.get("quantization")
    if found is None:
        return ""
    what = f"{products} products" if products is not None else "products"
    said = [f"{what} in {export['precision']}, {found['activations']} scales"]
    seen = found.get("calibration")
    if seen is not None:
        said.append(f"{seen['method']} of {seen['images']} pictures (seed {seen['seed']})")
    if found.get("rounding") == "nearest":
        said.append("weights rounded to nearest")
    said.append(f"the rest in {found['high_precision']}")
    return ", ".join(said)


def _architecture(config: Facts | None, dense: Facts | None) -> Iterator[Row]:
    if config is None:
        return
    found = decode(config, ModelConfig, lambda why: VimDeployError("VIM-201", why))
    what = "" if dense else f", {found.num_classes} classes"
    yield "architecture", f"{found.in_words}{what}"
    yield "dense model", (dense or {}).get("task", "")
    yield from _detector((dense or {}).get("detector"))


def _detector(found: Facts | None) -> Iterator[Row]:
    """What stands behind the pyramid, and how detections are chosen."""
    if found is None:
        return
    stages, masks, proposals = len(found["stages"]), found["mask_head"], found["proposals"]
    kind = f"a cascade of {stages} stages" if stages > 1 else "one stage"
    boxes = "one box for all classes" if found["class_agnostic"] else "a box for each class"
    yield "detector", f"{kind}, {found['num_classes']} classes, {boxes}"
    yield (
        "proposals",
        f"{proposals['post_nms_topk']} of the best {proposals['pre_nms_topk']} of each level, "
        f"IoU above {proposals['nms_threshold']:g} suppresses",
    )
    layers = ", ".join(str(width) for width in found["box_head"]["fc_dims"])
    yield "box head", f"{found['box_head']['convs']} convolutions, then {layers}"
    yield "mask head", f"{masks['convs']} convolutions" if masks else "none"
    yield (
        "detections",
        f"at most {found['detections']} with a score above {found['score_threshold']:g}, IoU above "
        f"{found['nms_threshold']:g} suppresses within a class",
    )


def _tensors(found: Facts) -> Iterator[Row]:
    for what in ("input", "output"):
        for spec in found[f"{what}s"]:
            yield what, f"{spec['name']}: {spec['dtype']} {' x '.join(map(str, spec['shape']))}"


def _preparation(image: Facts, *, fitted: bool = False) -> str:
    colours = "grey" if image["channels"] == 1 else "RGB"
    mean, std = (", ".join(f"{value:g}" for value in image[key]) for key in ("mean", "std"))
    how = "the longer side fitted" if fitted else f"crop {image['crop_ratio']:g}"
    return (
        f"{image['height']} x {image['width']} {colours}, {image['interpolation']}, "
        f"{how}, mean {mean}, std {std}"
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.2f} MB"
