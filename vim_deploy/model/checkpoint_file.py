"""Which file an address means: a path, a folder with one checkpoint, or a place on the hub."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vim_deploy.errors import HubUnreachableError, VimDeployError
from vim_deploy.files import require_file
from vim_deploy.model import hub

#: Suffixes of files that may hold weights.
SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
# Path() folds the two slashes of hf:// into one.
_HUB = re.compile(rf"hf://?({_NAME}/{_NAME})(?:@([^/]+))?(?:/(.+))?")


@dataclass(frozen=True)
class CheckpointFile:
    """A file on this machine, the hub address it came from (or ""), and what was chosen."""

    path: Path
    source: str = ""
    notes: tuple[str, ...] = ()


def find_checkpoint_file(address: str | Path) -> CheckpointFile:
    """The file that ``address`` means.

    Args:
        address: a file, a folder that holds one checkpoint, or
            ``hf://owner/name[@revision][/file]``.

    Raises:
        VimDeployError: VIM-202 (malformed hub address), VIM-301 and VIM-303 (hub), VIM-401
            (nothing there, or several checkpoints to choose from).
    """
    text = str(address)
    if text.startswith("hf:/"):
        return _from_hub(text)
    path = Path(address)
    if not os.path.isdir(path):
        return CheckpointFile(require_file(path, "checkpoint"))
    names = [entry.name for entry in path.iterdir() if entry.is_file()]
    name = _only_checkpoint(names, text, str(path) + "/")
    return CheckpointFile(path / name, notes=(f"checkpoint {name}, the only one in {path}",))


def _from_hub(text: str) -> CheckpointFile:
    match = _HUB.fullmatch(text)
    if match is None or ".." in PurePosixPath(match[3] or "").parts:
        raise VimDeployError(
            "VIM-202",
            f"not a hub address: {text}",
            fix="write hf://OWNER/NAME, hf://OWNER/NAME/FILE or hf://OWNER/NAME@REVISION/FILE",
        )
    repository, revision, name = match.groups()
    try:
        snapshot = hub.snapshot(repository, revision)
    except HubUnreachableError as error:
        if name is None:
            raise
        return _from_hub_cache(repository, revision, name, error)
    pinned = f"hf://{repository}@{snapshot.commit}/"
    notes: tuple[str, ...] = ()
    if name is None:
        name = _only_checkpoint(snapshot.files, text, pinned)
        notes = (f"checkpoint {name}, the only one in {text}",)
    path = hub.download(repository, name, snapshot.commit)
    return CheckpointFile(require_file(path, "downloaded checkpoint"), pinned + name, notes)


def _from_hub_cache(
    repository: str, revision: str | None, name: str, unreachable: VimDeployError
) -> CheckpointFile:
    """A copy downloaded earlier, said to be one; without it, why the hub was not reached."""
    found = hub.cached(repository, name, revision)
    if found is None:
        raise unreachable
    path, commit = found
    note = f"hub not reached; using the copy of {name} downloaded earlier, commit {commit}"
    return CheckpointFile(path, f"hf://{repository}@{commit}/{name}", (note,))


def _only_checkpoint(names: Sequence[str], place: str, prefix: str) -> str:
    found = sorted(
        name
        for name in names
        if name.endswith(SUFFIXES) and not name.rpartition("/")[2].startswith(".")
    )
    if len(found) == 1:
        return found[0]
    if not found:
        raise VimDeployError(
            "VIM-401",
            f"no checkpoint in {place}",
            why="no file there ends in " + ", ".join(SUFFIXES),
            fix="give the path of the checkpoint file itself",
        )
    shown = found[:10] + [f"and {len(found) - 10} more"] * (len(found) > 10)
    raise VimDeployError(
        "VIM-401",
        f"{len(found)} checkpoints in {place}; which one is not clear",
        why="found " + ", ".join(shown),
        fix=f"name one of them: {prefix}{found[0]}",
    )
