"""What a worker asks its helper: 16 bytes in one form, for ids of guests only."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.runtime.runc.spec import FIRST_UID, RANGES, UIDS
from hpcc.wire.helper import (
    FIRST_ID,
    IDS,
    MAX_COUNT,
    READ_BYTES,
    MapRequest,
    decode_request,
    encode_request,
)

# Who gives out which ids, the first and the last: ADR 58 has the sources.
OTHERS = {
    "users, nobody, 16-bit -1": (0, 65_535),
    "systemd, containers": (524_288, 1_878_982_656 + 65_535),
    "shadow, subuid": (100_000, 600_100_000),
    "kubelet, pods": (65_536, 65_536 * 1_025),
    "LXD, Incus": (1_000_000, 1_000_999_999),
    "OpenShift, projects": (1_000_000_000, 1_999_999_999),
    "SSSD, FreeIPA": (200_000, 2_000_200_000),
    "systemd, foreign": (0x7FFE_0000, 0x7FFE_FFFF),
    "podman, userns=auto": (2**31 - 1, 2**32 - 2),
    "FreeIPA, subid": (2**31, 2**32 - 2),
    "32-bit -1": (2**32 - 1, 2**32 - 1),
}
GOOD = encode_request(MapRequest(FIRST_ID + 5, 2))


def packed(offset: int, count: int) -> bytes:
    return struct.pack("<8sII", b"hpccmap1", offset, count)


@pytest.mark.parametrize("request_", [MapRequest(FIRST_ID, 1), MapRequest(FIRST_ID + 7, MAX_COUNT)])
def test_what_is_asked_arrives(request_: MapRequest) -> None:
    assert decode_request(encode_request(request_)) == request_


def test_ids_of_guests_are_no_ids_of_containers() -> None:
    assert FIRST_ID + IDS <= FIRST_UID


@pytest.mark.parametrize(("first", "last"), OTHERS.values(), ids=OTHERS)
def test_ids_of_guests_are_nobody_elses(first: int, last: int) -> None:
    ours = range(FIRST_ID, FIRST_UID + RANGES * UIDS)
    assert first <= last
    assert last < ours.start or first >= ours.stop


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
