"""Files that say more of a model than its checkpoint: ``--config`` and ``--labels``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vim_deploy.errors import VimDeployError
from vim_deploy.files import require_file
from vim_deploy.untrusted import read_json

#: A config is a page of keywords; anything larger is another kind of file.
_MAX_CONFIG_BYTES = 1 << 20


def config_in(path: Path) -> dict[str, Any]:
    """The keywords in a file of ``--config``; VIM-401 or VIM-416 for one that has none."""

    def bad(why: str) -> VimDeployError:
        return VimDeployError(
            "VIM-416",
            f"{path} is not a model config",
            why=why,
            fix="write one JSON object with the official constructor's keywords, or give the YAML "
            "file that detectron2's LazyConfig saved",
        )

    if path.suffix.lower() in (".yaml", ".yml"):
        from vim_deploy.recipe.lazy_yaml import read_lazy_config

        return read_lazy_config(require_file(path, "model config"), bad)
    value = read_json(require_file(path, "model config"), bad, max_bytes=_MAX_CONFIG_BYTES)
    if not isinstance(value, dict):
        raise bad(f"it holds {json.dumps(value)[:60]}, not an object")
    return value


def labels_in(path: Path) -> tuple[str, ...]:
    """The names in a file of ``--labels``; VIM-401 or VIM-416 for one that has none."""
    from vim_deploy.recipe.load import labels_of

    fix = "one class name a line, or JSON with the name of each number"
    return labels_of(
        path,
        lambda why: VimDeployError("VIM-416", f"{path} is no file of labels", why=why, fix=fix),
    )
