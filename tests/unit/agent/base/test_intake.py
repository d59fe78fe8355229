"""The agent refuses frames that violate agent.proto and accepts all others."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from hpcc._proto import agent_pb2 as pb
from hpcc.agent.base.intake import Intake
from hpcc.core import MAX_INPUTS, CallerError, Digest

DATA = b"int main;"
RAW = hashlib.sha256(DATA).digest()


def header(**changes: Any) -> pb.ClientFrame:
    fields: dict[str, Any] = {
        "exec_id": "e-1",
        "argv": ["cc", "-c", "a.c"],
        "env": [pb.Variable(name="PATH", value="/bin")],
        "cwd": "",
        "inputs": [pb.Input(path="a.c", digest=RAW, size_bytes=len(DATA))],
        "outputs": ["a.o"],
        "limits": pb.Limits(wall_seconds=1, memory_bytes=1, pids=1, output_bytes=1, stdio_bytes=1),
    }
    return pb.ClientFrame(header=pb.Header(**{**fields, **changes}))


def chunk(data: bytes, *, last: bool = True, digest: bytes = RAW) -> pb.ClientFrame:
    return pb.ClientFrame(chunk=pb.InputChunk(digest=digest, data=data, last=last))


def ready() -> Intake:
    intake = Intake()
    request, _ = intake.header(header())
    intake.want([f.digest for f in request.inputs])
    return intake


def test_a_good_header_is_a_request() -> None:
    request, first_exec = Intake().header(header())
    assert request.argv == ("cc", "-c", "a.c")
    assert request.env == (("PATH", "/bin"),)
    assert request.inputs[0].digest == Digest.of(DATA)
    assert first_exec is None


@pytest.mark.parametrize(
    "change",
    [{"path": "b.c"}, {"digest": bytes(32)}, {"size_bytes": 9}, {"is_executable": True}],
    ids=lambda change: next(iter(change)),
)
def test_an_input_is_what_its_own_header_says(change: dict[str, Any]) -> None:
    """Inputs of earlier headers are remembered."""
    fields = {"path": "a.c", "digest": RAW, "size_bytes": len(DATA), "is_executable": False}
    for wanted in (fields, fields | change, fields):
        request, _ = Intake().header(header(inputs=[pb.Input(**wanted)]))
        found = request.inputs[0]
        assert {
            "path": found.path,
            "digest": bytes.fromhex(found.digest.hash),
            "size_bytes": found.digest.size_bytes,
            "is_executable": found.is_executable,
        } == wanted


def test_a_blob_may_come_in_the_header() -> None:
    intake = Intake()
    intake.header(header(blobs=[DATA]))
    assert intake.blobs == {RAW.hex(): DATA}


@pytest.mark.parametrize(
    ("blobs", "said"),
    [
        ([b"no input"], "not an input"),
        ([DATA, b"no input"], "not an input"),
        ([DATA] * 9, "too many"),
        ([bytes(200 << 10), bytes(100 << 10)], "too large"),
    ],
    ids=["foreign", "one foreign", "many", "large"],
)
def test_other_blobs_in_a_header_are_refused(blobs: list[bytes], said: str) -> None:
    with pytest.raises(CallerError, match=said):
        Intake().header(header(blobs=blobs))


def test_a_birth_is_read() -> None:
    guest = pb.Guest(guest_id="g-1", wall_time_ns=5, entropy=bytes(64))
    _, first_exec = Intake().header(header(guest=guest))
    assert first_exec is not None
    assert (first_exec.guest_id, first_exec.wall_time_ns, first_exec.entropy) == (
        "g-1",
        5,
        bytes(64),
    )


LIMITS = {"wall_seconds": 1.0, "memory_bytes": 1, "pids": 1, "output_bytes": 1, "stdio_bytes": 1}
BAD = {
    "no exec id": {"exec_id": ""},
    "exec id with a slash": {"exec_id": "a/b"},
    "no argv": {"argv": []},
    "empty program": {"argv": [""]},
    "zero byte": {"argv": ["cc", "a\0b"]},
    "unnamed variable": {"env": [pb.Variable(value="x")]},
    "large env": {"env": [pb.Variable(name="A", value="x" * (3 << 20))]},
    "cwd that escapes": {"cwd": ".."},
    "absolute cwd": {"cwd": "/src"},
    "output that escapes": {"outputs": ["a/../../b"]},
    "too many outputs": {"outputs": [f"o{i}" for i in range(65)]},
    "absolute input": {"inputs": [pb.Input(path="/etc/passwd", digest=RAW, size_bytes=1)]},
    "short digest": {"inputs": [pb.Input(path="a", digest=b"x", size_bytes=1)]},
    "huge input": {"inputs": [pb.Input(path="a", digest=RAW, size_bytes=1 << 50)]},
    "input twice": {"inputs": [pb.Input(path="a", digest=RAW)] * 2},
    "input under input": {"inputs": [pb.Input(path=p, digest=RAW) for p in ("a", "a/b")]},
    "input under input, far below": {
        "inputs": [pb.Input(path=p, digest=RAW) for p in ("a/b", "a/b/c/d/e")]
    },
    "cwd under input": {"cwd": "a.c/x/y"},
    "output under input": {"outputs": ["a.c/x/a.o"]},
    "too many inputs": {"inputs": [pb.Input(path="a", digest=RAW)] * (MAX_INPUTS + 1)},
    "traceparent": {"traceparent": "x" * 56},
    "no limits": {"limits": pb.Limits()},
    "endless": {"limits": pb.Limits(**{**LIMITS, "wall_seconds": float("inf")})},
    "no time": {"limits": pb.Limits(**{**LIMITS, "wall_seconds": float("nan")})},
    "short entropy": {"guest": pb.Guest(guest_id="g", entropy=b"x")},
    "no guest id": {"guest": pb.Guest(entropy=bytes(64))},
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_header_is_refused(name: str) -> None:
    with pytest.raises(CallerError):
        Intake().header(header(**BAD[name]))


@pytest.mark.parametrize("frame", [None, pb.ClientFrame(), chunk(b"x")])
def test_the_first_frame_is_a_header(frame: pb.ClientFrame | None) -> None:
    with pytest.raises(CallerError):
        Intake().header(frame)


def test_a_blob_may_come_in_pieces() -> None:
    intake = ready()
    assert not intake.chunk(chunk(DATA[:4], last=False)).ends
    assert intake.chunk(chunk(DATA[4:])).ends
    assert intake.is_complete
    intake.end(None)


@pytest.mark.parametrize(
    "frame",
    [
        None,
        header(),
        chunk(DATA, digest=bytes(32)),
        chunk(DATA + b"more"),
        chunk(DATA[:-1]),
        chunk(b"", last=False),
        chunk(bytes((256 << 10) + 1)),
    ],
)
def test_a_bad_chunk_is_refused(frame: pb.ClientFrame | None) -> None:
    with pytest.raises(CallerError):
        ready().chunk(frame)


def test_nothing_may_follow_the_last_blob() -> None:
    intake = ready()
    intake.chunk(chunk(DATA))
    with pytest.raises(CallerError):
        intake.end(chunk(DATA))
