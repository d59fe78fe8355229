"""Reads the head of one HTTP request, and refuses what is not exactly one."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from hpcc.core.endpoints import is_loopback


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A GET or HEAD. Names of `headers` are in lower case; `target` begins with a slash."""

    target: str
    is_head: bool
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def path(self) -> str:
        """Return the target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """Return the query without its question mark."""
        return self.target.partition("?")[2]

    def header(self, name: str) -> str:
        """Return the value of a header; "" if it is absent or repeated."""
        found = [value for known, value in self.headers if known == name]
        return found[0] if len(found) == 1 else ""


def read_request(head: bytes, *, loopback_only: bool) -> Request | HTTPStatus:
    """Return the request of a head up to its empty line, or with what status it is refused.

    With `loopback_only` the host must be a name of this machine. A page from elsewhere can make a
    browser here ask a name of the page's own that leads to 127.0.0.1; then it reads the answer.
    """
    first, *fields = head.decode("latin-1").split("\r\n")
    method, _, rest = first.partition(" ")
    target, _, version = rest.partition(" ")
    headers = tuple((n.lower(), v.strip()) for n, _, v in (f.partition(":") for f in fields))
    hosts = [value for name, value in headers if name == "host"]
    if not target.startswith("/") or version not in {"HTTP/1.0", "HTTP/1.1"}:
        return HTTPStatus.BAD_REQUEST
    if len(hosts) != 1:
        return HTTPStatus.BAD_REQUEST
    if method not in {"GET", "HEAD"}:
        return HTTPStatus.METHOD_NOT_ALLOWED
    if loopback_only and not is_loopback(_host_of(hosts[0])):
        return HTTPStatus.MISDIRECTED_REQUEST
    return Request(target=target, is_head=method == "HEAD", headers=headers)


def _host_of(text: str) -> str:
    """Return the host of `host:port`, `host`, `[v6]:port` or `[v6]`."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].lower()
