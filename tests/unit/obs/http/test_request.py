"""A request's head: what it holds, and what is ambiguous. test_admin.py has what is refused."""

from __future__ import annotations

from http import HTTPStatus

from hypothesis import given
from hypothesis import strategies as st

from hpcc.obs.http.request import Request, read_request

_HEAD = b"GET /a/b?c=d?e HTTP/1.1\r\nHost: localhost:1\r\nCookie: a=b \r\nX: 1\r\nx: 2\r\n\r\n"


def test_a_request_has_path_query_and_headers_that_occur_once() -> None:
    request = read_request(_HEAD, loopback_only=True)
    assert isinstance(request, Request)
    assert (request.path, request.query, request.is_head) == ("/a/b", "c=d?e", False)
    assert [request.header(name) for name in ("cookie", "x", "y")] == ["a=b", "", ""]


@given(
    st.binary(max_size=200)
    | st.text(max_size=200).map(lambda text: text.encode("latin-1", "replace"))
)
def test_any_bytes_are_a_request_or_a_refusal(head: bytes) -> None:
    for found in (
        read_request(head, loopback_only=True),
        read_request(b"GET /" + head, loopback_only=False),
    ):
        assert isinstance(found, Request) or found in {
            HTTPStatus.BAD_REQUEST, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.MISDIRECTED_REQUEST
        }  # fmt: skip
