"""run.sh, compose.yaml and the library probe, without a container and without TensorRT."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.packages import SERVED, classifier, engine
from vim_deploy.errors import VimDeployError
from vim_deploy.packaging.plugin_probe import probe_in_process
from vim_deploy.packaging.repository import ServingOptions
from vim_deploy.packaging.scripts import fill
from vim_deploy.stages import package
from vim_deploy.stages.packaging import PackageOptions

pytest.importorskip("onnxruntime")
IMAGE = "nvcr.io/nvidia/tritonserver:25.03-py3"
#: In the place of docker: notes its arguments, and answers the question for TensorRT's version.
DOCKER = """#!{python}
import json, os, sys
with open(os.environ["CALLS"], "a") as stream:
    stream.write(json.dumps(sys.argv[1:]) + "\\n")
if "--entrypoint" in sys.argv:
    print(os.environ["ANSWER"])
"""


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """A folder with a docker of ours."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "docker").write_text(DOCKER.format(python=sys.executable))
    (folder / "docker").chmod(0o755)
    return folder


def start(
    made: Path, docker: Path, answer: str = "", **variables: str
) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
    """Run a package's run.sh; what it said, and docker's calls."""
    calls = docker / "calls"
    calls.write_text("")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VIM_")}
    environment |= {"PATH": f"{docker}:{os.environ['PATH']}", "CALLS": str(calls), **variables}
    done = subprocess.run(
        [made / "run.sh", "--log-verbose=1"],
        env={**environment, "ANSWER": answer},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, [json.loads(line) for line in calls.read_text().splitlines()]


def made_engine(tmp_path: Path, version: str = "10.14", **changes: object) -> Path:
    plan = engine(tmp_path, **changes)
    return package(plan, tmp_path / "made", PackageOptions(image=IMAGE)).folder


def test_an_engine_is_served_by_the_version_that_built_it(tmp_path: Path, docker: Path) -> None:
    made = made_engine(tmp_path)
    done, calls = start(made, docker, "10.14.1")
    assert done.returncode == 0, done.stderr
    question, server = calls
    assert question[-2] == "-c"
    assert "getInferLibVersion" in question[-1]
    assert IMAGE in server
    assert [word for word in server if word.startswith("127.0.0.1:")] == [
        "127.0.0.1:8000:8000",
        "127.0.0.1:8001:8001",
        "127.0.0.1:8002:8002",
    ]
    assert server[server.index("--gpus") : server.index("--gpus") + 2] == ["--gpus", "all"]
    assert f"{made}/models:/package/models:ro" in server
    assert server[-1] == "--log-verbose=1"
    assert "--model-repository=/package/models" in server
    for name in ("http-restricted-api", "grpc-restricted-protocol"):
        (closed,) = [word for word in server if word.startswith(f"--{name}=")]
        assert "=shared-memory,logging,trace,model-repository:" in closed
        # Neither HTTP nor gRPC carries a line break in a header's name: nobody can send it.
        assert "\n" in closed.partition(":")[2].partition("=")[0]


@pytest.mark.parametrize("answer", ["10.9.0", "10.14.2", ""])
def test_another_version_is_refused_before_the_server_starts(
    tmp_path: Path, docker: Path, answer: str
) -> None:
    done, calls = start(made_engine(tmp_path), docker, answer)
    assert done.returncode == 9
    assert len(calls) == 1
    assert "the engine needs 10.14.1" in done.stderr


@pytest.mark.parametrize(("answer", "status"), [("10.14.1", 0), ("10.15.0", 0), ("10.9.1", 9)])
def test_a_version_compatible_engine_runs_in_later_ones(
    tmp_path: Path, docker: Path, answer: str, status: int
) -> None:
    made = made_engine(tmp_path, flags=("VERSION_COMPATIBLE",))
    done, calls = start(made, docker, answer)
    assert done.returncode == status
    if status == 0:
        assert "--backend-config=tensorrt,version-compatible=true" in calls[1]


def test_addresses_and_image_can_be_chosen(tmp_path: Path, docker: Path) -> None:
    made = package(classifier(tmp_path / "m.onnx"), tmp_path / "made").folder
    done, calls = start(made, docker)
    assert done.returncode == 2
    assert "VIM_TRITON_IMAGE" in done.stderr
    assert calls == []
    done, calls = start(
        made, docker, VIM_TRITON_IMAGE="own:1", VIM_ADDRESS="0.0.0.0", VIM_HTTP_PORT="81"
    )
    assert done.returncode == 0, done.stderr
    (server,) = calls
    assert "0.0.0.0:81:8000" in server
    assert "own:1" in server
    assert "--gpus" not in server


def test_a_folder_that_docker_cannot_mount_is_named(tmp_path: Path, docker: Path) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    made = package(classifier(tmp_path / "m.onnx"), folder / "made").folder
    done, calls = start(made, docker, VIM_TRITON_IMAGE="own:1")
    assert done.returncode == 2
    assert "a colon in its name" in done.stderr
    assert calls == []


def test_compose_files_are_yaml_and_stay_on_this_machine(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="needs pip install pyyaml")
    plan = made_engine(tmp_path)
    path = classifier(tmp_path / "m.onnx")
    python = package(path, tmp_path / "p", PackageOptions(ServingOptions(runtime="python"))).folder
    onnx = package(path, tmp_path / "o").folder
    for folder in (plan, python, onnx):
        service = yaml.safe_load((folder / "compose.yaml").read_text())["services"]["triton"]
        assert all(port.startswith("${VIM_ADDRESS:-127.0.0.1}:") for port in service["ports"])
        assert service["command"][0] == "tritonserver"
        assert sum("restricted" in word and "\n" in word for word in service["command"]) == 2
        assert service["volumes"][0] == "./models:/package/models:ro"
        assert ("build" in service) == (folder == python)
        assert ("deploy" in service) == (folder == plan)
        if folder == plan:
            assert service["image"] == "${VIM_TRITON_IMAGE:-" + IMAGE + "}"


@pytest.mark.parametrize("image", ['x"; touch /tmp/y; "', "x\nRUN touch /tmp/y", "x y", "$(x)"])
@pytest.mark.parametrize("runtime", ["onnxruntime", "python"])
def test_an_image_cannot_smuggle_a_command(tmp_path: Path, image: str, runtime: str) -> None:
    options = PackageOptions(ServingOptions(runtime=runtime), image=image)
    with pytest.raises(VimDeployError, match="not an image's name") as caught:
        package(classifier(tmp_path / "m.onnx"), tmp_path / "made", options)
    assert caught.value.code == "VIM-202"
    assert not (tmp_path / "made").exists()


def test_scripts_are_valid_shell(tmp_path: Path) -> None:
    path = classifier(tmp_path / "m.onnx")
    local = package(path, tmp_path / "p", PackageOptions(ServingOptions(runtime="python"))).folder
    for script in (local / "run.sh", made_engine(tmp_path) / "run.sh"):
        subprocess.run(["bash", "-n", script], check=True)
        text = script.read_text()
        for own in ('"$@"', "found[@]", "candidates[@]"):
            text = text.replace(own, "")
        assert "@" not in text


def test_python_files_of_a_package_follow_the_rules() -> None:
    """With what holds for old Pythons as well, beside the project's own rules."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length=100"]
    command += ["--select=E,F,W,I,B,UP,SIM", "--ignore=B905,E402", "--target-version=py310"]
    done = subprocess.run([*command, SERVED], capture_output=True, text=True, check=False)
    if "No module named" in done.stderr:
        pytest.skip("ruff is not installed")
    assert done.returncode == 0, done.stdout


def test_fill_notices_what_is_left_out() -> None:
    assert fill("a @B@", b="c") == "a c"
    with pytest.raises(KeyError):
        fill("a", b="c")


def test_a_library_that_does_not_load_is_named(tmp_path: Path) -> None:
    path = tmp_path / "libvim_plugins.so"
    path.write_bytes(b"\x7fELF nothing")
    with pytest.raises(VimDeployError, match="does not load as Triton") as caught:
        probe_in_process(path, ("VimBiSelectiveScan",))
    assert caught.value.code == "VIM-903"


def test_a_library_that_loads(tmp_path: Path) -> None:
    import ctypes.util

    name = ctypes.util.find_library("m")
    found = [Path(line.split()[-1]) for line in Path("/proc/self/maps").read_text().splitlines()]
    library = next((path for path in found if name and path.name == name), None)
    if library is None:
        pytest.skip("no shared library at hand")
    assert probe_in_process(library, ("VimBiSelectiveScan",))["loaded"]
