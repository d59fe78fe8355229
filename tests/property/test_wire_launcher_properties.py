"""The launcher protocol: every message decodes to the original; bad bytes give the one error."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hpcc.cache.root.build_identity import MAX_IDENTITY_CHARS, told_build
from hpcc.core import CallerError
from hpcc.wire import launcher as wire
from hpcc.wire.build_facts import NAMES, decode_facts, encode_facts
from hpcc.wire.launcher_version import decode_version

TEXT = st.binary(max_size=40).map(lambda b: b.replace(b"\0", b"."))
NAME = TEXT.map(lambda b: b"N" + b.replace(b"=", b"_"))
ABSOLUTE = TEXT.map(lambda b: b"/" + b)
ID = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
REQUESTS = st.builds(
    wire.LauncherRequest,
    build_id=TEXT,
    compiler=ABSOLUTE,
    cwd=ABSOLUTE,
    argv=st.lists(TEXT, min_size=1, max_size=8).map(tuple),
    env=st.lists(st.tuples(NAME, TEXT), max_size=6).map(tuple),
    umask=st.integers(0, 0o777),
    gid=st.integers(0, 2**32 - 1),
    stderr_is_tty=st.booleans(),
    cwd_id=ID,
    root_id=ID,
    mount_id=ID,
    facts=st.binary(max_size=80),
)
DECODERS = (
    wire.parse_header,
    wire.decode_request,
    wire.decode_report,
    wire.decode_done,
    wire.decode_run,
    wire.decode_finish,
    decode_version,
    wire.request_protocol,
    wire.split_request,
)


def body_of(frame: bytes) -> bytes:
    _, length = wire.parse_header(frame)
    assert len(frame) == wire.HEADER_BYTES + length
    return frame[wire.HEADER_BYTES :]


@given(REQUESTS)
def test_a_request_reads_back(request: wire.LauncherRequest) -> None:
    assert wire.decode_request(body_of(wire.encode_request(request))) == request


@given(REQUESTS, st.binary(max_size=80))
def test_two_requests_have_one_key_exactly_if_only_their_facts_differ(
    request: wire.LauncherRequest, facts: bytes
) -> None:
    key, found = wire.split_request(wire.encode_request(request))
    assert found == request.facts
    assert wire.split_request(wire.encode_request(request._replace(facts=facts))) == (key, facts)
    other = request._replace(umask=request.umask ^ 1, facts=facts)
    assert wire.split_request(wire.encode_request(other))[0] != key


@given(st.binary(max_size=400))
def test_any_bytes_are_facts_or_none(data: bytes) -> None:
    facts = decode_facts(data)
    assert facts is None or set(facts) <= set(NAMES)
    told = told_build(data)
    assert len(told.identity) <= MAX_IDENTITY_CHARS
    assert told.identity.isprintable()


VALUES = st.one_of(
    st.binary(max_size=220).map(lambda b: b.replace(b"\0", b".")),
    st.text(max_size=40).map(lambda t: t.replace("\0", ".").encode("utf-8", "surrogatepass")),
    st.from_regex(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True),
)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES))
def test_facts_with_any_values_name_a_printable_build_or_none(values: dict[bytes, bytes]) -> None:
    told = told_build(encode_facts(values.items()))
    assert len(told.identity) <= MAX_IDENTITY_CHARS
    assert told.identity.isprintable()
    assert told.identity == told.identity.strip()


@given(st.booleans(), st.integers(0, 127), st.binary(), st.binary(), st.booleans())
def test_a_report_reads_back(
    is_signal: bool, number: int, out: bytes, err: bytes, is_truncated: bool
) -> None:
    exit_code, signal = (0, number) if is_signal else (number, 0)
    report = wire.LauncherReport(exit_code, signal, out, err, is_truncated)
    assert wire.decode_report(body_of(wire.encode_report(report))) == report


@given(st.integers(0, 255), st.binary(), st.binary())
def test_a_done_and_a_finish_read_back(code: int, out: bytes, err: bytes) -> None:
    done = wire.LauncherDone(code, out, err)
    assert wire.decode_done(body_of(wire.encode_done(done))) == done
    assert wire.decode_finish(body_of(wire.encode_finish(out, err))) == (out, err)


@given(ABSOLUTE, st.lists(TEXT, max_size=8), st.booleans(), st.booleans())
def test_a_run_reads_back(
    compiler: bytes, rest: list[bytes], filter_headers: bool, is_tentative: bool
) -> None:
    run = wire.LauncherRun((compiler, *rest), filter_headers, is_tentative)
    assert wire.decode_run(body_of(wire.encode_run(run))) == run


@given(st.binary(max_size=400))
def test_any_bytes_are_a_value_or_the_one_error(data: bytes) -> None:
    for decode in DECODERS:
        try:
            decode(data)
        except CallerError as error:
            assert error.reason == "malformed-frame"


@given(REQUESTS, st.data())
def test_a_request_with_one_byte_changed_is_a_value_or_the_one_error(
    request: wire.LauncherRequest, data: st.DataObject
) -> None:
    body = bytearray(body_of(wire.encode_request(request)))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] = data.draw(st.integers(0, 255))
    try:
        found = wire.decode_request(bytes(body))
    except CallerError as error:
        assert error.reason == "malformed-frame"
    else:
        assert len(found.argv) >= 1
