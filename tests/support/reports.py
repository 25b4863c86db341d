"""Records of runs as their reports get them: good ones, failed ones, ones with hostile names."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.bench import bench_report, measured, subject
from tests.support.engines import EXPORT, record_of, write_engine
from vim_deploy.bench.compare import Baseline, compared
from vim_deploy.bench.measure import FAILED, SKIPPED, Measurement
from vim_deploy.bench.side_by_side import Wanted, side_by_side
from vim_deploy.codec import decode, encode
from vim_deploy.errors import VimDeployError
from vim_deploy.parity.accuracy import AccuracyReport, Limits, SideAccuracy
from vim_deploy.parity.agreement import Unread
from vim_deploy.parity.blocks import BlockReport, PartError
from vim_deploy.parity.class_agreement import (
    Answer,
    ClassAgreement,
    LabelledAnswers,
    PictureAnswers,
)
from vim_deploy.parity.comparison import Comparison
from vim_deploy.parity.detection_agreement import DetectionAgreement, PictureDetections
from vim_deploy.parity.ladder import Ladder, Rung
from vim_deploy.parity.limits import detection_limits
from vim_deploy.parity.metrics import Tolerance, compare
from vim_deploy.parity.paired import paired_difference
from vim_deploy.parity.pixel_agreement import ClassMaps, PictureMaps, PixelAgreement
from vim_deploy.parity.report import CaseResult, ParityReport
from vim_deploy.places import BEHIND_BLOCKS, place
from vim_deploy.scene.thumbnails import data_uri
from vim_deploy.stages.comparing_report import ComparedPictures, CompareLimits, CompareReport
from vim_deploy.stages.comparing_sides import ComparedSide
from vim_deploy.stages.reporting import provenance

#: Names that would do harm in HTML, an attribute, a Markdown table or a terminal.
HOSTILE = (
    "<script>alert(1)</script>",
    "\"onload='x'&amp;<img src=http://evil.example/x.png>",
    "a|b](http://evil.example)`**_~\n# c",
    "\x1b[31m\x00\u202egnp.exe\udcff",
)
SHA = "0123456789abcdef" * 4
COMMAND = ("vim-deploy", "verify", "my model.onnx", "--against", "$(rm -rf x).pth")
ABOUT = provenance("seed:0")
_SIZES = ((224, 197), (512, 1025), (1248, 6085))


def parity(
    names: tuple[str, ...] = ("logits",), noise: float = 1e-6, depth: int = 0, **changes: Any
) -> dict[str, Any]:
    """Outputs called ``names`` with differences of size ``noise``; with ``depth`` its blocks."""
    generator = np.random.default_rng(0)
    results = []
    for number, batch in enumerate((1, 2, 5)):
        comparisons = []
        for name in names:
            right = generator.standard_normal((5, 10)).astype(np.float32)
            # The first case is exact, as one of a graph against itself is.
            wrong = right + generator.standard_normal((5, 10)).astype(np.float32) * noise * number
            comparisons.append(compare(name, right, wrong, Tolerance()))
        results.append(CaseResult(f"random of {names[0]}", batch, tuple(comparisons)))
    report = ParityReport(
        artifact="my model.onnx",
        artifact_sha256=SHA,
        reference="PyTorch 2.13.0 CPU",
        candidate="ONNX Runtime 1.32.0 CPU",
        tolerance=Tolerance(),
        results=tuple(results),
        command=COMMAND,
        notes=("a note",),
    )
    if depth:
        report = dataclasses.replace(report, blocks=blocks(depth), ladder=ladder(report.results))
    return {**encode(report), **ABOUT, **changes}


def nan_on_one_side() -> Comparison:
    """What could not be compared."""
    return compare("logits", np.ones((2, 3)), np.full((2, 3), np.nan), Tolerance())


def incomparable() -> dict[str, Any]:
    """A run with NaN on one side only."""
    value = parity()
    value["results"][0]["outputs"] = [encode(nan_on_one_side())]
    return {**value, "passed": False}


def blocks(depth: int, broken: int | None = None) -> BlockReport:
    """The comparison part by part: errors that grow, too large from ``broken`` on."""
    names = [("residual", ""), ("norm", ""), ("in_proj", ""), ("conv", "fwd"), ("conv", "bwd")]
    names += [("scan", "fwd"), ("scan", "bwd"), ("mixed", ""), ("out_proj", "")]
    parts = []
    for block in range(depth):
        for step, (part, direction) in enumerate(names):
            error = 1e-7 * (1 + block) * (1 + step / 5)
            if broken is not None and block >= broken:
                error *= 3e4
            if block == 0 and part == "residual":
                error = 0.0
            parts.append(PartError(place(block, part, direction), error, 3 * error))
    parts.append(PartError(place(BEHIND_BLOCKS, "norm_f"), 3e-6, 1e-5))
    return BlockReport(tuple(parts), 1e-4, broken is None, ("block 3 dt_proj fwd",), "random, 4")


def ladder(results: tuple[CaseResult, ...]) -> Ladder:
    """Three rungs, of which the last is broken in block 2."""
    broken = (CaseResult("random", 1, (nan_on_one_side(),)),)
    rungs = (
        Rung("PyTorch float32", "PyTorch", "", Tolerance(), (), 1.25),
        Rung("base ONNX", "ONNX Runtime", "PyTorch float32", Tolerance(), results, 1.25),
        Rung("fused ONNX", "ONNX Runtime", "base ONNX", Tolerance(), broken, 1.25),
    )
    return Ladder(rungs, ("typed ONNX",), blocks(4, broken=2))


def not_made() -> dict[str, Any]:
    """A ladder whose second rung could not be made."""
    rungs = (
        Rung("PyTorch float32", "PyTorch", "", Tolerance(), (), 1.25),
        Rung("base ONNX", "", "PyTorch float32", Tolerance(), (), 0.5, f"VIM-501: {HOSTILE[0]}"),
    )
    record = encode(Ladder(rungs, ("fused ONNX",), note="it has no inner tensors"))
    return parity(results=[], passed=False, ladder=record)


def accuracy(**changes: Any) -> dict[str, Any]:
    """360 images, two flips."""
    report = AccuracyReport(
        artifact="my model.onnx",
        artifact_sha256=SHA,
        dataset="digits",
        classes_by="folders named like the labels",
        images=360,
        unreadable=((HOSTILE[0], "not an image"), ("c/broken.jpg", "cut off")),
        reference=SideAccuracy("PyTorch 2.13.0 CPU", 346, 359, (), 360),
        candidate=SideAccuracy("ONNX Runtime 1.32.0 CPU", 344, 359, (), 360),
        same_class=357,
        top1=paired_difference(2, 0, 360),
        top5=paired_difference(0, 0, 360),
        limits=Limits(max_loss=0.05),
        command=COMMAND,
    )
    return {**encode(report), **ABOUT, **changes}


def comparison(**changes: Any) -> dict[str, Any]:
    """40 pictures, of which three get another class and one no answer, with hostile names."""

    def answer(index: int, probability: float) -> Answer:
        return Answer(index, HOSTILE[index % 4], probability, probability / 3)

    rows = [
        PictureAnswers(f"c/{number}.png", answer(1, 0.6), answer(1, 0.59), True, True, 0.01, "one")
        for number in range(36)
    ]
    rows += [
        PictureAnswers(name, answer(0, 0.4), answer(2, 0.5), False, False, 0.3, "two")
        for name in HOSTILE[:3]
    ]
    rows.append(PictureAnswers("nan.png", answer(0, 0.4), None, False, None, None, "two"))
    side = ComparedSide(
        "a.onnx", "ONNX file", 4 << 20, SHA, "fp32", "logits", (32, 32), "x.pth", "ONNX Runtime"
    )
    times = [measured("a", 10.0), measured("b", 5.0), *(
        measured(name, time, group=1, batch=8) for name, time in (("a", 80.0), ("b", 90.0))
    )]  # fmt: skip
    for item in times:
        item.subject.facts["sha256"] = item.subject.label
    report = CompareReport(
        side,
        dataclasses.replace(side, name=HOSTILE[1], bytes=2 << 20, precision="fp16"),
        ComparedPictures(
            HOSTILE[2], 40, True, "folders", (Unread(HOSTILE[0], HOSTILE[3]),), ("left out",)
        ),
        ClassAgreement(
            tuple(rows),
            LabelledAnswers(
                38, 35, 40, 39, paired_difference(4, 1, 40), paired_difference(1, 0, 40)
            ),
        ),
        side_by_side(bench_report(*times), Wanted("a"), Wanted("b")),
        "",
        CompareLimits(max_disagreement=0.05),
        ("a note",),
        COMMAND,
    )
    shown = {
        HOSTILE[0]: data_uri(np.arange(64, dtype=np.uint8).reshape(8, 8, 1)),
        HOSTILE[1]: "http://evil.example/x.png",
        "c/0.png": 'data:image/png;base64,AA" onload="x',
    }
    return {**encode(report), **ABOUT, "thumbnails": shown, **changes}


def dense_comparison(kind: str) -> dict[str, Any]:
    """Segmentation networks or detectors, without time."""
    if kind == "segmentation":
        found: Any = PixelAgreement(
            (PictureMaps(HOSTILE[0], 20, 30, 17), PictureMaps("b.png", 4, 4, None, "B: NaN")),
            (ClassMaps(0, HOSTILE[1], 500, 490, 480), ClassMaps(2, "road", 100, 110, 95)),
            "fp16",
            0,
            1,
        )
    else:
        rows = (
            PictureDetections(HOSTILE[0], 3, 4, 3, 1, 0.2, 0.01, None),
            PictureDetections("b.png", 0, 0, 0, 0, None, None, None, 0.0, "A: NaN"),
        )
        found = DetectionAgreement(rows, detection_limits("fp16"), 1, 0)
    return comparison(
        found=encode(found), statement=list(found.sentences), time=None, untimed="no", thumbnails={}
    )


def bench(label: str = "vim") -> dict[str, Any]:
    """Vim and DeiT over three sizes, one skipped and one failed, against an earlier run."""
    value: dict[str, Any] = json.loads(_bench())
    for entry in (*value["results"], *value["ratios"], *value["scaling"]):
        entry.update({key: label for key in ("label", "to") if entry.get(key) == "vim"})
    return value


@functools.cache
def _bench() -> str:
    items = []
    for group, (side, tokens) in enumerate(_SIZES):
        place = {"group": group, "image": (side, side), "tokens": tokens}
        items.append(measured("vim", tokens / 10, **place))
        items.append(measured("deit", tokens**2 / 1e4, memory=tokens**2 * 12, **place))
    generator = np.random.default_rng(0)
    for item in items:
        item.turns = [turn * generator.lognormal(0, 0.05, turn.shape) for turn in item.turns]
    items[0].device_turns = [turn * 0.8 for turn in items[0].turns]
    taken = {"engine": 10 << 20, "context": 5 << 20, "contexts": 2, "buffers": 1 << 20}
    items[0].memory["device"] = taken
    items.append(Measurement(subject("big"), 9, SKIPPED, "needs about 90 GB"))
    report = bench_report(*items, command=("vim-deploy", "bench", "my model.onnx"))
    slower = bench_report(
        *(measured(i.subject.label, 12.0, image=i.subject.image) for i in items if i.ok)
    )
    baseline = decode(encode(slower), Baseline, lambda why: VimDeployError("VIM-418", why))
    value = encode(compared(report, baseline, "old.json", 0.05))
    failed = bench_report(Measurement(subject("bad"), 10, FAILED, f"killed {HOSTILE[0]}"))
    value["results"] += encode(failed)["results"]
    return json.dumps(value)


def bisect() -> dict[str, Any]:
    """Two parts to keep; what happens without the third was not tried."""
    kept = {"passed": True, "relative_l2": 4e-3, "why": ""}
    units = [{"role": role, "block": block} for role, block in (("A", 3), ("norm_f", None))]
    return {
        "subject": "my model.onnx",
        "precision": "fp16",
        "reference": "PyTorch 2.13.0 CPU",
        "candidate": "ONNX Runtime 1.32.0 CPU",
        "tolerance": {**parity()["tolerance"], "atol": None, "relative_l2": 0.01, "kl": 0.5},
        "units": [*units, {"role": HOSTILE[0], "block": 1}],
        "minimal": False,
        "evaluations": 17,
        "parts": 96,
        "nothing_kept": {"passed": False, "relative_l2": None, "why": "NaN"},
        "kept": kept,
        "without": [{**units[0], **kept, "relative_l2": 0.05}, {**units[1], **kept}],
        "policy": {},
        "command": list(COMMAND),
        **ABOUT,
    }


def one_measurement() -> dict[str, Any]:
    """A single model at a single size, called so few times that there are no percentiles."""
    item = measured()
    item.turns = [np.array([0.25])] * 3
    item.memory = {}
    return encode(bench_report(item))


def deploy(folder: Path, failure: dict[str, Any] | None = None) -> dict[str, Any]:
    """An export with its proof and an engine; with ``failure`` without the engine."""
    engine = encode(record_of(write_engine(folder)))
    export = dataclasses.replace(
        EXPORT, checkpoint=dataclasses.replace(EXPORT.checkpoint, sha256=SHA)
    )
    return {
        "tool": "vim-deploy 0.1.0",
        "folder": "vim-deploy-work/001-a",
        "onnx": "model.onnx",
        "export": encode(export),
        "notes": ["position embedding as it was"],
        "parity": parity(),
        "engine": None if failure else engine,
        "seconds": {"export": 3.2, "verify": 1.5, **({} if failure else {"build-engine": 25.1})},
        "failure": failure,
        "environment": ABOUT["environment"],
    }


def samples(folder: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name -> kind of report and record."""
    failure = {"code": "VIM-603", "message": "engine build failed", "why": HOSTILE[0], "fix": ""}
    many = tuple(f"output {number} of a long list of outputs" for number in range(12))
    return {
        "parity": ("parity", parity()),
        "parity-deep": ("parity", parity(depth=24)),
        "parity-many": ("parity", parity(many, noise=1e-3)),
        "parity-hostile": ("parity", parity(HOSTILE)),
        "parity-incomparable": ("parity", incomparable()),
        "parity-not-made": ("parity", not_made()),
        "parity-nothing": ("parity", parity(results=[], passed=False)),
        "accuracy": ("accuracy", accuracy()),
        "accuracy-top1": ("accuracy", accuracy(top5=None)),
        "bisect": ("bisect", bisect()),
        "compare": ("compare", comparison()),
        "compare-pixels": ("compare", dense_comparison("segmentation")),
        "compare-detections": ("compare", dense_comparison("detections")),
        "bench": ("bench", bench()),
        "bench-hostile": ("bench", bench(HOSTILE[1])),
        "bench-one": ("bench", one_measurement()),
        "deploy": ("deploy", deploy(folder)),
        "deploy-failed": ("deploy", deploy(folder, failure)),
    }
