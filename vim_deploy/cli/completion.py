"""What a shell is offered for values of arguments and options: names of recipes, variants, heads.

A shell asks while somebody waits with a finger on the key: nothing here imports more than reading
an option does. Files are the shell's own matter, unless names of ours stand among them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

#: Names of files that every shell takes as they are, without quotes.
_PLAIN = re.compile(r"[\w./+@%:-]+")

Items = list[CompletionItem[str]]


def recipes(_: click.Context, __: click.Parameter, incomplete: str) -> Items:
    """Names of recipes, for what takes one or the file of one."""
    return _names_or_files(_recipe_names(), incomplete)


def models(_: click.Context, __: click.Parameter, incomplete: str) -> Items:
    """Names for ``--model``: ``auto``, the variants, the recipes of dense models."""
    from vim_deploy.recipe.catalog import variants
    from vim_deploy.recipe.schema import AUTO

    return _items(dict.fromkeys((AUTO, *variants(), *_recipe_names())), incomplete)


def heads(_: click.Context, __: click.Parameter, incomplete: str) -> Items:
    """Names for ``--head``, of every kind of model; what follows a colon is the user's."""
    from vim_deploy.heads import usages

    found = [*usages(dense=False), *usages(dense=True)]
    return _items(dict.fromkeys(usage.partition(":")[0] for usage in found), incomplete)


def _recipe_names() -> tuple[str, ...]:
    from vim_deploy.recipe.catalog import recipe_names

    return recipe_names()


def _items(names: Iterable[str], incomplete: str) -> Items:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _names_or_files(names: Iterable[str], incomplete: str) -> Items:
    """Names that fit with the files that do; the shell's own files where no name fits.

    A shell that is given names leaves its files out, so they are listed here.
    """
    named = _items(names, incomplete)
    if not named:
        return [CompletionItem(incomplete, type="file")]
    try:
        here = sorted(path.name for path in Path().iterdir())
    except OSError:
        return named
    shown = [name for name in here if not name.startswith(".") and _PLAIN.fullmatch(name)]
    return named + _items(shown, incomplete)
