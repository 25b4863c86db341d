"""``bench --plot``: speed and memory against image size as one SVG file.

The curves of the report's page, as in figure 1 of the Vim paper (arXiv 2401.09417).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vim_deploy.errors import VimDeployError
from vim_deploy.files import write_bytes
from vim_deploy.report import svg
from vim_deploy.report.bench_page import curve_figures

SUFFIX = ".svg"


def check_plot(path: Path) -> None:
    """VIM-202 for another format, before minutes are spent."""
    if path.suffix != SUFFIX:
        raise VimDeployError(
            "VIM-202",
            f"cannot draw {path.name}",
            why="the figure is written as SVG, which browsers show and convert",
            fix=f"a name ending in {SUFFIX}",
        )


def require_sizes(count: int) -> None:
    """VIM-203 for less than two image sizes."""
    if count < 2:
        raise VimDeployError(
            "VIM-203",
            "--plot draws against image size, and there is one size only",
            fix="give models of several sizes, or a checkpoint, recipe or variant with "
            "--image-sizes 224,512,640",
        )


def draw(value: Mapping[str, Any], path: Path) -> bool:
    """Draw a report's dictionary; one line for each model, runtime and batch size.

    Returns:
        False when fewer than two sizes have been measured: then nothing is written.

    Raises:
        VimDeployError: VIM-304, VIM-305 (output).
    """
    drawings = [figure.drawing for figure in curve_figures(value)]
    if not drawings:
        return False
    words = (
        value["machine"]["cpu_model"],
        f"{value['settings']['threads']} threads",
        value["state"]["date"],
        *(f"{drawing.findtext('title')}: {drawing.findtext('desc')}" for drawing in drawings),
    )
    whole = svg.beside(drawings, "Cost against image size", "; ".join(words), "bench")
    write_bytes(path, svg.standalone(whole).encode())
    return True
