"""What the launcher says about its build, and that nothing else depends on it."""

from __future__ import annotations

import os
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hpcc.wire import launcher as wire
from hpcc.wire.build_facts import MAX_FACTS_BYTES, MAX_VALUE_BYTES, NAMES, decode_facts
from hpcc_testkit.cache.launcher import ROOT, Bench

HEADER = ROOT / "launcher" / "wire.h"


@contextmanager
def listening(bench: Bench) -> Iterator[list[bytes]]:
    """Stand in for a daemon that answers EXEC to each request; yields the frames."""
    frames: list[bytes] = []
    bench.run_dir.mkdir(parents=True, mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(bench.run_dir / "daemon.sock"))
        listener.listen(8)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    frames.append(read(connection))
                    connection.sendall(wire.encode_exec("x"))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield frames
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def read(connection: socket.socket) -> bytes:
    data = b""
    while len(data) < wire.HEADER_BYTES or len(data) < wire.HEADER_BYTES + length_of(data):
        data += connection.recv(1 << 16)
    return data


def length_of(data: bytes) -> int:
    return wire.parse_header(data)[1]


def test_launcher_and_daemon_have_one_list_and_the_same_limits() -> None:
    text = HEADER.read_text()
    listed = text[text.index("#define EACH_FACT") : text.index("#define BUILD_VARIABLE")]
    assert tuple(re.findall(r'F\("(\w+)"\)', listed)) == tuple(n.decode() for n in NAMES)
    assert f"#define MAX_FACT_BYTES {MAX_VALUE_BYTES}u" in text
    assert f"#define MAX_FACTS_BYTES {MAX_FACTS_BYTES}u" in text
    assert sum(len(n) + 2 + MAX_VALUE_BYTES + 1 for n in NAMES) <= MAX_FACTS_BYTES


def test_every_fact_is_sent_and_none_is_in_the_request(bench: Bench) -> None:
    values = {name.decode(): f"value of {name.decode()}" for name in NAMES}
    with listening(bench) as frames:
        done = bench.run("gcc", "-c", "a.c", extra_env={**values, "HPCC_X": "y", "CI": "true"})
        assert done.returncode == 0
        bench.run("gcc", "-c", "a.c", extra_env={"HPCC_X": "y", "CI": "true"})
    named, plain = frames
    request = wire.decode_request(named[wire.HEADER_BYTES :])
    assert decode_facts(request.facts) == {n.encode(): v.encode() for n, v in values.items()}
    assert dict(request.env)[b"HPCC_X"] == b"y"
    assert not set(dict(request.env)) & {*NAMES, b"CI"}
    assert wire.split_request(plain)[1] == b""
    assert wire.split_request(named)[0] == wire.split_request(plain)[0] != b""


def test_a_long_value_is_cut_where_the_daemon_sees_it_and_an_empty_one_is_left_out(
    bench: Bench,
) -> None:
    fits = "x" * MAX_VALUE_BYTES
    with listening(bench) as frames:
        bench.run(
            "gcc", "-c", "a.c",
            extra_env={"HPCC_BUILD": fits + "yz", "BUILD_TAG": fits, "TRACEPARENT": ""},
        )  # fmt: skip
    assert decode_facts(wire.split_request(frames[0])[1]) == {
        b"HPCC_BUILD": fits.encode() + b"y",
        b"BUILD_TAG": fits.encode(),
    }


def test_the_longest_values_of_all_names_are_sent_together(bench: Bench) -> None:
    with listening(bench) as frames:
        bench.run("gcc", "-c", "a.c", extra_env={n.decode(): "x" * 10_000 for n in NAMES})
    facts = decode_facts(wire.split_request(frames[0])[1])
    assert facts == dict.fromkeys(NAMES, b"x" * (MAX_VALUE_BYTES + 1))


def test_names_that_only_begin_like_a_fact_are_not_sent(bench: Bench) -> None:
    others = {"HPCC_BUILD_2": "a", "BUILD_TAG_": "b", "TRACEPARENTS": "c", "BUILD": "d"}
    with listening(bench) as frames:
        bench.run("gcc", "-c", "a.c", extra_env=others)
    assert wire.split_request(frames[0])[1] == b""
    assert b"HPCC_BUILD_2" in dict(wire.decode_request(frames[0][wire.HEADER_BYTES :]).env)


@pytest.mark.parametrize("value", [b"\xff\xfe", b"\x1b[31m\n"])
def test_bytes_that_are_no_text_are_passed_on_and_the_compile_goes_on(
    bench: Bench, value: bytes
) -> None:
    with listening(bench) as frames:
        env = {os.fsencode(n): os.fsencode(v) for n, v in bench.env.items()}
        bench.env = {**env, b"HPCC_BUILD": value}  # type: ignore[dict-item]  # as a shell may do
        done = bench.run("gcc", "-c", "a.c")
        bench.env = {os.fsdecode(n): os.fsdecode(v) for n, v in env.items()}
    assert done.returncode == 0
    assert (bench.work / "a.o").exists()
    assert decode_facts(wire.split_request(frames[0])[1]) == {b"HPCC_BUILD": value}


def test_the_compiler_still_has_all_variables(bench: Bench) -> None:
    script = bench.script("cc-7", 'echo "$HPCC_BUILD $TRACEPARENT"')
    with listening(bench):
        done = bench.run("wrap", script, extra_env={"HPCC_BUILD": "x", "TRACEPARENT": "y"})
    assert done.stdout == b"x y\n"


def test_a_request_has_its_protocol_where_every_version_has_it(bench: Bench) -> None:
    with listening(bench) as frames:
        bench.run("gcc", "-c", "a.c", extra_env={"HPCC_BUILD": "x"})
    assert struct.unpack_from("<I", frames[0], wire.HEADER_BYTES) == (wire.PROTOCOL_VERSION,)
