"""Names the fault of a connection that did not come about: DNS, the network, the certificate.

Libraries wrap the system's error, and their own texts may quote a URL with a secret in it or a
server's words. So only what the system and OpenSSL say is shown.
"""

from __future__ import annotations

from typing import Final

_MAX_CHAIN: Final = 16
# asyncio writes so when a name has several addresses, and none of them answers.
_SEVERAL: Final = "Multiple exceptions: "
_MAX_CHARS: Final = 300
NO_ADDRESS: Final = "its name has no address: look at the name and at DNS"
# What a library that is not Python's writes, in lower case.
_TEXTS: Final = (
    ("dns error", NO_ADDRESS),
    ("invalidcertificate", "its certificate is not accepted: its CA must be configured"),
    ("connection refused", "nobody listens there"),
)


def connection_fault(error: BaseException) -> str:
    """Return what is wrong, from the errors that led to this one; "" if none of them tells."""
    found: BaseException | None = error
    for _ in range(_MAX_CHAIN):
        if found is None:
            return ""
        if words := _words(found):
            return words
        found = found.__cause__ or found.__context__
    return ""


def _words(error: BaseException) -> str:
    import socket  # late: most processes that may fail so do not
    import ssl

    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not accepted ({error.verify_message})"
        case ssl.SSLError():
            return f"no TLS with it ({error.reason or 'the handshake failed'})"
        case socket.gaierror():
            return f"{NO_ADDRESS} ({error.strerror})"
        case ConnectionRefusedError():
            return "nobody listens there"
        case TimeoutError():
            return "no answer in time"
        case OSError():
            text = str(error)
            return error.strerror or (text[:_MAX_CHARS] if text.startswith(_SEVERAL) else "")
        case _:
            return ""


def fault_in(text: str) -> str:
    """Return what is wrong by a library's text, which itself is not shown; "" if unknown."""
    lower = text.lower()
    return next((meaning for mark, meaning in _TEXTS if mark in lower), "")
