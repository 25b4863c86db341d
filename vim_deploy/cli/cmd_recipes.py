"""``vim-deploy recipes``."""

from __future__ import annotations

import click

from vim_deploy.cli import completion
from vim_deploy.cli.output import answer, json_option, print_table
from vim_deploy.codec import encode


@click.group("recipes")
def command() -> None:
    """List and show what can be exported by name."""


@command.command("list")
@json_option
def list_recipes() -> None:
    """One line for each recipe that comes with vim-deploy."""
    from vim_deploy.recipe.catalog import find_recipe, recipe_names

    recipes = [find_recipe(name) for name in recipe_names()]
    if answer({"recipes": [encode(recipe) for recipe in recipes]}):
        return
    rows = [
        (recipe.name, recipe.title, recipe.published.figures, recipe.checkpoint.address)
        for recipe in recipes
    ]
    print_table("recipes", ("name", "what", "published", "checkpoint"), rows)


@command.command("show")
@click.argument("name", shell_complete=completion.recipes)
@json_option
def show(name: str) -> None:
    """Everything a recipe says; NAME is a recipe's name or a .toml file."""
    from vim_deploy.cli.cmd_inspect import flat_rows
    from vim_deploy.recipe.catalog import find_recipe

    recipe = encode(find_recipe(name))
    if answer(recipe):
        return
    print_table(f"recipe {name}", ("key", "value"), flat_rows(recipe))
