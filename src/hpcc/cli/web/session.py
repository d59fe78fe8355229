"""Decides which requests come from the browser that has opened the link. No I/O.

The cookie alone is too little: browsers send a cookie of 127.0.0.1 to each port, so a server of
another user on this machine could collect it. So the pages are under a random path, and the cookie
is for that path only. The path alone is too little as well: it is in the history of the browser.
"""

from __future__ import annotations

import secrets
from enum import Enum
from typing import Final
from urllib.parse import parse_qs

from hpcc.obs.http.request import Request

COOKIE: Final = "hpcc-web"
OPEN: Final = "open"
_TOKEN_BYTES: Final = 32
_PLACE_BYTES: Final = 16
# What browsers say of a request that another page caused.
_FOREIGN: Final = frozenset({"cross-site", "same-site"})


class VisitDecision(Enum):
    """What a request gets."""

    REFUSED = "refused"
    OPENED = "opened"
    ALLOWED = "allowed"


class BrowserSession:
    """One link, and the browser that has used it."""

    def __init__(self) -> None:
        self.root = "/" + secrets.token_hex(_PLACE_BYTES)
        self._token: str | None = secrets.token_urlsafe(_TOKEN_BYTES)
        self._cookie = secrets.token_urlsafe(_TOKEN_BYTES)

    @property
    def link(self) -> str:
        """Return path and query of the link; it can be used until `admit` has opened once."""
        return f"{self.root}/{OPEN}?token={self._token or ''}"

    @property
    def cookie(self) -> str:
        """Return the value of `Set-Cookie` for the answer to the link."""
        return f"{COOKIE}={self._cookie}; Path={self.root}/; HttpOnly; SameSite=Strict"

    def admit(self, request: Request) -> VisitDecision:
        """Decide about a request. The first right link is used up by this."""
        root, slash, rest = request.path[1:].partition("/")
        if not slash or not _is_equal(root, self.root[1:]):
            return VisitDecision.REFUSED
        if rest == OPEN:
            return self._opened(request)
        if request.header("sec-fetch-site") in _FOREIGN or not self._has_cookie(request):
            return VisitDecision.REFUSED
        return VisitDecision.ALLOWED

    def _opened(self, request: Request) -> VisitDecision:
        if self._has_cookie(request):  # the link once more, in the same browser
            return VisitDecision.OPENED
        token = _token_of(request.query)
        if self._token is None or request.is_head or not _is_equal(token, self._token):
            return VisitDecision.REFUSED
        self._token = None
        return VisitDecision.OPENED

    def _has_cookie(self, request: Request) -> bool:
        # Other services of 127.0.0.1 set cookies, too, even of this name: one of them must fit.
        pairs = (word.strip().partition("=") for word in request.header("cookie").split(";"))
        values = [value for name, _, value in pairs if name == COOKIE]
        return any(_is_equal(value, self._cookie) for value in values)


def _token_of(query: str) -> str:
    try:
        found = parse_qs(query, max_num_fields=4).get("token", [])
    except ValueError:
        return ""
    return found[0] if len(found) == 1 else ""


def _is_equal(given: str, known: str) -> bool:
    return secrets.compare_digest(given.encode("utf-8", "surrogatepass"), known.encode())
