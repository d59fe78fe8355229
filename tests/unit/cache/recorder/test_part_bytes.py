"""Parts from a disk: what was written comes back, and nothing else is shown."""

from __future__ import annotations

import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.cache.base.times import MAX_PARTS, Phase
from hpcc.cache.recorder.compiles import (
    MAX_AT_US,
    MAX_TEXT,
    MAX_TOOK_US,
    MAX_WORD,
    Compile,
    PhasePart,
    compile_of,
    row_of,
)
from hpcc.cache.recorder.part_bytes import HIT, MAX_FRAME_BYTES, BuildPart, encode_frame
from hpcc.core import IntegrityError
from hpcc_testkit.cache.recorded import compile_at, small_build

WORDS = st.text(max_size=300)
NUMBERS = st.integers(-(1 << 70), 1 << 70)
ANY_COMPILES = st.builds(
    Compile, NUMBERS, NUMBERS, WORDS, st.text(max_size=2000), st.text(max_size=2000), WORDS, WORDS,
    WORDS, WORDS, NUMBERS, NUMBERS, WORDS,
    st.lists(st.builds(PhasePart, st.sampled_from(Phase), NUMBERS, NUMBERS), max_size=40).map(tuple),
)  # fmt: skip


def texts(*compiles: Compile) -> list[str]:
    return [json.dumps(row_of(c)) for c in compiles]


def part_of(*compiles: Compile, build: str = "b") -> bytes:
    return encode_frame([], texts(*compiles), b"", build)


def all_of(data: bytes) -> tuple[list[Compile], bool]:
    part = BuildPart(data)
    found = list(part.compiles())
    return found, part.is_damaged


@given(ANY_COMPILES)
def test_a_row_is_inside_its_limits_whatever_was_noted(compile_: Compile) -> None:
    row = json.loads(json.dumps(row_of(compile_)))
    assert row_of(compile_of(row)) == row


def test_frames_come_back_in_order() -> None:
    compiles = small_build().compiles
    data = part_of(*compiles[:4], build="release-7") + encode_frame([], texts(*compiles[4:]), b"")
    assert BuildPart(data).build == "release-7"
    assert all_of(data) == (list(compiles), False)


def test_a_hit_is_its_unit_at_a_time_also_in_a_later_frame() -> None:
    unit = compile_at(0, 0, "hit.local")._replace(began_us=0)
    data = encode_frame(texts(unit), [], HIT.pack(0, 7, 3), "b") + encode_frame(
        [], [], HIT.pack(0, 9, 1) + HIT.pack(0, 11, 2)
    )
    found, is_damaged = all_of(data)
    assert [(c.began_us, c.took_us) for c in found] == [(7, 3), (9, 1), (11, 2)]
    assert {c.source for c in found} == {unit.source}
    assert not is_damaged


def test_a_torn_end_costs_the_last_frame_and_is_said() -> None:
    whole = part_of(compile_at(0, 1))
    data = whole + encode_frame([], texts(compile_at(1, 1)), b"")
    for end in range(len(whole) + 1, len(data)):
        found, is_damaged = all_of(data[:end])
        assert (len(found), is_damaged) == (1, True)


def test_a_changed_byte_is_noticed_wherever_it_is() -> None:
    whole = part_of(compile_at(0, 1))
    second = encode_frame(texts(compile_at(0, 0)), texts(compile_at(1, 1)), HIT.pack(0, 1, 1))
    for at in range(len(second)):
        changed = bytearray(whole + second)
        changed[len(whole) + at] ^= 0x10
        found, is_damaged = all_of(bytes(changed))
        assert (len(found), is_damaged) == (1, True), at


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_as_a_part(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        BuildPart(data)


@given(st.recursive(st.none() | st.booleans() | st.integers() | WORDS, st.lists, max_leaves=20))
def test_a_row_of_any_json_is_refused(row: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        compile_of(row)


def forged(text: bytes, hits: bytes = b"") -> bytes:
    """Return a frame of these bytes with a right checksum."""
    good = encode_frame([], [], b"", "b")
    magic = good[:4]
    lengths = len(text).to_bytes(4, "little") + len(hits).to_bytes(4, "little")
    check = zlib.crc32(hits, zlib.crc32(text, zlib.crc32(lengths)))
    return magic + lengths + check.to_bytes(4, "little") + text + hits


def row(**changes: object) -> list[object]:
    names = list(Compile._fields)
    values: list[object] = list(row_of(compile_at(0, 5)))
    for name, value in changes.items():
        values[names.index(name)] = value
    return values


@pytest.mark.parametrize(
    "changes",
    [
        {"began_us": -1}, {"began_us": MAX_AT_US + 1}, {"began_us": True}, {"began_us": 1.5},
        {"took_us": MAX_TOOK_US + 1}, {"took_us": "5"}, {"size_bytes": 1 << 60},
        {"source": "x" * (MAX_TEXT + 1)}, {"outcome": "x" * (MAX_WORD + 1)}, {"output": None},
        {"phases": [["classify", 0, 5001]]}, {"phases": [["classify", -1, 1]]},
        {"phases": [["no such phase", 0, 1]]}, {"phases": [["classify", 0]]},
        {"phases": [["classify", 0, 0]] * (MAX_PARTS + 1)}, {"phases": [["classify", True, 1]]},
        {"phases": {}},
    ],
)  # fmt: skip
def test_a_field_outside_its_limit_is_refused(changes: dict[str, object]) -> None:
    assert compile_of(row()) == compile_at(0, 5)
    with pytest.raises(ValueError, match=r"."):
        compile_of(row(**changes))


@pytest.mark.parametrize(
    ("text", "hits"),
    [
        (b"[]", b""),
        (b"{}", b""),
        (b'{"units":[],"compiles":{}}', b""),
        (b'{"units":[],"compiles":[1]}', b""),
        (b'{"units":[],"compiles":[]}', HIT.pack(0, 1, 1)),  # of a unit that nobody defined
        (b'{"units":[],"compiles":[]}', b"\0" * 15),
        (b"[" * 100_000, b""),
        (b'{"units":[],"compiles":[' + b"9" * 5000 + b"]}", b""),
    ],
)
def test_what_a_right_checksum_covers_is_checked_too(text: bytes, hits: bytes) -> None:
    found, is_damaged = all_of(part_of(compile_at(0, 1)) + forged(text, hits))
    assert (len(found), is_damaged) == (1, True)


@pytest.mark.parametrize("head", [b'"format":2,"build":"b"', b'"format":1,"build":""',
                                  b'"format":1,"build":"' + b"b" * 129 + b'"', b'"build":"b"'])  # fmt: skip
def test_a_part_without_a_build_of_this_format_is_none(head: bytes) -> None:
    with pytest.raises(IntegrityError):
        BuildPart(forged(b"{" + head + b',"units":[],"compiles":[]}'))


def test_a_length_is_bounded_before_memory_is_used() -> None:
    huge = part_of(compile_at(0, 1))[:4] + (MAX_FRAME_BYTES + 1).to_bytes(4, "little") + b"\0" * 8
    with pytest.raises(IntegrityError, match="not a frame"):
        BuildPart(huge)
