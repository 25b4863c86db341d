"""Records that vim-deploy's own builders write, read by the C++ runtime.

The engines come from the builder for full TensorRT, on its stand-in in Python, and from the real
TensorRT-RTX. The C++ stand-in of TensorRT loads plans of its own form, so an engine's bytes are
exchanged for one with the same tensors and profiles, and the record's hashes with them; everything
else in the record is what the builder wrote.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import cpp, cpp_builds
from tests.support.builds import build_engine_rtx, build_engine_trt, needs_rtx
from tests.support.source import REPOSITORY
from tests.support.trt_builds import make_machine
from vim_deploy.artifact.profiles import ProfileOptions
from vim_deploy.artifact.record import EngineRecord, FileIdentity, read_record, record_path
from vim_deploy.codec import encode
from vim_deploy.files import sha256_of, write_json
from vim_deploy.runtimes.building.request import TrtOptions

torch = pytest.importorskip("torch", reason="not checked here: torch is not installed")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published digits recipe, exported."""
    from vim_deploy.recipe.schema import ModelRequest
    from vim_deploy.stages.export_options import ExportOptions
    from vim_deploy.stages.exporting import export

    output = tmp_path_factory.mktemp("exported") / "digits.onnx"
    request = ModelRequest(str(REPOSITORY / "export" / "vim-digits.toml"))
    return export(request, output, ExportOptions(check=False)).path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.pgm"
    Image.fromarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)).save(path)
    return path


def exchange(plan: Path, record: EngineRecord, *lines: str) -> EngineRecord:
    """Put a plan of the C++ stand-in in the engine's place; the record that goes with it."""
    plan.write_bytes(cpp.engine_of(record, *lines).plan())
    record = dataclasses.replace(record, plan=FileIdentity.of(plan))
    write_json(record_path(plan), encode(record))
    return record


def check_read(plan: Path, record: EngineRecord) -> None:
    """Every field that the C++ library reads of the record is as it was written."""
    done = cpp_builds.run(cpp_builds.need_program("units"), "record", record_path(plan))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == cpp.said_of_record(record)


def check_classified(plan: Path, picture: Path, labels: tuple[str, ...], capability: str) -> None:
    program = cpp_builds.need_program("classify")
    capability = capability.replace(".", "")
    done = cpp_builds.run(program, "--top-k", "2", plan, picture, FAKE_CUDA_CAPABILITY=capability)
    assert done.returncode == 0, done.stderr
    name, *classes = done.stdout.splitlines()
    assert name == str(picture)
    assert len({line.split(maxsplit=1)[1] for line in classes} & set(labels)) == 2


def test_record_of_full_tensorrt(
    monkeypatch: pytest.MonkeyPatch, model: Path, picture: Path, tmp_path: Path
) -> None:
    fakes = cpp_builds.need_fakes()
    make_machine(monkeypatch, tmp_path, "10.14")
    plan = tmp_path / "digits.plan"
    record = build_engine_trt(model, plan, profiles=ProfileOptions(max_batch=4))
    assert record.plugin is not None
    assert record.export is not None
    check_read(plan, record)
    # The builder's stand-in has a plugin library that cannot be opened; this one can.
    shutil.copy(fakes.plugin("good"), tmp_path / record.plugin.name)
    library = dataclasses.replace(record.plugin, sha256=sha256_of(fakes.plugin("good")))
    record = exchange(plan, dataclasses.replace(record, plugin=library), "plugins")
    check_read(plan, record)
    check_classified(plan, picture, record.export.labels, record.compute_capabilities[0])
    # And without the library that the record names.
    (tmp_path / record.plugin.name).unlink()
    capability = record.compute_capabilities[0].replace(".", "")
    done = cpp_builds.run(
        cpp_builds.need_program("classify"), plan, picture, FAKE_CUDA_CAPABILITY=capability
    )
    assert done.returncode == 9
    assert "VIM-903" in done.stderr


def test_record_with_every_flag(
    monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path
) -> None:
    cpp_builds.need_fakes()
    make_machine(monkeypatch, tmp_path, "10.14")
    plan = tmp_path / "digits.plan"
    options = TrtOptions(version_compatible=True, embed_plugin=True, strip_weights=True)
    record = build_engine_trt(model, plan, options=options, precision="fp16")
    assert record.plugin is not None
    assert record.plugin.embedded
    assert record.stripped
    assert "VERSION_COMPATIBLE" in record.flags
    check_read(plan, record)


@pytest.mark.rtx
@needs_rtx
def test_record_of_tensorrt_rtx(model: Path, picture: Path, tmp_path: Path) -> None:
    cpp_builds.need_fakes()
    plan = tmp_path / "digits.plan"
    written = build_engine_rtx(model, plan, profiles=ProfileOptions(max_batch=4))
    record = read_record(plan)
    assert record == written
    check_read(plan, record)
    done = cpp_builds.run(cpp_builds.need_program("classify"), plan, picture)
    assert done.returncode == 9
    assert "TensorRT-RTX" in done.stderr
    # As full TensorRT would have recorded it.
    version = ".".join(map(str, cpp.VERSION))
    record = exchange(
        plan, dataclasses.replace(record, runtime="tensorrt", runtime_version=version)
    )
    assert record.export is not None
    check_classified(plan, picture, record.export.labels, record.compute_capabilities[0])
