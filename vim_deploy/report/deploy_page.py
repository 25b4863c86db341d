"""``deploy.json`` as a document: what was made, from what, and that it is right."""

from __future__ import annotations

from collections.abc import Iterator

from vim_deploy.report import charts
from vim_deploy.report.charts import BarRow, Captions, told
from vim_deploy.report.document import (
    Document,
    Facts,
    Figure,
    Item,
    Section,
    Table,
    Value,
    command_section,
    environment_section,
    image_size,
    made_by,
    notes_section,
    number,
    record_facts,
    size_of,
)
from vim_deploy.report.parity_page import parity_sections, verdict

#: Fields of the export and of the engine's record that stand in the report, in this order.
_EXPORT = (
    *("model", "graph", "precision", "io_precision", "opset", "preprocess", "head"),
    *("pos_embed", "scan_body", "settings_hash"),
)
_ENGINE = (
    *("runtime", "runtime_version", "gpu", "compute_capabilities", "hardware_compat"),
    *("precision", "layers", "engine_layers", "plugin_layers", "layer_types", "flags"),
    *("refittable", "stripped", "device_memory_bytes", "peak_memory_bytes", "build_seconds"),
    "settings_hash",
)


def deploy_document(value: Value) -> Document:
    """The report of one ``deploy``; of one that stopped as well, with the reason."""
    parity, engine, failure = value["parity"], value["engine"], value.get("failure")
    sentences = verdict(parity)
    if engine is not None:
        sentences.append(f"The engine {engine['plan']['name']} was built.")
    if failure:
        sentences.append(f"Stopped by {failure['code']}: {failure['message']}.")
    return Document(
        title=f"Deployment of {value['export']['checkpoint']['name']}",
        passed=not failure and bool(parity["passed"]),
        verdict=sentences,
        made_by=made_by(value),
        sections=[
            Section("failure", "Why it stopped", list(_failure(failure))),
            Section("made", "What was made", list(_made(value))),
            *parity_sections(parity),
            Section("engine", "Engine", list(_engine(engine))),
            notes_section([*value["notes"], *parity["notes"]]),
            environment_section(value.get("environment")),
            command_section(parity["command"]),
        ],
    )


def _failure(failure: Value | None) -> Iterator[Item]:
    if failure:
        yield Facts([(key, str(text)) for key, text in failure.items() if text])


def _made(value: Value) -> Iterator[Item]:
    info = value["export"]
    checkpoint = info["checkpoint"]
    facts = [
        ("folder", str(value["folder"])),
        ("ONNX file", str(value["onnx"])),
        ("SHA-256", str(value["parity"]["artifact_sha256"])),
        ("checkpoint", str(checkpoint["name"])),
        ("SHA-256 of the checkpoint", str(checkpoint["sha256"]) or "- (seeded weights)"),
        ("part of the checkpoint", str(checkpoint["part"])),
    ]
    facts += [(key.replace("_", " "), str(info[key])) for key in _EXPORT if info.get(key)]
    image = info["image"]
    picture = f"{image['height']}x{image['width']}, {image['channels']} channels, "
    facts.append(("picture", picture + f"{image['interpolation']}, crop {image['crop_ratio']}"))
    yield Facts(facts)
    if value["seconds"]:
        yield _stages(value["seconds"])


def _stages(seconds: Value) -> Figure:
    rows = [BarRow(stage, f"{number(time)} s", [time]) for stage, time in seconds.items()]
    captions = Captions(
        "Time of each stage",
        told(rows),
        "seconds",
        "figure-stages",
    )
    return charts.bars(captions, rows, ["seconds"])


def _engine(engine: Value | None) -> Iterator[Item]:
    if engine is None:
        return
    yield Facts(list(_engine_facts(engine)))
    rows = [
        (str(index), name, *(image_size(bounds[key]) for key in ("min", "opt", "max")))
        for index, profile in enumerate(engine["profiles"])
        for name, bounds in profile.items()
    ]
    columns = ("profile", "input", "smallest", "tuned for", "largest")
    yield Table("Optimisation profiles", columns, rows, frozenset({1}))


def _engine_facts(engine: Value) -> Iterator[tuple[str, str]]:
    yield "plan", str(engine["plan"]["name"])
    yield "SHA-256", str(engine["plan"]["sha256"])
    yield "size", size_of(engine["plan"]["bytes"])
    yield "source", str(engine["source"]["name"])
    yield "SHA-256 of the source", str(engine["source"]["sha256"])
    yield from record_facts({key: engine[key] for key in _ENGINE if engine.get(key)})
    plugin = engine.get("plugin")
    if plugin:
        yield "plugin library", f"{plugin['name']} {plugin['version']}, {plugin['interface']}"
        yield "SHA-256 of the library", str(plugin["sha256"])
