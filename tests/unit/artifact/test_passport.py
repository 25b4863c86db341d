"""What does not belong on this machine is told before anything is loaded."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from tests.support import fake_rtx
from tests.support.engines import record_of, write_engine, write_record
from tests.support.fake_tensorrt.registry import OPS
from tests.support.fake_tensorrt.registry import write_library as write_fake_library
from vim_deploy.artifact import Artifact
from vim_deploy.artifact.passport import Machine, Passport, check_passport
from vim_deploy.artifact.record import PluginIdentity, record_path
from vim_deploy.errors import VimDeployError
from vim_deploy.files import sha256_of
from vim_deploy.ops import contract

HERE = Machine("tensorrt", "10.14.1.48", "9.0", "Fake H200")
OLD = dataclasses.replace(HERE, version="8.6.0")
RTX = Machine("tensorrt-rtx", "1.7.1.116", "8.9", "Fake L4")


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """An engine with its record, both made here."""
    path = write_engine(tmp_path)
    write_record(path, record_of(path))
    return path


def fits(path: Path, machine: Machine = HERE, **options: object) -> Passport:
    """The answer of the check for an engine that fits."""
    return check_passport(Artifact.engine(path), machine, **options)  # type: ignore[arg-type]


def refused(path: Path, machine: Machine = HERE, **options: object) -> VimDeployError:
    """The error of the check; it has one sentence and a fix."""
    with pytest.raises(VimDeployError) as caught:
        fits(path, machine, **options)
    assert "\n" not in caught.value.message
    assert caught.value.fix
    return caught.value


def rerecord(path: Path, **changes: object) -> None:
    """Write the record that a build with other facts would have written."""
    write_record(path, record_of(path, **changes))  # type: ignore[arg-type]


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plugin library, and none that is named or was built here."""
    monkeypatch.delenv("VIM_DEPLOY_PLUGIN", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "elsewhere").mkdir()
    return write_fake_library(tmp_path / "elsewhere" / "libvim_plugins.so")


def identity(library: Path, **changes: object) -> PluginIdentity:
    """What a build with ``library`` records."""
    known = PluginIdentity(
        library.name, sha256_of(library), "1.0", contract.CONTRACT_VERSION, "V3", OPS
    )
    return dataclasses.replace(known, **changes)  # type: ignore[arg-type]


def edit(path: Path, key: str, value: object) -> None:
    """Change the record by hand, as an editor would."""
    place = record_path(path)
    record = json.loads(place.read_text())
    record[key] = value
    place.write_text(json.dumps(record))


def test_engine_made_here_fits(engine: Path) -> None:
    passport = fits(engine, HERE, batch=3)
    assert passport.plugin is None
    assert passport.notes == ()


def test_missing_record_is_a_note(engine: Path) -> None:
    record_path(engine).unlink()
    passport = fits(engine, HERE, batch=3)
    assert any("only its header was checked" in note for note in passport.notes)


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("version", ["10.13.3", "10.14.0", "10.15.1", "11.1.0.106", "10.3.0"])
def test_other_version(engine: Path, recorded: bool, version: str) -> None:
    if not recorded:
        record_path(engine).unlink()
    error = refused(engine, dataclasses.replace(HERE, version=version))
    assert (error.code, int(error.exit_code)) == ("VIM-901", 9)
    assert "10.14.1.48" in error.message
    assert version in error.message


def test_other_build_of_one_release_is_a_note(engine: Path) -> None:
    notes = check_passport(
        Artifact.engine(engine), dataclasses.replace(HERE, version="10.14.1.99")
    ).notes
    assert len(notes) == 1
    assert fits(engine, dataclasses.replace(HERE, version="10.14.1")).notes == ()


def test_other_gpu(engine: Path) -> None:
    error = refused(engine, dataclasses.replace(HERE, compute_capability="8.6", gpu="A10"))
    assert error.code == "VIM-901"
    assert "9.0" in error.message
    assert "A10" in error.message
    assert "--hardware-compat" in error.fix


