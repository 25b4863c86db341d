"""A run's record and its report as files, with what they were made on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vim_deploy.bench import environment
from vim_deploy.errors import NoSpaceError, OutputLocationError
from vim_deploy.files import prepare_folder, sha256_of, write_json
from vim_deploy.paths import StrPath, as_path
from vim_deploy.recipe.catalog import checkpoint_of
from vim_deploy.report.write import require_html, write_pages

_log = logging.getLogger(__name__)


def prepare_report(folder: StrPath) -> None:
    """Before minutes are spent: can the report be made, and is there a place for it?

    Raises:
        VimDeployError: VIM-301 where jinja2 is not installed; VIM-304, VIM-305 (folder).
    """
    require_html()
    prepare_folder(as_path(folder, "folder"), "--report")


def place_of_run(*folders: Path) -> Path | None:
    """The first of ``folders`` that can be written, for a record that nobody asked for.

    None when there is no such folder: then the run goes on, and the log says that it is not stored.
    """
    for folder in folders:
        try:
            prepare_folder(folder, "--report")
        except (OutputLocationError, NoSpaceError) as error:
            _log.debug("%s: %s", error.message, error.why)
        else:
            return folder
    names = " and ".join(dict.fromkeys(str(folder) for folder in folders))
    _log.info("note: the report is not stored: %s cannot be written; --report FOLDER", names)
    return None


def provenance(against: str | None = None) -> dict[str, Any]:
    """Machine, software and state now; name and SHA-256 of the reference where it is a file."""
    value: dict[str, Any] = {
        "environment": {"machine": environment.machine(), "state": environment.state()}
    }
    if against is not None:
        path = Path(checkpoint_of(against))
        value["against"] = {
            "name": path.name if path.is_file() else against,
            "sha256": sha256_of(path) if path.is_file() else "",
        }
    return value


def write_run(
    kind: str,
    value: Mapping[str, Any],
    folder: StrPath,
    *,
    pages: bool,
    shown: Mapping[str, Any] | None = None,
) -> tuple[Path, ...]:
    """Write ``KIND.json``, and with ``pages`` the page and its Markdown twin; what was written.

    Args:
        kind: ``parity``, ``accuracy``, ``bisect``, ``bench``, ``compare`` or ``deploy``.
        value: the JSON-able record.
        folder: that exists.
        pages: whether to write more than the JSON; ``prepare_report`` has looked if that works.
        shown: what the pages have beside the record: small pictures.

    Raises:
        VimDeployError: VIM-301 (jinja2 missing), VIM-304, VIM-305 (output).
    """
    folder = as_path(folder, "folder")
    path = folder / f"{kind}.json"
    write_json(path, value)
    if not pages:
        return (path,)
    return (path, *write_pages(kind, {**value, **(shown or {})}, folder, with_html=True))
