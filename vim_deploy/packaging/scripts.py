"""The files around a model repository: scripts, client, compose file, from templates."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vim_deploy.artifact.passport import is_version_compatible
from vim_deploy.artifact.record import EngineRecord
from vim_deploy.errors import VimDeployError

#: Where a package stands inside a container.
_INSIDE = "/package"
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
    carried = ["client.py", "client_answers.py", "client_pictures.py"]
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
        f"--model-repository={_INSIDE}/models",
        "--disable-auto-complete-config",
        f"--http-restricted-api={CLOSED}",
        f"--grpc-restricted-protocol={CLOSED}",
    ]
    if around.plugin:
        options.append(f"--backend-config=tensorrt,plugins={_INSIDE}/plugins/{around.plugin}")
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