def test_later_gpus(engine: Path) -> None:
    rerecord(engine, later_gpus=True, compute_capabilities=("8.0", "8.6"))
    for capability in ("8.0", "8.6", "8.9", "9.0", "12.0"):
        check_passport(
            Artifact.engine(engine), dataclasses.replace(HERE, compute_capability=capability)
        )
    assert refused(engine, dataclasses.replace(HERE, compute_capability="7.5")).code == "VIM-901"


def test_truncated_engine(engine: Path) -> None:
    data = engine.read_bytes()
    engine.write_bytes(data[: len(data) // 2])
    error = refused(engine)
    assert (error.code, int(error.exit_code)) == ("VIM-902", 9)
    assert "truncated" in error.why


@pytest.mark.parametrize("content", [b"", b"ftrt", b"#!/bin/sh", bytes(100)])
def test_what_is_no_engine(engine: Path, content: bytes) -> None:
    engine.write_bytes(content)
    assert refused(engine).code == "VIM-413"


def test_edited_engine(engine: Path) -> None:
    data = bytearray(engine.read_bytes())
    data[-1] ^= 1
    engine.write_bytes(bytes(data))
    error = refused(engine)
    assert error.code == "VIM-902"
    assert "SHA-256" in error.why


def test_record_of_another_engine(engine: Path, tmp_path: Path) -> None:
    other = write_engine(tmp_path, name="other.plan", cc="8.6")
    shutil.copy(record_path(engine), record_path(other))
    assert refused(other).code == "VIM-902"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("runtime_version", "10.14.1.99"),
        ("compute_capabilities", ["9.0", "8.6"]),
        ("later_gpus", True),
        ("settings_hash", "0" * 64),
        ("profiles", [{"image": {k: [64, 1, 2, 3] for k in ("min", "opt", "max")}}]),
        ("runtime", "tensorrt-rtx"),
    ],
)
def test_edited_record(engine: Path, key: str, value: object) -> None:
    edit(engine, key, value)
    error = refused(engine)
    assert error.code == "VIM-902"
    assert "record" in error.why


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 99}'])
def test_unreadable_record(engine: Path, text: str) -> None:
    record_path(engine).write_text(text)
    assert refused(engine).code == "VIM-413"


def test_batch_outside_the_profiles(engine: Path) -> None:
    for batch in (0, 5):
        error = refused(engine, batch=batch)
        assert (error.code, int(error.exit_code)) == ("VIM-905", 9)
        assert "1 to 4" in error.why
    rerecord(engine, profiles=((1, 2, 4), (8, 8, 8)))
    fits(engine, HERE, batch=8)
    assert refused(engine, batch=6).code == "VIM-905"


def test_engine_of_rtx_with_full_tensorrt(tmp_path: Path) -> None:
    path = tmp_path / "rtx.plan"
    path.write_bytes(fake_rtx.plan_bytes())
    error = refused(path)
    assert error.code == "VIM-901"
    assert "TensorRT-RTX" in error.message


def test_engine_of_rtx_needs_an_rtx_gpu(tmp_path: Path) -> None:
    path = tmp_path / "rtx.plan"
    path.write_bytes(fake_rtx.plan_bytes())
    fits(path, RTX)
    for capability in ("9.0", "7.5"):
        error = refused(path, dataclasses.replace(RTX, compute_capability=capability))
        assert error.code == "VIM-901"
        assert "RTX GPU" in error.fix


def test_unknown_header_of_8_6_is_said_and_not_refused(tmp_path: Path) -> None:
    path = write_engine(tmp_path, "8.6.0")
    data = bytearray(path.read_bytes())
    data[24:28] = bytes(4)
    path.write_bytes(bytes(data))
    assert any("is not known" in note for note in fits(path, OLD).notes)
    path.write_bytes(b"\x01\x02\x03\x04" + bytes(200))
    passport = fits(path, OLD)
    assert Artifact.engine(path).known_header is None
    assert any("not known" in note for note in passport.notes)
    assert refused(path, HERE).code == "VIM-413"
    path.write_bytes(b"ftrt")
    assert refused(path, OLD).code == "VIM-413"


