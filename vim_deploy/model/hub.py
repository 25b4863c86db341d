"""Hugging Face Hub: the only module that imports huggingface_hub."""

from __future__ import annotations

import contextlib
import importlib.util
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vim_deploy.errors import HubUnreachableError, VimDeployError, missing_package
from vim_deploy.files import require_file
from vim_deploy.recipe.stored_preparation import BESIDE

_MODULE = "huggingface_hub"
#: Seconds to wait for the hub's answer before it counts as unreachable.
_TIMEOUT = 10.0


_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
# Path() folds the two slashes of hf:// into one.
_HUB = re.compile(rf"hf://?({_NAME}/{_NAME})(?:@([^/]+))?(?:/(.+))?")


@dataclass(frozen=True)
class CheckpointFile:
    """A file on this machine, the hub address it came from (or ""), and what was chosen."""

    path: Path
    source: str = ""
    notes: tuple[str, ...] = ()


def is_installed() -> bool:
    """Whether the package can be found."""
    return importlib.util.find_spec(_MODULE) is not None


def _load() -> Any:  # noqa: ANN401 - an optional package
    if not is_installed():
        raise missing_package(_MODULE, "hub", "an hf:// address")
    import huggingface_hub

    return huggingface_hub


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit: the commit's hash and the paths of its files."""

    commit: str
    files: tuple[str, ...]


def snapshot(repository: str, revision: str | None = None) -> Snapshot:
    """``owner/name`` as it is now, or at a branch, tag or commit.

    One request and no retries, so that a missing network is noticed at once.

    Raises:
        VimDeployError: VIM-301 (not installed), VIM-303 (not reachable), VIM-401 (no such
            repository or revision, or not open to this user).
    """
    hub = _load()
    with _coded_errors(repository):
        info = hub.HfApi().model_info(repository, revision=revision, timeout=_TIMEOUT)
    return Snapshot(str(info.sha), tuple(sorted(file.rfilename for file in info.siblings or ())))


def download(repository: str, filename: str, commit: str) -> Path:
    """Local path of one file at one commit; a file already in the hub's cache is reused.

    Raises:
        VimDeployError: as ``snapshot``; VIM-401 also when the file is not in the repository.
    """
    hub = _load()
    with _coded_errors(f"{repository}/{filename}"):
        return Path(
            hub.hf_hub_download(repository, filename, revision=commit, etag_timeout=_TIMEOUT)
        )


def cached(repository: str, filename: str, revision: str | None = None) -> tuple[Path, str] | None:
    """Path and commit of a file that an earlier download left in the hub's cache."""
    found = _load().try_to_load_from_cache(repository, filename, revision=revision)
    if not isinstance(found, str):
        return None
    path = Path(found)
    # The cache keeps a file as .../snapshots/COMMIT/FILE, and FILE may hold folders.
    return path, path.parts[-1 - len(PurePosixPath(filename).parts)]


def locate(text: str, choose: Callable[[Sequence[str], str, str], str]) -> CheckpointFile:
    """The local copy of what an address on the hub means.

    Args:
        text: ``hf://owner/name[@revision][/file]``.
        choose: the one checkpoint among files, their place and how an address of one begins.

    Raises:
        VimDeployError: VIM-202 (malformed), VIM-301, VIM-303, VIM-401.
    """
    match = _HUB.fullmatch(text)
    if match is None or ".." in PurePosixPath(match[3] or "").parts:
        raise VimDeployError(
            "VIM-202",
            f"not a hub address: {text}",
            fix="write hf://OWNER/NAME, hf://OWNER/NAME/FILE or hf://OWNER/NAME@REVISION/FILE",
        )
    repository, revision, name = match.groups()
    try:
        found = snapshot(repository, revision)
    except HubUnreachableError as error:
        if name is None:
            raise
        return _from_hub_cache(repository, revision, name, error)
    pinned = f"hf://{repository}@{found.commit}/"
    notes: tuple[str, ...] = ()
    if name is None:
        name = choose(found.files, text, pinned)
        notes = (f"checkpoint {name}, the only one in {text}",)
    path = download(repository, name, found.commit)
    for beside in BESIDE:
        file = str(PurePosixPath(name).with_name(beside))
        if file in found.files:
            download(repository, file, found.commit)
    return CheckpointFile(require_file(path, "downloaded checkpoint"), pinned + name, notes)


def _from_hub_cache(
    repository: str, revision: str | None, name: str, unreachable: VimDeployError
) -> CheckpointFile:
    """A copy downloaded earlier, said to be one; without it, why the hub was not reached."""
    found = cached(repository, name, revision)
    if found is None:
        raise unreachable
    path, commit = found
    note = f"hub not reached; using the copy of {name} downloaded earlier, commit {commit}"
    return CheckpointFile(path, f"hf://{repository}@{commit}/{name}", (note,))


@contextlib.contextmanager
def _coded_errors(address: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into coded errors."""
    from huggingface_hub import errors

    # The hub answered, and there is nothing for this user at the address.
    absent = (
        errors.RepositoryNotFoundError,
        errors.RevisionNotFoundError,
        errors.HFValidationError,
    )
    try:
        yield
    except errors.LocalEntryNotFoundError as error:
        # Derives from EntryNotFoundError, but means: not in the cache, and the hub not asked.
        raise _unreachable(address, error) from error
    except (*absent, errors.EntryNotFoundError) as error:
        raise VimDeployError(
            "VIM-401",
            f"not on the Hugging Face Hub: {address}",
            why=_first_line(error),
            fix="check the address; for a private or gated repository log in with `hf auth login`",
        ) from error
    except Exception as error:
        # Between its major versions the package raises requests', httpx's or its own errors for
        # the same broken connection, so their classes are not named here.
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> VimDeployError:
    return VimDeployError(
        "VIM-303",
        f"cannot get {address} from the Hugging Face Hub",
        why=_first_line(error),
        fix="check the network and HF_HUB_OFFLINE, or download the file and give its path; "
        "a file already in the cache is found by its full address, hf://OWNER/NAME/FILE",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]
