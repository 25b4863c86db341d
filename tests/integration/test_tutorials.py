"""A person with a checkpoint of 37 classes, on the tutorials' pages and nowhere else.

The person's files are put where the pages say, and the pages' commands are given in their order:
from the file to a server, to a choice between fp32 and fp16, to a program in C++. The model is a
small one. With VIM_TEST_ALL=1 the program is built and run where a compiler is, and all is done
once more with the pages' own stand-in, a whole Vim-Ti, where whatever the pages show of the answers
is compared.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support import plugins
from tests.support.markdown import Block, commands
from tests.support.models import perturbed, tiny_config
from tests.support.pages import WORK, code_of, install, not_answered, run, shown_files
from tests.support.source import REPOSITORY
from tests.support.triton import environment_of, free_ports, prepare
from vim_deploy.families.vim.network.vim import VisionMamba

pytestmark = pytest.mark.slow
FOLDER = Path("docs", "tutorials")
CLASSES, SIDE = 37, 192
ALL = bool(os.environ.get("VIM_TEST_ALL"))
#: Seconds for a command; a C++ compiler on a busy machine takes minutes.
LIMIT = 900


#: What blocks of the pages need, by how they say it.
SERVER, COMPILER = ("a server", "the server"), "CMake and a C++ compiler"


@dataclass
class Person:
    """Somebody who follows the pages.

    Attributes:
        folder: where commands are given.
        shared: the folder of this run's traces.
        compares: whether answers have to be those of the pages.
        exported: lines that set variables.
        answers: what every command has said.
        seconds: that the commands took.
    """

    folder: Path
    shared: Path
    compares: bool
    exported: list[str] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def follow(self, page: str, needing: str = "") -> None:
        """Give a page's commands: those that run anywhere and, of the others, ``needing``.

        Files that the page shows are written. What was done on an earlier page is not done again.
        """
        for name, text in shown_files(REPOSITORY / FOLDER / f"{page}.md").items():
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        for block in blocks_of(page):
            if not block.needs or block.needs.startswith(needing or "\0"):
                for command in commands(block):
                    # The stand-in would be for files that this person has.
                    own = command.text.startswith("python docs/") and not self.compares
                    if not own and command.text not in self.answers:
                        self.give(command.text, command.said)

    def give(self, lines: str, shown: Sequence[str] = (), **variables: str) -> None:
        """Lines for the shell, with what a page shows of their answer.

        A variable that is exported is there for the lines that follow, as it is in one shell.
        """
        if lines.startswith("export "):
            self.exported.append(lines)
            return
        begun = time.monotonic()
        script = "\n".join(["set -e", *self.exported, lines])
        if not self.compares:
            # Quick to compile; the pages' reader gets an optimised library.
            variables |= {"CMAKE_BUILD_TYPE": "None", "CXXFLAGS": "-O0"}
        done = run(["bash", "-c", script], self.folder, self.shared, LIMIT, **variables)
        self.seconds += time.monotonic() - begun
        assert done.returncode == 0, f"{lines}\n{done.stdout}"
        missing = not_answered(shown, done.stdout) if self.compares else []
        assert not missing, f"{lines}\n{done.stdout}\ndoes not answer {missing}"
        self.answers[lines] = done.stdout

    def said(self, *words: str) -> str:
        """The answer of the one command that has all these words."""
        (found,) = [
            text for line, text in self.answers.items() if all(word in line for word in words)
        ]
        return found


def blocks_of(page: str) -> list[Block]:
    """A page's blocks of commands; its programs in Python make the stand-in."""
    path = REPOSITORY / FOLDER / f"{page}.md"
    return [block for block in code_of(path) if block.language == "console"]


