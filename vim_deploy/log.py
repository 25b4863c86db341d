"""Logging for people on stderr, as text or as one JSON object per line."""

from __future__ import annotations

import json
import logging
import sys
from typing import TextIO

from vim_deploy.text import printable

_ROOT = "vim_deploy"


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Nothing: where standard error takes nothing, there is nobody to tell."""


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(
            {
                "time": round(record.created, 3),
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": record.getMessage(),
            }
        )


def get_logger(name: str) -> logging.Logger:
    """The package's logger for module ``name``."""
    return logging.getLogger(name if name.startswith(_ROOT) else f"{_ROOT}.{name}")


def configure(verbosity: int = 0, log_format: str = "text") -> None:
    """Send the package's log to stderr.

    Args:
        verbosity: -1 errors only, 0 notes, 1 details, 2 everything.
        log_format: ``text`` or ``json``.
    """
    handler = _Handler(sys.stderr)
    if log_format == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(_TextFormatter("%(message)s"))
    logger = logging.getLogger(_ROOT)
    logger.handlers[:] = [handler]
    logger.propagate = False
    levels = {-1: logging.ERROR, 0: logging.INFO, 1: logging.DEBUG}
    logger.setLevel(levels.get(verbosity, logging.DEBUG))
