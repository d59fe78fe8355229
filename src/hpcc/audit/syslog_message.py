"""A security event as a message of syslog (RFC 5424), framed for TLS (RFC 5425).

Everything that a rule can want is a parameter of the structured data. Names are words of this code;
values come from peers, so quotes and controls in them are escaped and each has a limit.
"""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from hpcc.obs.secrets import hide_secrets
from hpcc.obs.text import one_line
from hpcc.ports import SecurityEvent

# authpriv (10), warning (4): https://www.rfc-editor.org/rfc/rfc5424#section-6.2.1
_PRIORITY: Final = 10 * 8 + 4
# Receivers should take so much: https://www.rfc-editor.org/rfc/rfc5425#section-4.3.1
MAX_MESSAGE_BYTES: Final = 8192
MAX_NAME_CHARS: Final = 32
_MAX_VALUE_BYTES: Final = 512
_CUT: Final = "cut"
# What header, text, and the parameter that tells of a cut take at most.
_RESERVED_BYTES: Final = 700
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_WORD: Final = re.compile(r"[!-~]{1,255}")
_ESCAPED: Final = re.compile(r'(["\\\]])')
# A pair that is not cut in two, at the end of a value.
_HALF: Final = re.compile(r"(?<!\\)(?:\\\\)*\\$")


@dataclass(frozen=True, slots=True, kw_only=True)
class SyslogSource:
    """Who reports: `service` is `worker`, `source` the worker's name, the others RFC 5424's."""

    service: str
    source: str
    # The number of the structured data's names: https://www.iana.org/assignments/enterprise-numbers
    enterprise: int
    host: str = field(default_factory=socket.gethostname)
    process: int = field(default_factory=os.getpid)


def framed(source: SyslogSource, event: SecurityEvent, *, dropped: int = 0) -> bytes:
    """Return the event's frame: its length in octets, a space, and the message.

    `dropped` is how many events before this one were not sent.
    """
    at = datetime.fromtimestamp(event.at, UTC).isoformat(timespec="microseconds")
    host = source.host if _WORD.fullmatch(source.host) else "-"
    message_id = event.name[:MAX_NAME_CHARS] if _NAME.fullmatch(event.name) else "-"
    head = (
        f"<{_PRIORITY}>1 {at.removesuffix('+00:00')}Z {host} hpcc-{source.service}"
        f" {source.process} {message_id} [hpcc@{source.enterprise}"
    )
    given = [("name", event.name), ("source", source.source), ("tenant", event.tenant)]
    given += [("peer", event.peer), ("request_id", event.request_id), *event.fields]
    if dropped:
        given.insert(0, ("dropped_before", str(dropped)))
    message = (head + _parameters(given) + f"] security event {message_id}").encode()
    assert len(message) <= MAX_MESSAGE_BYTES
    return b"%d %s" % (len(message), message)


def _parameters(given: list[tuple[str, str]]) -> str:
    parts: list[str] = []
    size = _RESERVED_BYTES
    taken = {_CUT}
    for name, value in given:
        # A receiver keeps one value of a name: a field must not hide who reports, or of whom.
        shown = f"field_{name}" if name in taken else name
        if not value or shown in taken or not _NAME.fullmatch(shown):
            continue
        taken.add(shown)
        part = f' {shown}="{_value(value)}"'
        size += len(part.encode())
        if size > MAX_MESSAGE_BYTES:
            parts.append(f' {_CUT}="1"')
            break
        parts.append(part)
    return "".join(parts)


def _value(text: str) -> str:
    """Return a value as it is in the message: escaped, in one line, and short."""
    shown = one_line(hide_secrets(text[: 2 * _MAX_VALUE_BYTES]))
    escaped = _ESCAPED.sub(r"\\\1", shown)
    if len(escaped.encode()) <= _MAX_VALUE_BYTES:
        return escaped
    cut = escaped.encode()[:_MAX_VALUE_BYTES].decode(errors="ignore")
    return _HALF.sub(lambda found: found[0][:-1], cut)
