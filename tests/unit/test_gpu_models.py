"""``benchmarks/gpu/models.py`` on a CPU, the kernels by the ops' references."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.source import REPOSITORY

torch = pytest.importorskip("torch", reason="not checked here: torch is not installed")

from tests.support.reference_kernels import ReferenceKernels  # noqa: E402
from vim_deploy.families.vim.config import VimConfig  # noqa: E402
from vim_deploy.families.vim.network.vim import VisionMamba  # noqa: E402
from vim_deploy.model.seeding import seed_weights  # noqa: E402
from vim_deploy.plugin.kernels import DataType  # noqa: E402

GPU = REPOSITORY / "benchmarks" / "gpu"
CONFIG = VimConfig(img_size=32, depth=1, embed_dim=32, num_classes=10, final_pool_type="mean")
FUSED = ("vim fused kernels", "vim fused kernels, dt projected before")
#: What the classifier's file of a checkout imports, in little.
CHECKOUT = """
import selective_scan_cuda, causal_conv1d_cuda
from mamba_ssm.utils.generation import GenerationMixin
from mamba_ssm.utils.hf import load_config_hf, load_state_dict_hf
from timm.models.layers import moved
from timm.models.registry import registered
from timm.models.vision_transformer import _cfg, _load_weights
from vim_deploy.families.vim.config import VimConfig
from vim_deploy.families.vim.network.vim import VisionMamba as Ours


def VisionMamba(**keywords):
    assert _cfg(url="") == {}
    return Ours(VimConfig(**keywords))
"""
TIMM = {
    "timm/__init__.py": "",
    "timm/layers.py": "moved = 1",
    "timm/models/__init__.py": "registered = 1",
    "timm/models/vision_transformer.py": "",
}


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(GPU))
    if not os.environ.get("VIM_TEST_ALL"):
        import subjects

        monkeypatch.setattr(subjects, "build_deit", small_deit)
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("timm", "mamba_ssm", "models_mamba"):
            del sys.modules[name]


def small_deit(size: str, image: tuple[int, int], attention: str) -> Any:
    """What takes the place of DeiT-Ti, which takes seconds to make."""
    assert (size, image) == ("tiny", (32, 32))
    assert attention in ("eager", "sdpa")
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10)).eval()


def checkout(folder: Path) -> tuple[Path, Path]:
    """A stand-in of the official code, and of its built extensions."""
    files = {f"vim/{name}": text for name, text in TIMM.items()}
    files |= {"vim/models_mamba.py": CHECKOUT, "mamba-1p1p1/mamba_ssm/__init__.py": "1 / 0"}
    files |= {"causal-conv1d/causal_conv1d.py": "", "ext/selective_scan_cuda.py": ""}
    files["ext/causal_conv1d_cuda.py"] = ""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder, folder / "ext"


def plan(**given: Any) -> Any:
    from subjects import Plan

    sizes = {32: (2,)}
    return Plan(ReferenceKernels(), "cpu", CONFIG, sizes, turn=0.0, **given)


def test_everything_is_compared_and_timed(tmp_path: Path) -> None:
    from models import Results, claims, run

    code, extensions = checkout(tmp_path)
    wanted = plan(checkout=code, extensions=extensions)
    results = Results(tmp_path / "out.json", wanted)
    run(wanted, results)
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["failed"] == {}
    assert found["left_out"] == {}
    assert results.good
    vims = {*FUSED, "vim official", "vim scan kernels"}
    deits = {"deit eager", "deit sdpa", "deit sdpa, fp16 weights"}
    agreement = found["agreement"]
    assert {(row["subject"], row["dtype"]) for row in agreement} == {
        (name, dtype) for name in vims for dtype in ("fp32", "fp16")
    }
    assert all(row["against"] == "vim module, CPU" and row["ok"] for row in agreement)
    far = {(row["subject"], row["dtype"]): row["relative_l2"] for row in agreement}
    assert far["vim scan kernels", "fp32"] == far["vim official", "fp32"] == 0.0
    # The fused forms compute something else than the module, and half precision is half.
    assert 0 < far["vim fused kernels", "fp32"] < 1e-5 < far["vim fused kernels", "fp16"]
    rows = found["rows"]
    assert {(row["subject"], row["batch"]) for row in rows} == {(name, 2) for name in vims | deits}
    assert all(row["calls"] == 3 and row["median_ms"] > 0 for row in rows)
    assert len(found["claim"]) == 6
    rows = [
        {"subject": name, "size": 32, "batch": 2, "graph": False, "median_ms": ms, "peak_mib": peak}
        for name, ms, peak in (("vim fused kernels", 2.0, 100.0), ("deit eager", 6.0, 400.0))
    ]
    assert claims(rows, {32: (2,)}) == {
        "vim fused kernels against deit eager, 32 px, batch 2": {"speed": 3.0, "memory": -0.75}
    }


class OffAndRefused(ReferenceKernels):
    """Scans that are 10 % off in float16, and refused in float32."""

    def launch(self, params: Any, **given: Any) -> None:
        if params.op.name == "VimBiSelectiveScan":
            if params.type == DataType.FP32:
                raise RuntimeError("no kernel for this GPU")
            params.scale *= 1.1
        super().launch(params, **given)


def test_failures_and_what_was_not_reached_are_kept(tmp_path: Path) -> None:
    from models import Results, run

    wanted = plan()
    wanted.library, wanted.sizes = OffAndRefused(), {32: (1,)}
    results = Results(tmp_path / "out.json", wanted)
    run(wanted, results)
    assert results.value["failed"] == {
        f"agreement {name} 32 fp32": "RuntimeError: no kernel for this GPU" for name in FUSED
    }
    bad = {(row["subject"], row["dtype"]) for row in results.value["agreement"] if not row["ok"]}
    assert bad == {(name, "fp16") for name in FUSED}
    assert not results.good
    wanted.end = 0.0
    results = Results(tmp_path / "out.json", wanted)
    run(wanted, results)
    assert results.value["rows"] == results.value["agreement"] == []
    assert "agreement vim fused kernels 32 fp32" in results.value["left_out"]
    assert "deit eager 32 1 False" in results.value["left_out"]
    assert not results.good


def test_weights_of_the_official_module_have_to_fit(tmp_path: Path) -> None:
    from official import load

    code, extensions = checkout(tmp_path)
    model = VisionMamba(CONFIG)
    seed_weights(model, 0)
    state = dict(model.state_dict())
    theirs = load(code, extensions, CONFIG, state)
    image = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(theirs(image), model(image))
    del state["head.bias"]
    with pytest.raises(RuntimeError, match=r"head\.bias"):
        load(code, extensions, CONFIG, state)
    with pytest.raises(FileNotFoundError, match="checkout"):
        load(tmp_path / "elsewhere", extensions, CONFIG, state)


def test_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from models import main

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    monkeypatch.setattr(sys, "argv", ["models.py", "/none.so", str(tmp_path / "out.json")])
    with pytest.raises(SystemExit, match="PyTorch sees no GPU here"):
        main()
    assert not (tmp_path / "out.json").exists()
