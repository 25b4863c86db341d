"""The files around a model repository: scripts, client, compose file; the container they start."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vim_deploy.artifact.passport import is_version_compatible
from vim_deploy.artifact.record import EngineRecord
from vim_deploy.errors import VimDeployError

#: Where a package stands inside a container.
INSIDE = "/package"
#: What the server of the python runtime, and its model, need.
_REQUIREMENTS = ("requirements-server.txt", "requirements-model.txt")
#: The container of the server release that serves the python runtime here (Triton 2.51 is 24.10).
PYTHON_IMAGE = "nvcr.io/nvidia/tritonserver:24.10-py3"
#: Calls that make the server write where it may: into its backend's memory, into files that are
#: to be its log or its traces. Triton has no switch for them, but asks for a header, as
#: APIS:NAME=VALUE. No client can send this one: neither HTTP nor gRPC carries a line break in a
#: header's name, so it may stand on the command line, which every user of a machine can read. The
#: ``server.py`` of a package starts a server itself and has the same text; a test compares them.
CLOSED = "shared-memory,logging,trace,model-repository:no\nbody=no\nbody"

#: Where ``_TENSORRT`` was read from.
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
#: First release -> glibc of its images, that of Ubuntu 20.04, 22.04 or 24.04, up to the next row.
#: Read from the base image in ``build.py`` of each release's branch (BASE_IMAGES); 24.11 counts as
#: the one before it, because some of its flavours have the older Python still.
_GLIBC = (("22.12", "2.31"), ("23.05", "2.35"), ("24.12", "2.39"))
BASE_IMAGES = "https://github.com/triton-inference-server/server/blob/r24.12/build.py"
#: Images that the table speaks of, whatever registry they were copied to.
_SERVER = "tritonserver"
_RELEASE = re.compile(r"(\d{2}\.\d{2})(-[a-z0-9-]+)?")
_TAG = re.compile(r"(\d{2}\.\d{2})-(.+)")


@dataclass(frozen=True)
class Surroundings:
    """What the scripts depend on.

    Attributes:
        runtime: Triton's backend.
        image: of the container; empty when the user names it at the start.
        plugin: file name of the plugin library; empty when the engine needs none.
        record: of the engine; None for an ONNX file.
    """

    runtime: str
    image: str
    plugin: str
    record: EngineRecord | None


def template(name: str) -> str:
    """Text of a file in ``templates``."""
    folder = importlib.resources.files("vim_deploy.packaging") / "templates"
    return (folder / f"{name}.in").read_text(encoding="utf-8")


def unchanged(name: str) -> str:
    """Text of a file that packages carry as it is, such as ``served/client.py``.

    Those of ``served`` run with the packages of the environment that serves, or of a client: they
    import nothing of vim-deploy, and nothing here imports them.
    """
    folder = importlib.resources.files("vim_deploy.packaging")
    return folder.joinpath(*name.split("/")).read_text(encoding="utf-8")


def fill(text: str, **values: str) -> str:
    """``text`` with every ``@KEY@`` replaced; KeyError when one stays or is not there."""
    for key, value in values.items():
        mark = f"@{key.upper()}@"
        if mark not in text:
            raise KeyError(mark)
        text = text.replace(mark, value)
    return text


def write_text(path: Path, text: str) -> None:
    """Write a file of a package, which is the same on every system."""
    path.write_text(text, encoding="utf-8", newline="\n")


def write_labels(path: Path, labels: Sequence[str]) -> None:
    """One line a class, whatever a label holds; no file where there are none."""
    if labels:
        write_text(path, "".join(" ".join(label.split()) + "\n" for label in labels))


def scripts(around: Surroundings) -> dict[str, str]:
    """Text of every script and side file by its name in the package."""
    carried = ["client.py", "client_answers.py", "client_detections.py", "client_pictures.py"]
    if around.runtime == "python":
        carried += ["server.py", "server_watch.py", *_REQUIREMENTS]
    files = {name: unchanged(f"served/{name}") for name in carried}
    files["compose.yaml"] = _compose(around)
    if around.runtime == "python":
        pinned = "".join(files[name] for name in _REQUIREMENTS)
        short = hashlib.sha256(pinned.encode()).hexdigest()[:12]
        files["run.sh"] = fill(template("run_local.sh"), requirements=short)
        image = _safe(around.image) or PYTHON_IMAGE
        files["Dockerfile"] = fill(template("Dockerfile"), image=image)
    else:
        files["run.sh"] = _run_in_container(around)
    return files


def server_options(around: Surroundings) -> list[str]:
    """Options of ``tritonserver`` inside a container."""
    # The configuration is complete: an engine that does not load is then reported as such.
    options = [
        f"--model-repository={INSIDE}/models",
        "--disable-auto-complete-config",
        f"--http-restricted-api={CLOSED}",
        f"--grpc-restricted-protocol={CLOSED}",
    ]
    if around.plugin:
        options.append(f"--backend-config=tensorrt,plugins={INSIDE}/plugins/{around.plugin}")
    if around.record is not None and is_version_compatible(around.record):
        options.append("--backend-config=tensorrt,version-compatible=true")
    return options


def _run_in_container(around: Surroundings) -> str:
    image, gpus = _safe(around.image), "all" if around.runtime == "tensorrt" else ""
    mounts = '  -v "$here/plugins:/package/plugins:ro" \\\n' if around.plugin else ""
    return fill(
        template("run_container.sh"),
        image=image,
        image_shown=image or "(none: name one; a package made with --image knows it)",
        gpus=gpus,
        gpus_shown=gpus or "(none: all to let ONNX Runtime have the GPUs)",
        query=_query(around.record) if around.record is not None else "",
        mounts=mounts,
        server_options=shlex.join(server_options(around)),
    )


def _query(record: EngineRecord) -> str:
    wanted = ".".join(record.runtime_version.split(".")[:3])
    later = ""
    if is_version_compatible(record):
        least = f"$(printf '%s\\n' {wanted} \"$found\" | sort -V | head -n 1)"
        later = f' && [ "{least}" != "{wanted}" ]'
    return fill(
        template("query.sh"), wanted=wanted, major=wanted.partition(".")[0], later=later
    ).rstrip()


def _compose(around: Surroundings) -> str:
    volumes = ["./models:/package/models:ro"]
    if around.plugin:
        volumes.append("./plugins:/package/plugins:ro")
    devices = ""
    if around.runtime == "tensorrt":
        devices = (
            "    deploy:\n      resources:\n        reservations:\n          devices:\n"
            "            - driver: nvidia\n              count: all\n"
            "              capabilities: [gpu]\n"
        )
    text = template("compose.yaml")
    if around.runtime == "python":
        text = text.replace('    image: "${VIM_TRITON_IMAGE@IMAGE_DEFAULT@}"\n', "    build: .\n")
    else:
        name = _safe(around.image)
        default = f":-{name}" if name else ":?name the image, such as nvcr.io/nvidia/tritonserver"
        text = fill(text, image_default=default)
    return fill(
        text,
        command=json.dumps(["tritonserver", *server_options(around)]),
        volumes="\n".join(f"      - {json.dumps(volume)}" for volume in volumes),
        devices=devices.rstrip(),
    )


def _safe(image: str) -> str:
    """An image's name, which goes into a script; VIM-202 when it could be more than a name."""
    if image and not all(character.isalnum() or character in "._-/:@" for character in image):
        raise VimDeployError(
            "VIM-202", f"{image!r} is not an image's name", fix="--image nvcr.io/...:YY.MM-py3"
        )
    return image


