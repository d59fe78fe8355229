"""Logs to stderr. Whatever a message holds, a line that begins a record is hpcc's own."""

from __future__ import annotations

import logging
import sys

from hpcc.obs.text import plain

_CONTINUED = "\n    "


class PlainFormatter(logging.Formatter):
    """Escapes what a terminal obeys, and indents each line of a record but the first."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        return plain(super().format(record)).replace("\n", _CONTINUED)


def log_to_stderr(level: int, form: str | None = None) -> None:
    """Let this process log to stderr; `form` is a format string of `logging`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter(form or logging.BASIC_FORMAT))
    logging.basicConfig(handlers=[handler], level=level)
