"""The repository's own files and modules, as the rule tests read them."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "vim_deploy"
#: Programs that packages carry. They run where vim-deploy is not, with the packages of the server's
#: environment or of a client, so they import nothing of it and are imported by nothing in it.
SERVED = "vim_deploy.packaging.served."
#: Folders that hold something else than the project's source: hidden ones, environments, outputs.
_SKIPPED = ("build", "dist", "work", "vim-deploy-work", "node_modules", "reference")


@dataclass(frozen=True)
class Module:
    """One module of the package: dotted name, file and syntax tree."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def layer(self) -> str:
        """First part below the package: a folder or a base module; "" for the package itself."""
        return self.name.partition(".")[2].partition(".")[0]


def files(*suffixes: str) -> Iterator[Path]:
    """Source files of the repository with one of ``suffixes``, sorted."""
    for path in sorted(REPOSITORY.rglob("*")):
        parts = path.relative_to(REPOSITORY).parts
        skipped = any(p in _SKIPPED or p.startswith(".") or "egg-info" in p for p in parts[:-1])
        if path.suffix in suffixes and not skipped and path.is_file():
            yield path


@functools.cache
def modules() -> tuple[Module, ...]:
    """Every module of the package."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Module(name, path, ast.parse(path.read_text(encoding="utf-8"))))
    return tuple(found)


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Dotted name and line of everything that ``tree`` imports, inside functions too.

    ``from a import b`` gives ``a.b``, because ``b`` may be a module; a literal handed to
    ``import_module`` or ``__import__`` counts as an import.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else None
            called = node.func.id if isinstance(node.func, ast.Name) else called
            first = node.args[0]
            if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
                yield str(first.value), node.lineno
