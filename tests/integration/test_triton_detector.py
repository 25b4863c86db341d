"""A detector's package served by a real Triton server: two inputs, a count without axes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from tests.support.detectors import detections_of, stand_in
from tests.support.triton import environment_of, prepare, served
from vim_deploy.packaging.repository import ServingOptions
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.stages import package
from vim_deploy.stages.packaging import PackageOptions

pytestmark = [pytest.mark.triton, pytest.mark.slow]
SIDE, ROWS = 64, 5


def test_detections_over_both_protocols(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    onnx = stand_in(tmp_path / "finder.onnx", SIDE, rows=ROWS)
    serving = ServingOptions(runtime="python", max_batch=4)
    made = package(onnx, tmp_path / "made", PackageOptions(serving)).folder
    environment = environment_of(request.config)
    prepare(made, environment)
    images = np.random.default_rng(0).standard_normal((3, 3, SIDE, SIDE)).astype(np.float32)
    sizes = np.array([[SIDE, 20], [9, SIDE], [0, 0]])
    wanted = OrtRunner(onnx).run(images, sizes)
    photo = tmp_path / "photo.png"
    PIL.Image.fromarray(np.zeros((50, 90, 3), np.uint8)).save(photo)
    with served(made, environment, tmp_path / "server.log") as server:
        models = (server.http_model(), server.grpc_model())
        for model in models:
            found = model.infer(images, sizes)
            for name, value in wanted.items():
                np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)
            assert found["count"].tolist() == [detections_of(ROWS)] * 2 + [0]
            with pytest.raises(Exception, match="a picture of 65 x 3 pixels"):
                model.infer(images[:1], np.array([[SIDE + 1, 3]]))
        for model in models:
            model.close()
        words = ["--url", f"127.0.0.1:{server.http}", "--check", str(photo)]
        done = subprocess.run(
            [sys.executable, made / "client.py", *words],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(" pixels\n") == detections_of(ROWS)
        assert "the server's answers are the stored ones" in done.stdout
