"""How this copy of vim-deploy was installed, what lies beside it, and how to add what it lacks.

A checkout (an editable install is one) has documents, recipes and sources at its top; a wheel has
them in the package's folder ``shipped``, in the same places (``setup.py``). What else was installed
from a file, a folder or a repository rather than from an index says so in ``direct_url.json``
beside its metadata (PEP 610). A command that names an index for a package that did not come from it
would fail, or fetch what somebody else put there under its name.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import Distribution

NAME = "vim-deploy"
_PACKAGE = Path(__file__).resolve().parent
_IN_WHEEL = _PACKAGE / "shipped"
#: The folder that has ``docs``, ``export``, ``cpp`` and ``plugins`` of the repository. A part of it
#: may be missing: an installation may be damaged.
SHIPPED = _IN_WHEEL if _IN_WHEEL.is_dir() else _PACKAGE.parent


def is_checkout() -> bool:
    """Whether this copy runs from the repository, as editable installs do."""
    return SHIPPED != _IN_WHEEL and (SHIPPED / "pyproject.toml").is_file()


def pip_command(action: str, *words: str) -> str:
    """A command of pip for the environment of this process: ``pip install -U rich``.

    pip's own name where the shell's ``pip`` is that of this environment; else by the interpreter,
    since another environment's pip would change that one.
    """
    # Everything imports this module, and few need a command.
    import shlex

    return shlex.join([*_pip(action), *words])


def extra_command(extra: str) -> str:
    """The command that adds what an extra of ours brings, in the way this copy was installed.

    A checkout is named by its folder, a wheel by its file, a repository by its address. When that
    file or folder is gone, the extra's own requirements are named.
    """
    if is_checkout():
        return pip_command("install", "-e", f"{SHIPPED}[{extra}]")
    found = _distribution()
    if found is None:
        return f"install {NAME} again with its extra {extra}, the way this copy was installed"
    return pip_command("install", *(_named(found, extra) or _requirements(found, extra)))


def _pip(action: str) -> list[str]:
    import shutil

    on_path, here = shutil.which("pip"), Path(sys.executable).parent
    # The interpreter of an environment is a link, which is not followed: its folder counts.
    if on_path is not None and Path(on_path).parent == here:
        return ["pip", action]
    if not _has_pip() and shutil.which("uv"):
        return ["uv", "pip", action, "--python", sys.executable]
    return [sys.executable, "-m", "pip", action]


def _has_pip() -> bool:
    """By its metadata: looking for the module itself, setuptools would warn of distutils."""
    from importlib.metadata import distributions

    return next(iter(distributions(name="pip")), None) is not None


def _distribution() -> Distribution | None:
    """The installed distribution that this very package belongs to."""
    from importlib.metadata import distributions

    owned = (
        item
        for item in distributions(name=NAME)
        if Path(str(item.locate_file(_PACKAGE.name))).resolve() == _PACKAGE
    )
    return next(owned, None)


def _named(found: Distribution, extra: str) -> list[str]:
    """This copy with an extra, by where it came from; nothing when that is gone or not known."""
    origin = _origin(found)
    if origin is None:
        # Of an index, or of a folder of files that took its place. What is installed satisfies
        # the name, so that none is asked for this package itself.
        return [f"{NAME}[{extra}]"]
    from urllib.parse import unquote, urlsplit

    url, vcs = str(origin.get("url", "")), origin.get("vcs_info")
    try:
        address = urlsplit(url)
    except ValueError:
        return []
    if isinstance(vcs, dict):
        inside = origin.get("subdirectory")
        part = f"#subdirectory={inside}" if inside else ""
        return [f"{NAME}[{extra}] @ {vcs.get('vcs')}+{url}@{vcs.get('commit_id')}{part}"]
    if address.scheme != "file":
        return [f"{NAME}[{extra}] @ {url}"] if url else []
    path = Path(unquote(address.path))
    return [f"{path}[{extra}]"] if path.exists() else []


def _origin(found: Distribution) -> dict[str, Any] | None:
    """``direct_url.json``; None where there is none."""
    import json

    text = found.read_text("direct_url.json")
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    # Of a damaged one nothing is known but that it was no index.
    return value if isinstance(value, dict) else {}


def _requirements(found: Distribution, extra: str) -> list[str]:
    """What an extra asks for, with what remains of its markers, for pip to judge."""
    ends = re.compile(rf"""(;|\s+and)\s*extra\s*==\s*['"]{re.escape(extra)}['"]\s*$""")
    return [ends.sub("", text).strip() for text in found.requires or () if ends.search(text)]
