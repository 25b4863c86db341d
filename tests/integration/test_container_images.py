"""The images: built where an engine of docker answers; else the steps of the first stage are run.

Both take minutes and the network, so VIM_TEST_ALL=1 runs them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rules.test_containers import DOCKERFILES, IGNORED, steps, tracked
from tests.support.dockerfiles import stages
from tests.support.source import REPOSITORY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs these"),
]
#: A user that no machine has.
NOBODY = 43210
#: Pythons that the CPU builds of torch are pinned for; others take the default index's.
WITHOUT_CUDA = ((3, 11), (3, 12))


def engine() -> str:
    """docker's version on the side that builds; skips where nothing answers."""
    program = shutil.which("docker")
    if program is None:
        pytest.skip("docker is not installed")
    words = [program, "version", "--format", "{{.Server.Version}}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        pytest.skip(f"no engine of docker answers: {done.stderr.strip()[-200:]}")
    return done.stdout.strip()


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_an_image_is_built_and_runs(path: Path, tmp_path: Path) -> None:
    engine()
    name = f"vim-deploy:test-{path.stem}"
    build = ["docker", "build", "-f", str(path), "-t", name, str(REPOSITORY)]
    subprocess.run(build, check=True)
    tmp_path.chmod(0o777)
    run = ["docker", "run", "--rm", "--read-only", "--tmpfs", "/tmp"]
    run += ["--user", f"{NOBODY}:{NOBODY}", "--cap-drop", "ALL", "-v", f"{tmp_path}:/work", name]
    subprocess.run([*run, "export", "vim-digits", "-o", "digits.onnx"], check=True)
    assert (tmp_path / "digits.onnx").stat().st_uid == NOBODY
    subprocess.run([*run, "plugin", "test", "--target", "onnxruntime"], check=True)


def test_the_steps_of_the_first_stage_make_a_tool_for_anybody(tmp_path: Path) -> None:
    """As the CPU image is made, with this Python, this system's compilers, and other folders.

    Builds of torch without CUDA come from the index that TORCH_INDEX names, or from the folder of
    PIP_FIND_LINKS.
    """
    if sys.version_info[:2] not in WITHOUT_CUDA:
        pytest.skip("torch has no build without CUDA in torch.lock for this Python")
    path = next(path for path in DOCKERFILES if path.stem == "cpu")
    if index := os.environ.get("TORCH_INDEX"):
        torch_from = f"--index-url {index}"
    elif os.environ.get("PIP_FIND_LINKS"):
        torch_from = "--no-index"
    else:
        pytest.skip("neither TORCH_INDEX nor PIP_FIND_LINKS says where torch without CUDA is")
    _, found = stages(path)
    source, place = tmp_path / "src", tmp_path / "opt"
    for name in tracked():
        if not IGNORED(name) and (REPOSITORY / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, source / name)
    variables = {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(tmp_path / "cache")}
    variables |= {name: v for name, v in os.environ.items() if name.startswith("PIP_")}
    for text in found[0].all("ENV"):
        variables |= dict(item.split("=", 1) for item in text.split())
    for step in steps(found[0]):
        if "apt-get" in step or "/var/lib/apt" in step:
            continue
        step = step.replace("/tmp/", f"{tmp_path}/").replace("/opt/vim-deploy", str(place))
        step = step.replace('--index-url "${TORCH_INDEX}"', torch_from)
        step = step.replace("python -m venv", f"{sys.executable} -m venv")
        subprocess.run(["sh", "-euc", step], cwd=source, env=variables, check=True)
    shutil.rmtree(source)
    made = place / "native" / "libvim_ort_cpu.so"
    assert made.is_file()

    work = tmp_path / "work"
    work.mkdir()
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    work.chmod(0o777)
    alone = {"PATH": f"{place}/bin:/usr/bin:/bin", "VIM_DEPLOY_ORT_OPS": str(made), "HOME": "/none"}
    become: list[str] = []
    if os.geteuid() == 0 and (setpriv := shutil.which("setpriv")):
        become = [setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    for words in (
        ["export", "vim-digits", "-o", "digits.onnx"],
        ["plugin", "test", "--target", "onnxruntime"],
        ["package", "digits.onnx", "--target", "triton", "--runtime", "python", "-o", "served"],
    ):
        command = [*become, str(place / "bin" / "vim-deploy"), *words]
        subprocess.run(command, cwd=work, env=alone, check=True)
