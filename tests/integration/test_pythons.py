"""The side that deploys, with other Pythons than the one that runs the tests, without PyTorch.

By default with the oldest and the newest that the machine has; ``VIM_TEST_ALL=1`` takes all.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support import deploying, reference
from tests.support.pins import PYTHONS
from tests.support.pythons import environment_of
from vim_deploy.stages.exporting import export


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy as ``digits.onnx``, and what PyTorch makes of twenty pictures."""
    folder = tmp_path_factory.mktemp("exported")
    export("vim-digits", folder / "digits.onnx")
    case = reference.load_case(reference.DIGITS)
    np.savez(folder / "stored.npz", image=case.image[:20], output=case.output[:20])
    return folder


@pytest.mark.parametrize("version", PYTHONS)
def test_the_tour_of_a_machine_that_deploys(
    version: str, exported: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    python = environment_of(request.config, version)
    for name in ("digits.onnx", "stored.npz"):
        (tmp_path / name).hardlink_to(exported / name)
    assert deploying.tour(python, tmp_path).startswith(f"Python {version}.")
