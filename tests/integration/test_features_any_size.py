"""Features of a classification checkpoint at other resolutions, up to the paper's 1248 pixels.

The checkpoint is made for 64 pixels; its position embedding is interpolated. Bounds are those of
the float32 exports, 1e-4 and 1e-5 relative.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.models import perturbed, save_training_file, tiny_config
from vim_deploy.cli.main import run
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.model.reference import reference_model
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.exporting import export

#: The published patches of 16 pixels, one narrow block.
CONFIG = tiny_config(img_size=64, patch_size=16, stride=16, depth=1, use_middle_cls_token=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("features") / "vim.pth"
    return save_training_file(perturbed(VisionMamba(CONFIG)), path)


@pytest.mark.parametrize(
    ("size", "head", "shape"),
    [
        (1248, "features", (1, 16)),
        ((96, 208), "features", (1, 16)),
        ((208, 96), "tokens", (1, 6 * 13 + 1, 16)),
        (256, "tokens", (1, 257, 16)),
    ],
)
def test_features(
    size: Any, head: str, shape: tuple[int, ...], checkpoint: Path, tmp_path: Path
) -> None:
    request = ModelRequest(str(checkpoint), config=encode(CONFIG), image_size=size)
    # Compared below, on one thread.
    options = ExportOptions(head=head, check=False)
    result = export(request, tmp_path / "f.onnx", options)
    assert result.activations is not None
    rows, columns = (s // 16 for s in (size if isinstance(size, tuple) else (size, size)))
    assert result.activations.tokens == rows * columns + 1
    assert result.info.pos_embed == f"grid 4x4 to {rows}x{columns}"
    # The same for every token, whatever their number: in so narrow a model most lives at once where
    # the picture, 768 numbers for each patch, becomes 16 channels.
    assert result.activations.bytes_per_token == pytest.approx(4 * (768 + 16), rel=0.02)
    runner = OrtRunner(result.path, threads=1)
    height, width = 16 * rows, 16 * columns
    image = np.random.default_rng(0).standard_normal((1, 3, height, width)).astype(np.float32)
    found = runner.run(image)[head]
    assert found.shape == shape
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            expected = reference_model(str(checkpoint), result.info)(torch.tensor(image)).numpy()
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-5)


def test_1248_pixels_are_told_in_the_output(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "f.onnx"
    status = run(
        ["export", str(checkpoint), "--image-size", "1248", "--head", "tokens", "--no-check",
         "-o", str(output)]
    )  # fmt: skip
    said = capsys.readouterr().err
    assert status == 0, said
    (line,) = (line for line in said.splitlines() if line.startswith("activations"))
    assert "6085 tokens" in line
    assert "none is tokens x tokens" in " ".join(said.split())
    assert run(["inspect", "-v", str(output)]) == 0
    shown = capsys.readouterr().out
    assert "activations.tokens" in shown
    assert "6085" in shown


def test_a_size_below_one_patch_is_refused(checkpoint: Path) -> None:
    request = ModelRequest(str(checkpoint), image_size=8)
    with pytest.raises(VimDeployError) as caught:
        export(request, options=ExportOptions(head="features"))
    assert caught.value.code == "VIM-406"
    assert "16" in caught.value.fix
