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
    (re.compile(r"(://)[^/?#\s@]{1,512}@"), r"\1[hidden]@"),
    (re.compile(r"(?<![\w-])eyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*"), "[hidden]"),
    (re.compile(r"(?i)\b(authorization: ?\w+ |bearer )[\w.~+/=-]{16,}"), r"\1[hidden]"),
    (
        re.compile(r"(?i)([?&](?:sig|x-amz-(?:signature|security-token))=)[^?&\s]{8,}"),
        r"\1[hidden]",
    ),
    (re.compile(r"hpcc-enrol-[\w-]{16,}"), "[hidden]"),
    (re.compile(r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----[^-]*"), "[hidden]"),
)


def hide_secrets(text: str) -> str:
    """Return the text without secrets in URLs, tokens, HTTP credentials and private keys."""
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text
