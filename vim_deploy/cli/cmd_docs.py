"""``vim-deploy docs``."""

from __future__ import annotations

import click

from vim_deploy.cli.output import answer, json_option, print_markdown, print_table


@click.command("docs")
@click.argument("page", required=False)
@json_option
def command(page: str | None) -> None:
    """Show PAGE of the documents, or list the pages.

    PAGE is a name such as plugin or docs/plugin.md, or an error's code. A terminal gets it laid
    out; a file or pipe gets it as it stands, in Markdown.
    """
    from vim_deploy.stages.documents import page_text, pages

    if page is not None:
        text = page_text(page)
        if not answer({"page": page, "text": text}):
            print_markdown(text)
        return
    known = pages().values()
    if not answer({"pages": [{"name": item.name, "title": item.title} for item in known]}):
        print_table("pages", ("name", "what"), [(item.name, item.title) for item in known])
