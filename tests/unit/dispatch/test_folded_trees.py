"""Trees for guests that ignore case: one digest for two spellings, never one for two files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.core import (
    CallerError,
    Digest,
    ImageDigest,
    ImageRef,
    InputFile,
    RemoteInput,
    RemoteRequest,
    WindowsPathError,
    folded_inputs,
)
from hpcc.dispatch.packs import InputPacks
from hpcc.dispatch.prepared_action import PreparedAction, prepare_action
from hpcc.dispatch.remote_frames import decode_frame, encode_inputs, encode_request, request_of

NAMES = st.text("aAbBéÉßKk\u212a/.", min_size=1, max_size=8)
IMAGE = ImageRef("test/cl", ImageDigest("sha256:" + "ab" * 32))


def prepared(
    *paths: str, folds: bool = True, cwd: str = "", output: str = "x.obj"
) -> PreparedAction:
    """Prepare a compile of files whose content is their folded name."""
    inputs = tuple(RemoteInput(p, p, is_executable=False) for p in paths)
    request = RemoteRequest(
        argv=("cl", "-c", "x.c"),
        env=(),
        cwd=cwd,
        inputs=inputs,
        outputs=(output,),
        folds_case=folds,
    )
    return prepare_action(request, IMAGE, lambda path: Digest.of(path.encode().lower()), "t")


def test_two_checkouts_that_differ_in_case_are_one_action() -> None:
    one = prepared("Src/A.cpp", "Inc/Util.H", cwd="Src", output="Src/Out/A.obj")
    other = prepared("src/a.cpp", "INC/util.h", cwd="src", output="src/out/a.obj")
    assert one.digest == other.digest
    assert one.outputs == {"out/a.obj": "Src/Out/A.obj"}
    assert prepared("A.c", folds=False).digest != prepared("a.c", folds=False).digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("É.h", "é.h"),
        ("\u212a.h", "k.h"),
        ("ß.h", "ss.h"),
        ("\u017f.h", "s.h"),
        ("é.h", "e\u0301.h"),
    ],
)
def test_two_files_that_ntfs_may_keep_apart_are_two(one: str, other: str) -> None:
    assert prepared(one).digest != prepared(other).digest
    assert len(prepared(one, other).files) == 2


def test_one_file_in_two_spellings_is_one_and_two_are_refused() -> None:
    same, changed = Digest.of(b"a"), Digest.of(b"b")
    files = (InputFile("A.h", same), InputFile("a.h", same))
    assert folded_inputs(files) == (InputFile("a.h", same),)
    with pytest.raises(WindowsPathError) as caught:
        folded_inputs((InputFile("A.h", same), InputFile("a.h", changed)))
    assert caught.value.reason == "case-conflict"
    with pytest.raises(WindowsPathError):
        folded_inputs((InputFile("a.h", same), InputFile("a.h", changed)))


@pytest.mark.parametrize("name", ["aux.h", "a.h.", "a:b", "a\\b.h", "x" * 256])
def test_a_name_that_windows_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(WindowsPathError):
        folded_inputs((InputFile(name, Digest.of(b"")),))


def test_shared_inputs_are_folded_too_and_the_request_says_so_on_its_way() -> None:
    encoded = encode_inputs([(RemoteInput("Inc/H.h", "h", False, "ab" * 32), 3)])
    packs = InputPacks()
    folded, plain = packs.of(encoded, folds_case=True), packs.of(encoded)
    assert folded is packs.of(encoded, folds_case=True)
    assert folded.base.with_files(()).root != plain.base.with_files(()).root
    small = InputPacks().of(
        encode_inputs([(RemoteInput("inc/h.h", "h", False, "ab" * 32), 3)]), folds_case=True
    )
    assert small.base.with_files(()).root == folded.base.with_files(()).root
    request = RemoteRequest(
        argv=("cl",), env=(), cwd="", inputs=(), outputs=("x.obj",), folds_case=True
    )
    assert request_of(decode_frame(encode_request(1, request)[4:])) == request


@given(
    st.text("aAbBéÉßKk\u212a/.", min_size=1, max_size=8),
    st.text("aAbBéÉßKk\u212a/.", min_size=1, max_size=8),
)
def test_two_names_meet_only_if_they_differ_in_ascii_case_alone(one: str, other: str) -> None:
    try:
        a, b = prepared(one), prepared(other)
    except CallerError:
        return  # no name at all
    is_one = one.encode().lower() == other.encode().lower()  # bytes.lower() folds only ASCII
    assert (a.digest == b.digest) == is_one
