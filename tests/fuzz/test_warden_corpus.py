"""The worker's parser of warden frames handles every input in the corpus."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.core import IntegrityError
from hpcc.wire import warden as wire

CORPUS = Path(__file__).parent / "corpus" / "warden_frame"
INPUTS = {path.name: path.read_bytes() for path in sorted(CORPUS.iterdir())}
GOOD = {
    "end", "lost_breach", "lost_with_escapes", "need_nothing", "need_two", "output",
    "output_executable", "output_path_escapes", "pong", "ready", "result", "result_not_a_number",
    "stdio", "stdio_empty", "stdio_of_no_stream", "taken",
}  # fmt: skip


def parse(data: bytes) -> object:
    """Read one frame as the worker does."""
    kind, _, length = wire.parse_head(data[: wire.HEADER_BYTES], wire.TO_WORKER)
    body = data[wire.HEADER_BYTES : wire.HEADER_BYTES + length]
    if kind == wire.LOST:
        return wire.decode_lost(body)
    if kind in {wire.NEED, wire.STDIO, wire.RESULT, wire.OUTPUT}:
        return wire.decode_reply(kind, body)
    return kind


@pytest.mark.parametrize("name", INPUTS)
def test_each_input_is_a_value_or_the_one_error(name: str) -> None:
    try:
        parse(INPUTS[name])
    except IntegrityError as error:
        assert (error.reason, name in GOOD) == (wire.WARDEN_PROTOCOL, False)
    else:
        assert name in GOOD


@given(st.sampled_from(sorted(INPUTS.values())), st.data())
def test_each_input_may_be_damaged(seed: bytes, data: st.DataObject) -> None:
    damaged = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged)))
        damaged[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        parse(bytes(damaged))
    except IntegrityError as error:
        assert error.reason == wire.WARDEN_PROTOCOL