def tensorrt_of(image: str) -> str | None:
    """TensorRT's version in an image such as ``nvcr.io/...:25.01-trtllm-python-py3``.

    None when the table does not say.
    """
    match = _TAG.fullmatch(image.rpartition(":")[2])
    if match is None or match[2] != FLAVOUR or not _TENSORRT[0][0] <= match[1] <= LAST_RELEASE:
        return None
    return [version for release, version in _TENSORRT if release <= match[1]][-1]


def glibc_of(image: str) -> str | None:
    """glibc's version in one of NVIDIA's server images; None when the table does not say."""
    name, _, tag = image.rpartition("/")[2].partition(":")
    match = _RELEASE.fullmatch(tag)
    if name != _SERVER or match is None or not _GLIBC[0][0] <= match[1] <= LAST_RELEASE:
        return None
    return [version for release, version in _GLIBC if release <= match[1]][-1]


def oldest_glibc() -> str:
    """Of all images in the table."""
    return _GLIBC[0][1]


def check_image(image: str, record: EngineRecord) -> str:
    """Whether the image's TensorRT runs the engine: a sentence with what is known.

    An engine runs in the TensorRT that built it. NVIDIA publishes the versions of the
    ``-trtllm-python-py3`` images in the server's own documentation; for the plain ``-py3`` images
    it names a support matrix that is not quoted here, so their version is unknown. The ``run.sh``
    of a package asks the image itself before it starts the server.

    Raises:
        VimDeployError: VIM-907 when the table says that it does not.
    """
    found = tensorrt_of(image)
    if found is None:
        return (
            f"the TensorRT version in {image} is not in the published table; run.sh asks the image "
            "before it starts the server"
        )
    here, built = numbers(found), numbers(record.runtime_version)
    later_may = is_version_compatible(record) and here > built[: len(here)]
    if built[: len(here)] == here or later_may:
        return f"{image} holds TensorRT {found}, by the table in {SOURCE}"
    raise VimDeployError(
        "VIM-907",
        f"{image} holds TensorRT {found}, the engine was built by {record.runtime_version}",
        why=f"an engine runs in the version that built it; the table is {SOURCE}",
        fix="take an image with that TensorRT, or build the engine inside this one",
    )


def numbers(version: str) -> tuple[int, ...]:
    """A version's numbers, to be compared."""
    return tuple(int(part) for part in re.findall(r"\d+", version))
