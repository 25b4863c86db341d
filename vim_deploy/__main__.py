"""The program: ``vim-deploy``, and ``python -m vim_deploy``.

Signals are handled before anything else is imported: the command line and what it needs take long
enough to be interrupted, and an import that is interrupted in the middle may lose the exception.
"""

from __future__ import annotations

import sys

from vim_deploy import interrupts


def main() -> None:
    """Run the command line and leave with its exit code."""
    interrupts.install()
    try:
        from vim_deploy.cli.main import main as command_line
    except BaseException:
        # An import may make anything of the exception that comes in its middle.
        if not interrupts.requested():
            raise
        sys.exit(interrupts.STATUS)
    try:
        command_line()
    except KeyboardInterrupt:
        # It came between the end of the command and the moment that signals are no longer heard.
        sys.exit(interrupts.STATUS)


if __name__ == "__main__":
    main()
