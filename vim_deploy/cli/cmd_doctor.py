"""``vim-deploy doctor``."""

from __future__ import annotations

import click

from vim_deploy.cli.output import answer, json_option, print_table
from vim_deploy.codec import encode


@click.command("doctor")
@json_option
def command() -> None:
    """Say what this machine can do, and how to mend what it cannot.

    Always leaves with exit code 0: a missing piece matters only to the stage that needs it.
    """
    from vim_deploy.stages.diagnosis import diagnose

    findings = diagnose()
    if answer({"findings": [encode(item) for item in findings]}):
        return
    rows = [("ok" if item.ok else "no", item.subject, item.detail, item.fix) for item in findings]
    print_table("this machine", ("", "what", "found", "fix"), rows)
