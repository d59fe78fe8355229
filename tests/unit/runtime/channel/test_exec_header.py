"""The first frame of an exec: the same message, whatever was encoded for an earlier one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpcc._proto import agent_pb2 as pb
from hpcc.core import CallerError, Digest, ExecRequest, InputFile, InputPart
from hpcc.runtime.channel import pending_exec
from hpcc.runtime.channel.pending_exec import encode_header
from hpcc.runtime.channel.replies import ReplyChecker
from hpcc.wire import warden as wire

A, B, C = (Digest.of(data) for data in (b"a", b"b", b"c"))
PARTS = (
    InputPart(A, (InputFile("a.c", A), InputFile("tool", B, is_executable=True))),
    InputPart(B, ()),
    InputPart(C, tuple(InputFile(f"include/{i}.h", C) for i in range(300))),
)
REQUEST = ExecRequest(
    exec_id="x",
    argv=("cc", "-c", "a.c"),
    env=(("PATH", "/bin"),),
    cwd="build",
    inputs=tuple(file for part in PARTS for file in part.files),
    outputs=("a.o",),
    output_directories=("out",),
    input_directories=("empty",),
)
GUEST = pb.Guest(guest_id="g1", wall_time_ns=1, entropy=b"e" * 64)


@pytest.mark.parametrize("first", [GUEST, None])
def test_parts_say_the_same_as_the_list_of_all_inputs(first: pb.Guest | None) -> None:
    plain = pb.ClientFrame.FromString(encode_header(REQUEST, first))
    assert [i.path for i in plain.header.inputs] == [f.path for f in REQUEST.inputs]
    assert [i.is_executable for i in plain.header.inputs][:2] == [False, True]
    for _ in range(2):
        frame = encode_header(replace(REQUEST, parts=PARTS), first)
        assert pb.ClientFrame.FromString(frame) == plain


def test_a_request_without_inputs_has_a_header() -> None:
    frame = pb.ClientFrame.FromString(encode_header(replace(REQUEST, inputs=()), None))
    assert frame.header.exec_id == "x"
    assert not frame.header.inputs


def test_a_part_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = tuple(InputPart(p.directory, p.files) for p in PARTS)
    encoded: list[int] = []
    encode = pending_exec._encode_inputs

    def counted(files: tuple[InputFile, ...]) -> bytes:
        encoded.append(len(files))
        return encode(files)

    monkeypatch.setattr(pending_exec, "_encode_inputs", counted)
    encode_header(replace(REQUEST, parts=parts), None)
    assert encoded == [2, 0, 300]
    edited = (InputPart(B, (InputFile("a.c", B),)), *parts[1:])
    frame = encode_header(replace(REQUEST, parts=edited), None)
    assert encoded == [2, 0, 300, 1]
    assert pb.ClientFrame.FromString(frame).header.inputs[0].digest.hex() == B.hash


def test_a_frame_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    request = replace(REQUEST, parts=PARTS)
    size = len(encode_header(request, GUEST))
    monkeypatch.setattr(pending_exec, "MAX_HEADER_FRAME_BYTES", size)
    encode_header(request, GUEST)
    monkeypatch.setattr(pending_exec, "MAX_HEADER_FRAME_BYTES", size - 1)
    with pytest.raises(CallerError, match="larger than"):
        encode_header(request, GUEST)


def test_a_guest_can_ask_for_each_input_of_all_parts_and_no_other_blob() -> None:
    checker = ReplyChecker(replace(REQUEST, parts=PARTS))
    wanted = tuple(bytes.fromhex(d.hash) for d in (A, B, C))
    checker.feed(wire.NeedReply(wanted, more=False))
    assert checker.needed == [A, B, C]
    checker = ReplyChecker(replace(REQUEST, parts=PARTS[1:]))
    with pytest.raises(Exception, match="not an input"):
        checker.feed(wire.NeedReply((bytes.fromhex(A.hash),), more=False))