def put_files(work: Path) -> None:
    """The person's own: a Vim of 37 classes at 192 pixels as the training script writes it."""
    torch.manual_seed(0)
    config = tiny_config(
        img_size=SIDE, patch_size=16, stride=16, embed_dim=32, depth=2, num_classes=CLASSES,
        if_abs_pos_embed=True, final_pool_type="mean", bimamba_type="v2", if_cls_token=True,
        use_middle_cls_token=True, if_divide_out=True, rms_norm=True,
    )  # fmt: skip
    model = perturbed(VisionMamba(config))
    args = Namespace(model="vim_small_of_mine", input_size=SIDE, nb_classes=CLASSES)
    (work / "photos").mkdir(parents=True)
    torch.save({"model": model.state_dict(), "epoch": 1, "args": args}, work / "pets.pth")
    labels = "".join(f"breed {'abcdefghijklmnopqrstuvwxyz'[n % 26]}{n}\n" for n in range(CLASSES))
    (work / "pets.txt").write_text(labels, encoding="utf-8")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 6, 8, 3), dtype=np.uint8)
    for number, small in enumerate(pixels):
        picture = Image.fromarray(small).resize((256, 200), Image.Resampling.BICUBIC)
        picture.save(work / "photos" / f"{number:02}.png")


@pytest.fixture(scope="module", params=["small", "whole"])
def person(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, folder_of_traces: Path
) -> Person:
    """Before the first command, in a folder that has of the repository what the pages name."""
    is_small = request.param == "small"
    if not (is_small or ALL):
        pytest.skip("VIM_TEST_ALL=1 follows the pages with their whole Vim-Ti, too")
    folder = tmp_path_factory.mktemp("person") / "here"
    shutil.copytree(REPOSITORY / FOLDER, folder / FOLDER)
    install(folder)
    if is_small:
        put_files(folder / WORK)
    return Person(folder, folder_of_traces, compares=not is_small)


@pytest.mark.timeout(3600)
def test_from_a_checkpoint_to_every_place(person: Person) -> None:
    person.follow("finetuned")
    assert "pets.onnx agrees with PyTorch" in person.said("verify")
    person.follow("serve")
    assert "golden output │ passed" in " ".join(person.said("package --check").split())
    person.follow("precision")
    assert "advice: " in person.said("vim-deploy compare")
    builds = ALL and all(map(shutil.which, ("cmake", "c++")))
    person.follow("cpp", COMPILER if builds else "")
    if builds:
        (answer,) = [
            line
            for line in person.said("mine-build/mine ").splitlines()
            if line.startswith("work/photos/00.png: ")
        ]
        label, share = answer.rpartition(": ")[2].rsplit(", ", 1)
        assert best_class(person).endswith(f" {label}")
        assert float(share.removesuffix(" %")) > 100 / CLASSES
    print(f"from a checkpoint to every place in {person.seconds / 60:.1f} minutes")


def best_class(person: Person) -> str:
    """Of the first picture, as ``run`` prints it."""
    (line,) = [line for line in person.said("vim-deploy run").splitlines() if "00.png" in line]
    return line.split("│")[3].strip()


@pytest.mark.triton
def test_the_server_answers(person: Person, request: pytest.FixtureRequest) -> None:
    environment = environment_of(request.config)
    if not (ALL or (environment / ".complete").exists()):
        pytest.skip("VIM_TEST_ALL=1 makes the server's environment")
    plugins.need_tool("curl")
    person.follow("finetuned")
    person.follow("serve")
    prepare(person.folder / WORK / "pets-server", environment)
    ports = dict(zip(("HTTP", "GRPC", "METRICS"), map(str, free_ports(3)), strict=True))
    variables = {f"VIM_{name}_PORT": port for name, port in ports.items()}
    variables |= {"VIM_SERVER_VENV": str(environment), "PYTHON": sys.executable}
    given = [
        command
        for block in blocks_of("serve")
        if block.needs.startswith(SERVER)
        for command in commands(block)
    ]
    assert given[0].text.endswith(" &")
    # A shell in which Ctrl-C reaches what was started with "&", as it does where people type.
    lines = [
        "set -em",
        "trap 'kill -KILL %1 2> /dev/null || true' EXIT",
        *(line.text for line in given),
    ]
    script = "\n".join([*lines, "wait %1"]).replace(":8000", f":{ports['HTTP']}")
    person.give(script, [line for command in given for line in command.said], **variables)
    assert "the server's answers are the stored ones" in person.answers[script]
    assert f"work/photos/00.png\t{best_class(person)}\t" in person.answers[script]


def test_the_stand_in_is_the_program_of_the_page() -> None:
    (block,) = [
        block
        for block in code_of(REPOSITORY / FOLDER / "finetuned.md")
        if block.language == "python"
    ]
    text = (REPOSITORY / FOLDER / "standin.py").read_text(encoding="utf-8")
    assert list(block.lines) == text.splitlines()
