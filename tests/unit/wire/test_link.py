"""The link handshake finds the start of a session, whatever bytes precede it in the pipe."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.core import IntegrityError
from hpcc.wire.link import MAX_JUNK_BYTES, NONCE_BYTES, TOKEN_BYTES, GuestLink, HostLink

TOKEN, NONCE = b"t" * TOKEN_BYTES, b"n" * NONCE_BYTES
junk = st.binary(max_size=200)
splits = st.lists(st.integers(1, 50), max_size=30)


def pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    out = []
    for size in sizes:
        out.append(data[:size])
        data = data[size:]
    return [p for p in [*out, data] if p]


@given(junk, junk, splits, splits)
def test_both_sides_meet_after_any_junk_however_it_is_cut(
    before: bytes, after: bytes, up: list[int], down: list[int]
) -> None:
    host, guest = HostLink(TOKEN, NONCE), GuestLink(TOKEN)
    answer, session = None, b""
    for piece in pieces(before + host.hello + b"PRI * HTTP/2.0", up):
        if answer is not None:
            session += piece
        elif found := guest.feed(piece):
            answer, session = found
    assert answer is not None
    assert session == b"PRI * HTTP/2.0"
    rest, early = None, b""
    for piece in pieces(before + answer + after, down):
        if rest is not None:
            early += piece
        else:
            rest = host.feed(piece)
    assert rest is not None
    assert rest + early == after


def test_another_guests_token_is_no_hello() -> None:
    assert GuestLink(TOKEN).feed(HostLink(b"x" * TOKEN_BYTES, NONCE).hello) is None


def test_an_old_sessions_welcome_is_no_answer() -> None:
    found = GuestLink(TOKEN).feed(HostLink(TOKEN, b"o" * NONCE_BYTES).hello)
    assert found is not None
    assert HostLink(TOKEN, NONCE).feed(found[0]) is None


@pytest.mark.parametrize("size", [1000, MAX_JUNK_BYTES + 1000])
def test_junk_without_end_is_refused(size: int) -> None:
    host = HostLink(TOKEN, NONCE)

    def flood() -> None:
        for _ in range(MAX_JUNK_BYTES // 1000 + 2):
            host.feed(b"\0" * size)

    with pytest.raises(IntegrityError) as caught:
        flood()
    assert caught.value.reason == "link-handshake"


def test_a_token_of_a_wrong_size_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="token"):
        GuestLink(b"short")
