"""The launcher protocol: which messages are refused, and with which word."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from hpcc.core import CallerError
from hpcc.wire import address
from hpcc.wire import launcher as wire
from hpcc.wire.build_facts import MAX_FACTS_BYTES
from hpcc.wire.launcher_version import decode_version, encode_version

REQUEST = wire.LauncherRequest(
    build_id=b"0.1.0-1",
    compiler=b"/usr/bin/gcc",
    cwd=b"/home/me",
    argv=(b"gcc", b"-c", b"", b"a.c"),
    env=((b"PATH", b"/bin"), (b"LANG", b"")),
    umask=0o022,
    gid=7,
    stderr_is_tty=True,
    cwd_id=(1, 2),
    root_id=(3, 1 << 63),
    mount_id=(5, 6),
)


def body_of(frame: bytes) -> bytes:
    _, length = wire.parse_header(frame)
    assert len(frame) == wire.HEADER_BYTES + length
    return frame[wire.HEADER_BYTES :]


def refused(call: Callable[..., object], *args: object) -> str:
    with pytest.raises(CallerError) as caught:
        call(*args)
    assert caught.value.reason == "malformed-frame"
    return str(caught.value)


def test_a_request_with_an_empty_argument_reads_back() -> None:
    assert wire.decode_request(body_of(wire.encode_request(REQUEST))) == REQUEST


def test_the_protocol_version_is_read_before_everything_else() -> None:
    body = body_of(wire.encode_request(REQUEST, protocol=99)) + b"what a later version adds"
    assert wire.request_protocol(body) == 99


FACTS = b"HPCC_BUILD=nightly\0GITHUB_RUN_ID=7\0"


def test_the_facts_about_a_build_are_outside_of_the_requests_key() -> None:
    plain, named = (wire.encode_request(REQUEST._replace(facts=f)) for f in (b"", FACTS))
    key, facts = wire.split_request(named)
    assert facts == FACTS
    assert wire.split_request(plain) == (key, b"")
    assert key == plain[wire.HEADER_BYTES + 8 :]
    assert wire.decode_request(body_of(named)) == REQUEST._replace(facts=FACTS)
    other = wire.encode_request(REQUEST._replace(umask=0, facts=FACTS))
    assert wire.split_request(other)[0] not in {key, b""}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        wire.encode_request(REQUEST)[:19],
        wire.encode_request(REQUEST)[:-1],
        wire.encode_request(REQUEST) + b"x",
        wire.encode_request(REQUEST, protocol=2),
        b"HTTP" + wire.encode_request(REQUEST)[4:],
        wire.frame(wire.REPORT, wire.encode_request(REQUEST)[wire.HEADER_BYTES :]),
        wire.encode_request(REQUEST._replace(facts=FACTS * 200)),
    ],
)
def test_what_is_not_one_whole_request_has_no_key(data: bytes) -> None:
    assert wire.split_request(data) == (b"", b"")


def test_a_daemon_of_the_protocol_before_reads_the_new_version_first() -> None:
    body = body_of(wire.encode_request(REQUEST._replace(facts=FACTS)))
    assert wire.request_protocol(body) == wire.PROTOCOL_VERSION == 4


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (b"", "cut off"),
        (b"hpc1", "cut off"),
        (b"GET " + bytes(8), "magic"),
        (b"hpc1" + struct.pack("<II", 77, 0), "unknown type"),
        (b"hpc1" + struct.pack("<II", wire.REQUEST, (8 << 20) + 1), "too many"),
        (b"hpc1" + struct.pack("<II", wire.REPORT, wire.MAX_REPORT_BYTES + 1), "too many"),
        (b"hpc1" + struct.pack("<II", wire.ADMIN, 0xFFFFFFFF), "too many"),
    ],
)
def test_a_header_that_is_not_ours_is_refused_before_anything_is_read(
    head: bytes, word: str
) -> None:
    assert word in refused(wire.parse_header, head)


@pytest.mark.parametrize("cut", [0, 3, 7, 8, 40, 76])
def test_a_request_cut_off_in_its_fixed_part_is_refused(cut: int) -> None:
    assert "cut off" in refused(wire.decode_request, body_of(wire.encode_request(REQUEST))[:cut])


def patched(offset: int, value: int) -> bytes:
    body = bytearray(body_of(wire.encode_request(REQUEST)))
    struct.pack_into("<I", body, offset, value)
    return bytes(body)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (patched(16, 0), "arguments"),
        (patched(16, 5), "count"),
        (patched(16, (1 << 18) + 1), "arguments"),
        (patched(20, 5000), "variables"),
        (patched(8, 6), "reserved"),
        (patched(12, 0o1000), "reserved"),
        (patched(4, 4), "reserved"),
        (patched(4, MAX_FACTS_BYTES), "facts"),
        (patched(4, MAX_FACTS_BYTES + 1), "facts"),
        (patched(4, 0xFFFFFFFF), "facts"),
        (body_of(wire.encode_request(REQUEST)) + b"x", "count"),
        (body_of(wire.encode_request(REQUEST))[:-1], "count"),
        (body_of(wire.encode_request(REQUEST._replace(cwd=b"here"))), "absolute"),
        (body_of(wire.encode_request(REQUEST._replace(compiler=b"gcc"))), "absolute"),
        (body_of(wire.encode_request(REQUEST._replace(env=((b"", b"x"),)))), "name"),
        # A string without "=", which `encode_request` cannot write.
        (body_of(wire.encode_request(REQUEST)).replace(b"PATH=/bin", b"PATH-/bin"), "name"),
        (body_of(wire.encode_request(REQUEST)).replace(b"LANG=", b"LANG-"), "name"),
        (body_of(wire.encode_request(REQUEST)).replace(b"LANG=", bytes([1]) * 5), "name"),
    ],
)
def test_a_request_that_contradicts_itself_is_refused(body: bytes, word: str) -> None:
    assert word in refused(wire.decode_request, body)


def test_a_request_of_nothing_but_nuls_is_refused_without_splitting_it() -> None:
    body = bytearray(wire.MAX_REQUEST_BYTES)
    struct.pack_into("<I", body, 16, 3)
    assert "count" in refused(wire.decode_request, bytes(body))


def test_a_string_with_a_nul_cannot_be_sent() -> None:
    refused(wire.encode_request, REQUEST._replace(argv=(b"a\0b",)))
    refused(wire.encode_run, wire.LauncherRun((b"/bin/gcc", b"a\0b"), False))


def report(*numbers: int, tail: bytes = b"") -> bytes:
    return struct.pack("<5I", *numbers) + tail


@pytest.mark.parametrize(
    "body",
    [
        b"",
        report(256, 0, 0, 0, 0),
        report(0, 128, 0, 0, 0),
        report(1, 9, 0, 0, 0),
        report(0, 0, 2, 0, 0),
        report(0, 0, 0, 4, 0, tail=b"abc"),
        report(0, 0, 0, 1, 1, tail=b"abc"),
        report(0, 0, 0, 0xFFFFFFFF, 1),
    ],
)
def test_an_impossible_report_is_refused(body: bytes) -> None:
    refused(wire.decode_report, body)


def test_a_run_needs_an_absolute_compiler() -> None:
    refused(wire.encode_run, wire.LauncherRun((b"gcc",), False))
    refused(wire.encode_run, wire.LauncherRun((), False))
    refused(wire.decode_run, struct.pack("<II", 0, 1) + b"gcc\0")


def test_an_answer_too_large_for_the_launcher_is_refused_here() -> None:
    big = bytes(wire.MAX_REPLY_BYTES)
    refused(wire.encode_done, wire.LauncherDone(0, big, b""))


def test_the_build_id_names_version_and_protocol() -> None:
    assert wire.BUILD_ID.endswith(f"-{wire.PROTOCOL_VERSION}")


def test_a_socket_path_that_fits_is_kept_and_a_longer_one_is_hashed() -> None:
    fits = b"/" + b"a" * (107 - 1 - len("/daemon.sock"))
    assert address.daemon_socket(fits, 7) == fits + b"/daemon.sock"
    hashed = address.daemon_socket(fits + b"a", 7)
    assert hashed.startswith(b"/tmp/hpcc-7/")
    assert hashed.endswith(b".sock")
    assert len(hashed) <= 107
    assert hashed != address.daemon_socket(fits + b"b", 7)


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", 0xCBF29CE484222325), (b"a", 0xAF63DC4C8601EC8C), (b"foobar", 0x85944171F73967E8)],
)
def test_fnv1a_has_the_values_its_authors_publish(data: bytes, expected: int) -> None:
    assert address.fnv1a(data) == expected


@pytest.mark.parametrize("is_draining", [True, False])
def test_the_build_id_of_another_daemon_reads_back_and_is_bounded(*, is_draining: bool) -> None:
    for name, expected in (("0.9-1", "0.9-1"), ("x" * 300, "x" * wire.MAX_REASON_BYTES)):
        body = body_of(encode_version(name, is_draining=is_draining))
        assert decode_version(body) == (expected, is_draining)
    assert decode_version(bytes(4)) == ("", False)
    assert "cut off" in refused(decode_version, bytes(3))


def test_a_reason_is_bounded() -> None:
    assert body_of(wire.encode_exec("x" * 300)) == b"x" * wire.MAX_REASON_BYTES
