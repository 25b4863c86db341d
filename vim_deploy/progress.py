"""What a command is at, for whoever waits: a line of the log at the beginning of each stage.

The command line shows it as one line that changes, or as a line of its own (``cli.output``).
"""

from __future__ import annotations

import logging

#: Takes the beginning of a stage at level INFO, in the words that people read: "tracing".
stage_log = logging.getLogger(__name__)
