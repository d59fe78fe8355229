"""For any guest reply, the host's checker returns events or raises its one error, in bounds."""

from __future__ import annotations

import contextlib

from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcc._proto import agent_pb2 as pb
from hpcc.agent.base.intake import Intake
from hpcc.core import CallerError, ExecLimits, IntegrityError, OutputEvent, ResultEvent, StdioEvent
from hpcc.runtime.channel.replies import ReplyChecker
from hpcc.warden.guest import reply_of
from hpcc_testkit.guests.guest_contract import request
from hpcc_testkit.suite.examples import examples

REQUEST = request(
    "cc", inputs=[("a.c", b"1"), ("b.h", b"2")], outputs=("a.o", "d/b.o", "c.d"),
    limits=ExecLimits(stdio_bytes=64, output_bytes=64),
)  # fmt: skip
DIGESTS = [bytes.fromhex(f.digest.hash) for f in REQUEST.inputs]

seconds = st.floats() | st.floats(0, 10)
needs = st.builds(
    pb.Need, digests=st.lists(st.sampled_from([*DIGESTS, b"x"]), max_size=3), more=st.booleans()
)
stdio = st.builds(pb.Stdio, stream=st.integers(0, 3), data=st.binary(max_size=40))
results = st.builds(
    pb.Result, exit_code=st.integers(0, 300), signal=st.integers(0, 70), reason=st.integers(0, 9),
    wall_seconds=seconds, user_seconds=seconds, max_rss_bytes=st.integers(0, 2**64 - 1),
)  # fmt: skip
good_results = st.just(pb.Result(reason=pb.Result.REASON_ENDED))
outputs = st.builds(
    pb.OutputChunk, path=st.sampled_from([*REQUEST.outputs, "../x", ""]),
    data=st.binary(max_size=40), is_executable=st.booleans(), last=st.booleans(),
)  # fmt: skip
frames = st.one_of(
    needs.map(lambda m: pb.ServerFrame(need=m)),
    stdio.map(lambda m: pb.ServerFrame(stdio=m)),
    (results | good_results).map(lambda m: pb.ServerFrame(result=m)),
    outputs.map(lambda m: pb.ServerFrame(output=m)),
)


@settings(max_examples=examples(400))
@given(st.lists(frames, max_size=12))
def test_any_sequence_keeps_every_promise(sequence: list[pb.ServerFrame]) -> None:
    checker = ReplyChecker(REQUEST)
    events = []
    try:
        for frame in sequence:
            event = checker.feed(reply_of(frame))
            if event is not None:
                events.append(event)
        checker.end()
        results_seen = [e for e in events if isinstance(e, ResultEvent)]
        assert len(results_seen) == 1
    except IntegrityError as error:
        assert error.reason == "protocol-violation"
    assert sum(len(e.data) for e in events if isinstance(e, StdioEvent)) <= 64
    assert sum(len(e.data) for e in events if isinstance(e, OutputEvent)) <= 64
    assert {e.path for e in events if isinstance(e, OutputEvent)} <= set(REQUEST.outputs)
    assert len(set(checker.needed)) == len(checker.needed) <= 2


@settings(max_examples=examples(300))
@given(st.binary(max_size=300))
def test_any_bytes_are_a_frame_or_an_error(data: bytes) -> None:
    checker = ReplyChecker(REQUEST)
    with contextlib.suppress(DecodeError, IntegrityError):
        checker.feed(reply_of(pb.ServerFrame.FromString(data)))
    with contextlib.suppress(DecodeError, CallerError):
        Intake().header(pb.ClientFrame.FromString(data))