def test_record_decides_for_8_6(tmp_path: Path) -> None:
    path = write_engine(tmp_path, "8.6.0")
    rerecord(path, version="8.6.0")
    assert fits(path, OLD).notes == ()
    rerecord(path, version="8.6.1")
    assert refused(path, OLD).code == "VIM-901"


def test_named_plugin_has_to_exist(engine: Path, tmp_path: Path) -> None:
    assert refused(engine, plugin=tmp_path / "missing.so").code == "VIM-401"
    library = tmp_path / "p.so"
    library.write_bytes(b"x")
    passport = fits(engine, HERE, plugin=library)
    assert passport.plugin == library
    assert any("needs no plugin" in note for note in passport.notes)


def test_library_of_the_build_is_found(
    engine: Path, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rerecord(engine, plugin=identity(library))
    error = refused(engine)
    assert (error.code, int(error.exit_code)) == ("VIM-903", 9)
    assert "libvim_plugins.so" in error.message
    assert fits(engine, HERE, plugin=library).notes == ()
    beside = engine.parent / library.name
    shutil.copy(library, beside)
    assert fits(engine, HERE).plugin == beside
    beside.unlink()
    built = tmp_path / "cache" / "vim-deploy" / "plugins" / "abc" / library.name
    built.parent.mkdir(parents=True)
    shutil.copy(library, built)
    newer = built.parents[1] / "def" / library.name
    newer.parent.mkdir()
    newer.write_text("another library")
    assert fits(engine, HERE).plugin == built
    built.unlink()
    assert refused(engine).code == "VIM-903"
    monkeypatch.setenv("VIM_DEPLOY_PLUGIN", str(library))
    assert fits(engine, HERE).plugin == library


def test_another_library_only_when_it_is_named(engine: Path, library: Path) -> None:
    rerecord(engine, plugin=identity(library, sha256="0" * 64))
    assert refused(engine).code == "VIM-903"
    passport = fits(engine, HERE, plugin=library)
    assert passport.plugin == library
    assert any("not the library" in note for note in passport.notes)


def test_library_of_another_contract(engine: Path, library: Path) -> None:
    other = identity(library, contract_version=contract.CONTRACT_VERSION + 1)
    rerecord(engine, plugin=other)
    error = refused(engine, plugin=library)
    assert error.code == "VIM-903"
    assert "contract" in error.message


def test_embedded_library_needs_no_file(engine: Path, library: Path) -> None:
    rerecord(engine, plugin=identity(library, embedded=True), flags=("VERSION_COMPATIBLE",))
    assert fits(engine, HERE).plugin is None
    assert fits(engine, HERE, plugin=library).plugin == library


def test_version_compatible_engine_runs_in_later_versions(engine: Path) -> None:
    rerecord(engine, flags=("FP16", "VERSION_COMPATIBLE"))
    for version in ("10.15.1", "11.1.0"):
        notes = check_passport(
            Artifact.engine(engine), dataclasses.replace(HERE, version=version)
        ).notes
        assert any("version-compatible" in note for note in notes)
    error = refused(engine, dataclasses.replace(HERE, version="10.3.0"))
    assert error.code == "VIM-901"
    assert "later" in error.why


def test_stripped_engine_is_refused(engine: Path) -> None:
    rerecord(engine, stripped=True)
    error = refused(engine)
    assert error.code == "VIM-413"
    assert "refit" in error.fix


def test_other_model_of_gpu_is_a_note(engine: Path) -> None:
    rerecord(engine, gpu="Fake H100")
    assert any("Fake H100" in note for note in fits(engine, HERE).notes)
    rerecord(engine, gpu=HERE.gpu)
    assert fits(engine, HERE).notes == ()
