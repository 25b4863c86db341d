"""Each module imports alone, in a fresh interpreter, with only the base dependencies."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.support.source import REPOSITORY, SERVED, modules
from vim_deploy.families import FAMILIES

#: What an installation without extras does not have.
OPTIONAL = (
    "torch",
    "safetensors",
    "onnxscript",
    "onnx_ir",
    "onnx_graphsurgeon",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "tensorrt_rtx",
    "cuda",
    "huggingface_hub",
    "sklearn",
    "scipy",
    "psutil",
    "jinja2",
    "transformers",
    "tritonclient",
)
#: Base dependencies that take long to import. Where only others are to be missed, they are there
#: before the fork: by their own names, so that a submodule which nobody imports is still missing.
PRELOADED = ("click", "msgspec", "numpy", "onnx", "rich")
#: Modules of the exporting side, which is what the extra ``torch`` installs PyTorch and onnxscript
#: for; they are imported with everything installed.
EXPORTING_SIDE = (
    *(f"vim_deploy.families.{family.name}.network" for family in FAMILIES),
    "vim_deploy.model",
    "vim_deploy.graph.trace",
    "vim_deploy.graph.tidy",
    "vim_deploy.graph.export_graph",
    "vim_deploy.runtimes.torch.runner",
)
#: Loaded by nothing that only prints help.
NOT_FOR_HELP = (*OPTIONAL, "numpy", "onnx", "PIL", "google.protobuf")

# Runs in a process of its own. Every module gets a fork of an interpreter that has imported
# nothing of ours, which is as fresh as a new process and much faster than starting one.
SCRIPT = """
import importlib, json, os, sys
names, blocked, preloaded = json.loads(sys.stdin.read())

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is not installed", name=name)
        return None

sys.meta_path.insert(0, Blocker())
for name in preloaded:
    importlib.import_module(name)
failures = {}
for name in names:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(name)
            message = ""
        except BaseException as error:
            message = f"{type(error).__name__}: {error}"
        os.write(writing, message.encode()[:4000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        message = stream.read()
    status = os.waitpid(child, 0)[1]
    if message or status:
        failures[name] = message or f"exit status {status}"
print(json.dumps(failures))
"""


def run_python(script: str, argument: Any) -> Any:
    """What ``script`` prints as JSON, in a fresh interpreter given ``argument`` on stdin."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(argument),
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def exports(name: str) -> bool:
    """Whether the module ``name`` belongs to the exporting side."""
    return any(name == home or name.startswith(home + ".") for home in EXPORTING_SIDE)


def test_modules_import_alone_without_optional_packages() -> None:
    # __main__ is the program itself: importing it runs it.
    names = [m.name for m in modules() if not exports(m.name) and m.layer != "__main__"]
    names = [name for name in names if not name.startswith(SERVED)]
    assert len(names) > 20
    assert run_python(SCRIPT, [names, OPTIONAL, PRELOADED]) == {}


def test_modules_of_the_exporting_side_import_alone() -> None:
    pytest.importorskip("torch")
    names = [module.name for module in modules() if exports(module.name)]
    assert run_python(SCRIPT, [names, [], [*PRELOADED, "torch", "onnxscript"]]) == {}


def test_the_blocker_blocks() -> None:
    failures = run_python(SCRIPT, [["PIL.Image", "json"], ["PIL"], []])
    assert list(failures) == ["PIL.Image"]
    assert "not installed" in failures["PIL.Image"]


HELP = """
import contextlib, io, json, sys
arguments, heavy = json.loads(sys.stdin.read())
from vim_deploy.cli.main import run
with contextlib.redirect_stdout(io.StringIO()) as text:
    code = run(arguments)
loaded = [name for name in heavy if name in sys.modules]
print(json.dumps({"code": code, "text": text.getvalue(), "loaded": loaded}))
"""


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    said = run_python(HELP, [arguments, NOT_FOR_HELP])
    assert said["code"] == 0
    assert said["text"].strip()
    assert said["loaded"] == []
