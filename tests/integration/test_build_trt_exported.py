"""Exported models through the builder for full TensorRT, on the fake, in every version."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.builds import build_engine_trt
from tests.support.trt_builds import VERSIONS, make_machine
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.building.request import TrtOptions
from vim_deploy.stages.inspecting import inspect

torch = pytest.importorskip("torch", reason="not checked here: torch is not installed")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """A two-layer model, exported as float32, float16 and bfloat16."""
    from tests.support.models import perturbed, save_training_file, tiny_config
    from vim_deploy.families.vim.network.vim import VisionMamba
    from vim_deploy.recipe.schema import ModelRequest
    from vim_deploy.stages.export_options import ExportOptions
    from vim_deploy.stages.exporting import export

    folder = tmp_path_factory.mktemp("exported")
    config = tiny_config()
    checkpoint = save_training_file(perturbed(VisionMamba(config)), folder / "tiny.pth")
    request = ModelRequest(str(checkpoint), config=encode(config))
    made = {}
    for precision in ("fp32", "fp16", "bf16"):
        options = ExportOptions(precision=precision, check=False)
        made[precision] = export(request, folder / f"{precision}.onnx", options).path
    return made


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("file", "asked"),
    [("fp32", ""), ("fp32", "fp32"), ("fp16", ""), ("fp16", "fp16"), ("fp32", "fp16"),
     ("bf16", "bf16"), ("fp32", "bf16")],
)  # fmt: skip
def test_export_to_engine(monkeypatch, tmp_path, files, version, file, asked):
    machine = make_machine(monkeypatch, tmp_path, version)
    wanted = asked or file
    if version == "8.6" and wanted == "bf16":
        with pytest.raises(VimDeployError, match="bf16") as caught:
            build_engine_trt(files[file], tmp_path / "m.plan", precision=asked)
        assert caught.value.code == "VIM-309"
        return
    before = files[file].read_bytes()
    record = build_engine_trt(files[file], tmp_path / "m.plan", precision=asked)
    assert files[file].read_bytes() == before
    assert record.precision == record.export.precision == wanted
    assert record.plugin_layers == {"VimBiCausalConv": 2, "VimBiSelectiveScan": 2}
    assert any(step.startswith("typed as") for step in record.lowering) == (wanted != file)
    half = {"fp32": None, "fp16": "float16", "bf16": "bfloat16"}[wanted]
    if half is not None:
        assert record.layer_types[half] >= 10
        assert record.layer_types["float32"] >= 4
    assert inspect(tmp_path / "m.plan")["record"] == encode(record)
    assert machine.jobs[0]["plugin_counts"] == dict(record.plugin_layers)


def test_typing_in_memory_gives_what_the_export_gives(monkeypatch, tmp_path, files):
    """The same layers with the same types, whoever typed the graph."""
    found = []
    for file in ("fp16", "fp32"):
        make_machine(monkeypatch, tmp_path, "10.14")
        plan = tmp_path / f"{file}.plan"
        record = build_engine_trt(files[file], plan, precision="fp16")
        found.append((record.layer_types, record.plugin_layers, record.engine_layers))
    assert found[0] == found[1]


@pytest.mark.parametrize("version", VERSIONS)
def test_without_the_plugin(monkeypatch, tmp_path, files, version):
    make_machine(monkeypatch, tmp_path, version)
    options = TrtOptions(plugin="none")
    record = build_engine_trt(files["fp16"], tmp_path / "m.plan", options=options)
    assert record.plugin is None
    assert record.precision == "fp16"
