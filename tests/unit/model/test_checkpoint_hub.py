"""hf:// addresses, against a stand-in for huggingface_hub and against the real one offline."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from pathlib import Path

import pytest
import torch

from vim_deploy.errors import VimDeployError
from vim_deploy.installation import extra_command
from vim_deploy.model import hub
from vim_deploy.model.checkpoint import read_checkpoint

COMMIT = "0123abcd"


class FakeHub(types.ModuleType):
    """The few functions used, over a folder laid out as the hub's cache."""

    def __init__(self, cache: Path) -> None:
        super().__init__("huggingface_hub")
        self.__spec__ = importlib.machinery.ModuleSpec("huggingface_hub", None)
        self.snapshots = cache / "snapshots" / COMMIT
        self.snapshots.mkdir(parents=True)
        self.failure: Exception | None = None
        self.asked: list[tuple[str, str | None]] = []

    def HfApi(self) -> FakeHub:  # noqa: N802 - the package's own name
        return self

    def model_info(
        self, repository: str, *, revision: str | None, timeout: float
    ) -> types.SimpleNamespace:
        assert timeout > 0
        self.asked.append((repository, revision))
        if self.failure is not None:
            raise self.failure
        names = [p.relative_to(self.snapshots).as_posix() for p in self.snapshots.rglob("*.*")]
        siblings = [types.SimpleNamespace(rfilename=name) for name in names]
        return types.SimpleNamespace(sha=COMMIT, siblings=siblings)

    def hf_hub_download(
        self, repository: str, filename: str, *, revision: str, etag_timeout: float
    ) -> str:
        assert revision == COMMIT
        assert etag_timeout > 0
        path = self.snapshots / filename
        if not path.exists():
            raise self.errors.EntryNotFoundError(f"no {filename}")
        return str(path)

    def try_to_load_from_cache(
        self, repository: str, filename: str, *, revision: str | None
    ) -> str | None:
        path = self.snapshots / filename
        return str(path) if path.exists() else None


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    module = FakeHub(tmp_path / "cache")
    errors = types.ModuleType("huggingface_hub.errors")
    for name, parent in (
        ("EntryNotFoundError", Exception),
        ("RepositoryNotFoundError", Exception),
        ("RevisionNotFoundError", Exception),
        ("HFValidationError", ValueError),
    ):
        setattr(errors, name, type(name, (parent,), {}))
    errors.LocalEntryNotFoundError = type("LocalEntry", (errors.EntryNotFoundError,), {})
    module.errors = errors
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    return module


def put(fake: FakeHub, name: str) -> None:
    path = fake.snapshots / name
    path.parent.mkdir(exist_ok=True)
    torch.save({"a": torch.ones(2)}, path)


def error_of(address: str) -> VimDeployError:
    with pytest.raises(VimDeployError) as caught:
        read_checkpoint(address)
    assert caught.value.fix
    return caught.value


def test_only_checkpoint_of_a_repository(fake: FakeHub) -> None:
    put(fake, "vim.pth")
    (fake.snapshots / "README.md").write_text("x")
    checkpoint = read_checkpoint("hf://owner/name")
    assert checkpoint.info.name == "vim.pth"
    assert checkpoint.info.source == f"hf://owner/name@{COMMIT}/vim.pth"
    assert any("vim.pth" in note for note in checkpoint.notes)
    assert fake.asked == [("owner/name", None)]


def test_named_file_at_a_revision_and_as_a_path_object(fake: FakeHub) -> None:
    put(fake, "sub/a.pth")
    put(fake, "b.pth")
    for address in ("hf://owner/name@v1/sub/a.pth", Path("hf://owner/name@v1/sub/a.pth")):
        info = read_checkpoint(address).info
        assert info.source == f"hf://owner/name@{COMMIT}/sub/a.pth"
    assert fake.asked == [("owner/name", "v1")] * 2


def test_source_is_an_address_that_gives_the_same_file(fake: FakeHub) -> None:
    put(fake, "b.pth")
    first = read_checkpoint("hf://owner/name/b.pth").info
    assert read_checkpoint(first.source).info == first


def test_several_checkpoints_are_listed(fake: FakeHub) -> None:
    put(fake, "a.pth")
    put(fake, "b.pth")
    error = error_of("hf://owner/name")
    assert error.code == "VIM-401"
    assert "a.pth, b.pth" in error.why
    assert error.fix.endswith("/a.pth")


def test_nothing_there(fake: FakeHub) -> None:
    assert error_of("hf://owner/name").code == "VIM-401"
    assert error_of("hf://owner/name/none.pth").code == "VIM-401"
    fake.failure = fake.errors.RepositoryNotFoundError("404 not found\nlong text")
    error = error_of("hf://owner/name")
    assert (error.code, error.why) == ("VIM-401", "404 not found")


def test_unreachable(fake: FakeHub) -> None:
    fake.failure = ConnectionError("name or service not known")
    for address in ("hf://owner/name", "hf://owner/name/b.pth"):
        error = error_of(address)
        assert error.code == "VIM-303"
        assert "not known" in error.why


def test_unreachable_with_a_copy_downloaded_earlier_says_so(fake: FakeHub) -> None:
    put(fake, "sub/b.pth")
    fake.failure = ConnectionError("offline")
    checkpoint = read_checkpoint("hf://owner/name/sub/b.pth")
    assert checkpoint.info.source == f"hf://owner/name@{COMMIT}/sub/b.pth"
    assert any("hub not reached" in note and COMMIT in note for note in checkpoint.notes)
    assert error_of("hf://owner/name").code == "VIM-303"


@pytest.mark.parametrize(
    "address", ["hf://", "hf://owner", "hf://a/b/../../c", "hf:///a/b", "hf://a b/c", "hf://a/b@"]
)
def test_malformed_address(fake: FakeHub, address: str) -> None:
    assert error_of(address).code == "VIM-202"
    assert not fake.asked


def test_package_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "is_installed", lambda: False)
    error = error_of("hf://owner/name")
    assert error.code == "VIM-301"
    assert extra_command("hub") in error.fix


@pytest.mark.parametrize("address", ["hf://hustvl/Vim-tiny-midclstok", "hf://hustvl/none/x.pth"])
def test_real_package_in_offline_mode(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip(
        "huggingface_hub.constants",
        reason="huggingface_hub is not installed: pip install 'vim-deploy[hub]'",
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert error_of(address).code == "VIM-303"
