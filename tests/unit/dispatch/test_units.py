"""The dispatcher's parts: frames, the digest memo, and actions from requests."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.core import (
    CallerError,
    Digest,
    ImageDigest,
    ImageRef,
    Isolation,
    RemoteFailure,
    RemoteInput,
    RemoteOutput,
    RemoteRequest,
    RemoteResult,
    SharedInputs,
)
from hpcc.dispatch.compile import PreparedAction, prepare_action
from hpcc.dispatch.memory.digests import DigestMemo, read_blob
from hpcc.dispatch.remote_frames import (
    LENGTH,
    FrameKind,
    decode_frame,
    encode_outcome,
    encode_request,
    outcome_of,
    request_of,
)

IMAGE = ImageRef("local/gcc", ImageDigest("sha256:" + "ab" * 32))
LATER = 1 << 62
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)

REQUESTS = st.builds(
    RemoteRequest,
    argv=st.lists(TEXT, max_size=4).map(tuple),
    env=st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple),
    cwd=TEXT,
    inputs=st.lists(st.builds(RemoteInput, TEXT, TEXT, st.booleans()), max_size=3).map(tuple),
    outputs=st.lists(TEXT, max_size=3).map(tuple),
    injected=st.lists(TEXT, max_size=2).map(tuple),
    client_version=TEXT,
    packed=st.binary(max_size=20),
    wants_entry=st.booleans(),
)
OUTCOMES = st.one_of(
    st.builds(RemoteFailure, TEXT, TEXT),
    st.builds(
        RemoteResult,
        exit_code=st.integers(0, 255),
        stdout=st.binary(max_size=50),
        stderr=st.binary(max_size=50),
        outputs=st.lists(
            st.builds(RemoteOutput, TEXT, st.binary(max_size=50), st.booleans()), max_size=3
        ).map(tuple),
        is_cached=st.booleans(),
        isolation=st.sampled_from(Isolation),
        action=TEXT,
        basis=TEXT,
        entry=st.binary(max_size=20),
        pack=TEXT,
    ),
)


@given(REQUESTS, st.integers(0, (1 << 64) - 1))
def test_a_request_crosses_the_pair_unchanged(request: RemoteRequest, number: int) -> None:
    raw = encode_request(number, request)
    assert LENGTH.unpack_from(raw)[0] == len(raw) - LENGTH.size
    frame = decode_frame(raw[LENGTH.size :])
    assert (frame.kind, frame.request_id) == (FrameKind.COMPILE, number)
    assert request_of(frame) == request


@given(REQUESTS, st.binary(max_size=40), st.none() | st.binary(max_size=40), st.booleans())
def test_shared_inputs_cross_whole_or_by_name(
    request: RemoteRequest, encoded: bytes, text: bytes | None, with_shared: bool
) -> None:
    shared = SharedInputs(encoded, request.inputs, b"name", text)
    sent = replace(request, shared=shared)
    raw = encode_request(1, sent, with_shared=with_shared)
    got = request_of(decode_frame(raw[LENGTH.size :]))
    assert got == (sent if with_shared else replace(sent, shared=replace(shared, encoded=b"")))


@given(OUTCOMES)
def test_an_outcome_crosses_the_pair_unchanged(outcome: RemoteFailure | RemoteResult) -> None:
    assert outcome_of(decode_frame(encode_outcome(3, outcome)[LENGTH.size :])) == outcome


@given(st.binary(max_size=200))
def test_nonsense_is_one_documented_error(data: bytes) -> None:
    with contextlib.suppress(CallerError):
        outcome_of(decode_frame(data))


def test_what_is_not_utf_8_is_refused_before_it_is_sent() -> None:
    request = RemoteRequest(argv=("gcc", "\udcff"), env=(), cwd="", inputs=(), outputs=())
    with pytest.raises(CallerError) as caught:
        encode_request(1, request)
    assert caught.value.reason == "not-utf-8"


def test_a_file_is_hashed_once_until_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "a.h"
    file.write_bytes(b"one")
    memo = DigestMemo()
    assert memo.digest(str(file), LATER) == Digest.of(b"one")
    stat = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    # Same size and mtime; the ctime still tells.
    assert memo.digest(str(file), LATER) == Digest.of(b"two")


def test_a_file_that_changed_just_now_is_not_remembered(tmp_path: Path) -> None:
    file = tmp_path / "a.h"
    file.write_bytes(b"one")
    memo = DigestMemo()
    memo.digest(str(file), file.stat().st_mtime_ns + 1_000_000)
    assert not memo._entries
    memo.digest(str(file), file.stat().st_mtime_ns + 3_000_000_000)
    assert memo._entries


@pytest.mark.parametrize("kind", ["absent", "directory", "fifo"])
def test_what_is_no_ordinary_file_is_refused_and_never_waited_for(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "x"
    if kind == "directory":
        path.mkdir()
    if kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(CallerError):
        DigestMemo().digest(str(path), LATER)


def test_what_is_sent_is_held_against_the_action(tmp_path: Path) -> None:
    file = tmp_path / "a.h"
    file.write_bytes(b"one")
    assert read_blob(str(file), Digest.of(b"one")).data == b"one"
    for changed in (b"two", b"on", b"one more"):
        file.write_bytes(changed)
        with pytest.raises(CallerError) as caught:
            read_blob(str(file), Digest.of(b"one"))
        assert caught.value.reason == "input-changed"


def prepared(tmp_path: Path, **changes: object) -> PreparedAction:
    values: dict[str, object] = {
        "argv": ("gcc", "-c", "/src/a.c"),
        "env": (("PATH", "/bin"),),
        "cwd": "build",
        "inputs": (RemoteInput("a.c", str(tmp_path / "a.c"), False),),
        "outputs": ("build/a.o", "dep/a.d"),
        **changes,
    }
    return prepare_action(
        RemoteRequest(**values),
        IMAGE,
        lambda path: Digest.of(path.rsplit("/", 1)[1].encode()),
        "1",
    )


def test_an_input_that_is_not_what_was_planned_with_is_refused(tmp_path: Path) -> None:
    planned = Digest.of(b"a.c").hash  # what `prepared` says of every a.c
    same = prepared(tmp_path, inputs=(RemoteInput("a.c", str(tmp_path / "a.c"), False, planned),))
    assert same.digest == prepared(tmp_path).digest
    other = Digest.of(b"as it was when its include lines were read").hash
    with pytest.raises(CallerError) as caught:
        prepared(tmp_path, inputs=(RemoteInput("a.c", str(tmp_path / "a.c"), False, other),))
    assert caught.value.reason == "input-changed"


def test_a_text_that_came_along_stands_for_the_file(tmp_path: Path) -> None:
    def with_text(text: bytes, count: int = 1) -> PreparedAction:
        source = RemoteInput("a.c", str(tmp_path / "a.c"), False, Digest.of(b"a.c").hash)
        shared = SharedInputs(b"", (source,) * count, b"", text)
        return prepared(tmp_path, inputs=(source,) * count, shared=shared)

    made = with_text(b"a.c")
    assert made.digest == prepared(tmp_path).digest
    assert made.content(Digest.of(b"a.c")) == b"a.c"
    assert made.content(Digest.of(b"never heard of")) is None
    assert all(made.content(digest) is not None for digest in made.own)
    assert sorted(made.places.values()) == ["directory:", "directory:/build", "file:a.c"]
    for text, count in ((b"other", 1), (b"a.c", 2)):
        with pytest.raises(CallerError):
            with_text(text, count)


def test_two_checkouts_make_the_same_action(tmp_path: Path) -> None:
    assert prepared(tmp_path / "one").digest == prepared(tmp_path / "elsewhere").digest


def test_outputs_are_mapped_to_the_working_directory_and_back(tmp_path: Path) -> None:
    assert prepared(tmp_path).outputs == {"a.o": "build/a.o", "../dep/a.d": "dep/a.d"}


@pytest.mark.parametrize("output", ["../x", "/etc/passwd", "a/../b", ""])
def test_an_output_outside_the_root_is_refused(tmp_path: Path, output: str) -> None:
    with pytest.raises(CallerError):
        prepared(tmp_path, outputs=(output,))
