"""A record of a log as one line of JSON.

A collector cuts a log at line ends and reads what it finds as fields. So whatever a message holds,
a record is exactly one line, has a bounded length (container runtimes cut at 16 KiB, and half an
object is none), is ASCII in every locale, and stays safe for a terminal after `jq -r` decoded it.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Final

from hpcc.obs.events.table import event_of
from hpcc.obs.secrets import hide_secrets
from hpcc.obs.text import one_line, plain

MAX_LINE_BYTES: Final = 16 << 10
# As they are in the line. The sum, with the quotes, is below `MAX_LINE_BYTES`.
_MAX_MESSAGE_BYTES: Final = 4096
_MAX_FIELD_BYTES: Final = 768
_MAX_EXCEPTION_BYTES: Final = 6144
_CUT: Final = "..."
# OpenTelemetry's words.
_SEVERITIES: Final = (
    (logging.CRITICAL, "FATAL"),
    (logging.ERROR, "ERROR"),
    (logging.WARNING, "WARN"),
    (logging.INFO, "INFO"),
)


class JsonFormatter(logging.Formatter):
    """Formats a record as an object: fixed keys first, then the event's arguments."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line, without its end."""
        try:
            event, fields = event_of(record)
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - an argument's own text fails: the line is still needed
            event, fields, message = "library", {}, str(record.msg)
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        line: dict[str, object] = {
            "time": f"{at.removesuffix('+00:00')}Z",
            "severity": severity_of(record.levelno),
            "service": self._service,
            "event": event,
            "logger": _text(record.name, _MAX_FIELD_BYTES),
            "message": _text(message, _MAX_MESSAGE_BYTES),
        }
        for name, value in fields.items():
            line[name] = _text(value, _MAX_FIELD_BYTES) if isinstance(value, str) else value
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = _last(self.formatException(record.exc_info))
        return json.dumps(line)


def severity_of(level: int) -> str:
    """Return OpenTelemetry's word for a level of `logging`."""
    return next((word for least, word in _SEVERITIES if level >= least), "DEBUG")


def _text(text: str, most: int) -> str:
    """Return a text that takes at most `most` bytes in the line; its end is what is cut."""
    # Cut before it is searched, so that a long text costs little; at twice the limit, so that a
    # secret at the limit is whole.
    shown = one_line(hide_secrets(text[: 2 * most]))
    if len(text) <= 2 * most and _size(shown) <= most:
        return shown
    return shown[: _fitting(shown, most - len(_CUT))] + _CUT


def _last(text: str) -> str:
    """Return the end of a traceback, which has the error, within its limit. Line ends stay."""
    shown = plain(hide_secrets(text[-4 * _MAX_EXCEPTION_BYTES :]))[::-1]
    if _size(shown) <= _MAX_EXCEPTION_BYTES:
        return shown[::-1]
    cut = shown[: _fitting(shown, _MAX_EXCEPTION_BYTES - len(_CUT))]
    return _CUT + cut[::-1]


def _size(text: str) -> int:
    return len(json.dumps(text)) - 2


def _fitting(text: str, most: int) -> int:
    """Return how many characters from the start take at most `most` bytes in the line."""
    low, high = 0, min(len(text), most)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _size(text[:middle]) <= most else (low, middle - 1)
    return low
