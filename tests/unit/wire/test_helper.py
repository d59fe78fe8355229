"""What a worker asks its helper: 16 bytes in one form, for ids of guests only."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.runtime.runc.spec import FIRST_UID
from hpcc.wire.helper import (
    FIRST_ID,
    IDS,
    MAX_COUNT,
    READ_BYTES,
    MapRequest,
    decode_request,
    encode_request,
)

GOOD = encode_request(MapRequest(FIRST_ID + 5, 2))


def packed(offset: int, count: int) -> bytes:
    return struct.pack("<8sII", b"hpccmap1", offset, count)


@pytest.mark.parametrize("request_", [MapRequest(FIRST_ID, 1), MapRequest(FIRST_ID + 7, MAX_COUNT)])
def test_what_is_asked_arrives(request_: MapRequest) -> None:
    assert decode_request(encode_request(request_)) == request_


def test_ids_of_guests_are_no_ids_of_containers() -> None:
    assert FIRST_ID + IDS <= FIRST_UID


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        GOOD[:-1],
        GOOD + b"\0",
        b"hpccmap2" + GOOD[8:],
        packed(0, 0),
        packed(0, MAX_COUNT + 1),
        packed(IDS, 1),
        packed(IDS - 1, 2),
        packed(2**32 - 1, 1),
        packed(0, 2**32 - 1),
        # To root's ids by a number that wraps.
        packed(2**32 - FIRST_ID, 1),
    ],
)
def test_any_other_packet_is_refused(packet: bytes) -> None:
    with pytest.raises(ValueError, match=r"a request of|ids that"):
        decode_request(packet)


@given(st.binary(max_size=READ_BYTES))
def test_whatever_arrives_names_ids_of_guests_or_nothing(packet: bytes) -> None:
    try:
        first, count = decode_request(packet)
    except ValueError:
        return
    assert FIRST_ID <= first < first + count <= FIRST_ID + IDS
    assert count <= MAX_COUNT
