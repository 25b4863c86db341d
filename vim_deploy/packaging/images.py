"""Which TensorRT a Triton image holds, as far as a published table says so.

An engine runs in the TensorRT that built it. NVIDIA publishes the versions of the
``-trtllm-python-py3`` images in the server's own documentation; for the plain ``-py3`` images it
names a support matrix that is not quoted here, so their version is unknown to this module. The
``run.sh`` of a package asks the image itself before it starts the server.
"""

from __future__ import annotations

import re

from vim_deploy.artifact.passport import is_version_compatible
from vim_deploy.artifact.record import EngineRecord
from vim_deploy.errors import VimDeployError

SOURCE = (
    "https://github.com/triton-inference-server/server/blob/main/docs/introduction/compatibility.md"
)
#: Image flavour of the table.
FLAVOUR = "trtllm-python-py3"
#: First release -> TensorRT, up to the next row; releases before the first and after
#: ``LAST_RELEASE`` are not in the table. Read from ``SOURCE``.
_TENSORRT = (
    ("24.04", "9.3"),
    ("24.05", "10.0.1"),
    ("24.07", "10.1"),
    ("24.08", "10.3"),
    ("24.09", "10.4"),
    ("24.11", "10.6"),
    ("24.12", "10.7"),
    ("25.01", "10.8"),
    ("25.03", "10.9"),
    ("25.06", "10.10"),
    ("25.08", "10.11"),
    ("25.11", "10.13.3"),
    ("26.03", "10.14.1"),
)
LAST_RELEASE = "26.07"
_TAG = re.compile(r"(\d{2}\.\d{2})-(.+)")


def tensorrt_of(image: str) -> str | None:
    """TensorRT's version in an image such as ``nvcr.io/...:25.01-trtllm-python-py3``.

    None when the table does not say.
    """
    match = _TAG.fullmatch(image.rpartition(":")[2])
    if match is None or match[2] != FLAVOUR or not _TENSORRT[0][0] <= match[1] <= LAST_RELEASE:
        return None
    return [version for release, version in _TENSORRT if release <= match[1]][-1]


def check_image(image: str, record: EngineRecord) -> str:
    """Whether the image's TensorRT runs the engine: a sentence with what is known.

    Raises:
        VimDeployError: VIM-907 when the table says that it does not.
    """
    found = tensorrt_of(image)
    if found is None:
        return (
            f"the TensorRT version in {image} is not in the published table; run.sh asks the image "
            "before it starts the server"
        )
    here, built = _numbers(found), _numbers(record.runtime_version)
    later_may = is_version_compatible(record) and here > built[: len(here)]
    if built[: len(here)] == here or later_may:
        return f"{image} holds TensorRT {found}, by the table in {SOURCE}"
    raise VimDeployError(
        "VIM-907",
        f"{image} holds TensorRT {found}, the engine was built by {record.runtime_version}",
        why=f"an engine runs in the version that built it; the table is {SOURCE}",
        fix="take an image with that TensorRT, or build the engine inside this one",
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
