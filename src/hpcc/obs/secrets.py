"""Takes what looks like a credential out of a text that is about to leave the process.

No message of hpcc has a secret in it. A library's error may quote a URL with a password or a header
with a token, and such a text reaches a log as the cause of something else. This is the second line
of defence, and knows forms, not values.
"""

from __future__ import annotations

import re
from typing import Final

# Each is linear: its start cannot lie within what another start of it would read.
_PATTERNS: Final = (
    # Up to the last @: a password may have one.
    (re.compile(r"(://)[^/?#\s]{1,512}@"), r"\1[hidden]@"),
    (re.compile(r"(?<![\w-])eyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*"), "[hidden]"),
    (re.compile(r"(?i)\bbearer [\w.~+/=-]{16,}"), "Bearer [hidden]"),
    # As a header, or as a pair of a dict.
    (re.compile(r"(?i)(\bauthorization['\"]?: ?['\"]?[\w-]+ )[\w.~+/=-]{4,}"), r"\1[hidden]"),
    # In queries, such as Azure's `sig`, and in what PostgreSQL's clients take.
    (
        re.compile(r"(?i)((?<![a-z])(?:passw(?:or)?d|secret|token|signature|sig)=)[^\s&;,'\"]{6,}"),
        r"\1[hidden]",
    ),
    (re.compile(r"hpcc-enrol-[\w-]{16,}"), "[hidden]"),
    # An encrypted one has headers with hyphens.
    (re.compile(r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----[^-]*(?:-(?!----)[^-]*)*"), "[hidden]"),
)


def hide_secrets(text: str) -> str:
    """Return the text without passwords, JWTs, HTTP credentials, tokens and private keys."""
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text
