"""Blocks of packed segments give the frames that they were made of, and refuse hostile bytes."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import replace

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcc.audit.base.canonical import GENESIS, AuditDamagedError, Record, encode_record
from hpcc.audit.base.columns import (
    HEADER,
    MAX_COLUMNS_BYTES,
    PackedBlock,
    pack_block,
    read_header,
)
from hpcc.audit.base.frames import frame_of
from hpcc.ports import AuditRow, SecurityEvent
from hpcc_testkit.farm.audit_rows import refusal, row
from hpcc_testkit.suite.examples import examples

FRAMES, UNSIGNED, SIGNED = 1, 2, 3


def chained(contents: list[AuditRow | SecurityEvent], *, first: int = 0) -> list[Record]:
    """Return signed records of these contents; the signatures are any bytes."""
    records: list[Record] = []
    head, bytes_of = GENESIS, random.Random(5)
    for number, content in enumerate(contents, first):
        record = encode_record(content, sequence=number, previous=head, worker="w1")
        head = record.hash
        records.append(replace(record, signature=bytes_of.randbytes(64)))
    return records


def build(count: int) -> list[AuditRow | SecurityEvent]:
    """Return rows of a build with their own digests, and an event."""
    found: list[AuditRow | SecurityEvent] = []
    for number in range(count):
        argv = ("gcc", "-c", f"src/unit_{number}.c", "-o", f"src/unit_{number}.o")
        text = json.dumps(argv, separators=(",", ":"))
        found.append(
            row(
                argv=argv + (("-g", "a,b") if number % 7 == 0 else ()),
                argv_digest=f"sha256:{hashlib.sha256(text.encode()).hexdigest()}",
                row_id=hashlib.md5(b"%d" % number).hexdigest(),
                action_digest=f"{hashlib.sha256(b'%d' % number).hexdigest()}/150",
                outputs=(
                    (f"src/unit_{number}.o", f"{hashlib.sha256(argv[2].encode()).hexdigest()}/9"),
                ),
            )
        )
    return [*found, refusal(3)]


def opened(block: bytes) -> PackedBlock:
    return PackedBlock(read_header(block[: HEADER.size]), block[HEADER.size :])


def test_a_block_gives_the_frames_of_a_build_at_a_sixth_of_their_size() -> None:
    records = chained(build(200), first=41)
    block = pack_block(records)
    frames = b"".join(map(frame_of, records))
    assert block[0] == SIGNED
    assert opened(block).frames() == frames
    assert len(block) < len(frames) // 6


@pytest.mark.parametrize("number", [0, 1, 31, 32, 33, 150, 200])
def test_one_record_is_read_without_those_before_it(number: int) -> None:
    records = chained(build(200), first=41)
    assert list(opened(pack_block(records)).records(number, number + 1)) == [
        (records[number].data, records[number].signature)
    ]


def test_records_without_signatures_and_of_one_kind_each_are_packed() -> None:
    unsigned = [replace(r, signature=b"") for r in chained(build(20))]
    block = pack_block(unsigned)
    assert block[0] == UNSIGNED
    assert opened(block).frames() == b"".join(map(frame_of, unsigned))
    mixed = [*unsigned[:10], *chained(build(20))[10:]]
    block = pack_block(mixed)
    assert block[0] == FRAMES
    assert opened(block).frames() == b"".join(map(frame_of, mixed))


def test_records_that_are_not_a_chain_are_given_back() -> None:
    records = chained(build(20))
    for number in (1, 7):
        other = encode_record(row(9), sequence=number, previous="ab" * 32, worker="w1")
        records[number] = replace(other, signature=bytes(64))
    block = pack_block(records)
    assert block[0] == FRAMES
    assert opened(block).frames() == b"".join(map(frame_of, records))


@settings(max_examples=examples(80), deadline=None)
@given(st.lists(st.binary(max_size=120), min_size=1, max_size=40), st.booleans())
def test_any_bytes_are_given_back(contents: list[bytes], is_signed: bool) -> None:
    signature = b"s" * 64 if is_signed else b""
    records = [
        Record("row", number, GENESIS, "w1", {}, data, "", signature)
        for number, data in enumerate(contents)
    ]
    assert opened(pack_block(records)).frames() == b"".join(map(frame_of, records))


@settings(max_examples=examples(80), deadline=None)
@given(st.lists(st.text(alphabet='{}[]:,"\\0af\1\2\3\4\6\n', max_size=80), min_size=1, max_size=30))
def test_a_command_with_marks_of_the_format_is_given_back(arguments: list[str]) -> None:
    records = chained([row(n, argv=(*arguments, str(n)), reason=arguments[0]) for n in range(4)])
    assert opened(pack_block(records)).frames() == b"".join(map(frame_of, records))


def test_a_changed_byte_is_refused_or_changes_what_is_read() -> None:
    records = chained(build(60))
    block, frames = pack_block(records), b"".join(map(frame_of, records))
    changed = random.Random(3)
    for _ in range(400):
        at = changed.randrange(len(block))
        other = block[:at] + bytes([block[at] ^ 1 << changed.randrange(8)]) + block[at + 1 :]
        try:
            found = opened(other).frames()
        except AuditDamagedError:
            continue
        # The number of the first record is compared by the reader of the segment.
        assert found != frames or at < HEADER.size or opened(other).frames() == frames
    for size in range(0, len(block), 97):
        with pytest.raises(AuditDamagedError):
            opened(block[:size])


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    packed = zstandard.ZstdCompressor().compress(b"0" * (64 << 20))
    small = HEADER.pack(SIGNED, 1, 0, 100, 100, len(packed), 0)
    with pytest.raises(AuditDamagedError, match="announces another size"):
        PackedBlock(read_header(small), packed + bytes(32 + 64))
    large = HEADER.pack(SIGNED, 1, 0, 100, 64 << 20, len(packed), 0)
    with pytest.raises(AuditDamagedError, match="impossible sizes"):
        read_header(large)
    # No size in the frame of zstd, which could then have any.
    writer = zstandard.ZstdCompressor(write_content_size=False)
    packed = writer.compress(b"0" * 100)
    with pytest.raises(AuditDamagedError):
        PackedBlock(read_header(HEADER.pack(FRAMES, 1, 0, 100, 100, len(packed), 0)), packed)


def test_rows_of_very_many_arguments_are_packed_and_a_block_of_as_many_gaps_is_refused() -> None:
    many = [tuple(f"-DX{n}={number}" for n in range(9000)) for number in (1, 2)]
    records = chained([row(argv=argv) for argv in many])
    block = pack_block(records)
    assert block[0] == FRAMES
    assert opened(block).frames() == b"".join(map(frame_of, records))
    text = b"\0".join([b"0", b"\6" * 9000, b"\0" * 8999])
    packed = zstandard.ZstdCompressor().compress(text)
    header = HEADER.pack(UNSIGNED, 1, 0, 100, len(text), len(packed), 0)
    with pytest.raises(AuditDamagedError, match="columns"):
        PackedBlock(read_header(header), packed + bytes(32))


def test_a_template_that_every_row_repeats_stays_in_the_announced_size() -> None:
    text = b"\0".join([b"0" * 1024, b"x" * 1_000_000, b""])
    packed = zstandard.ZstdCompressor().compress(text)
    header = HEADER.pack(UNSIGNED, 1024, 0, MAX_COLUMNS_BYTES, len(text), len(packed), 0)
    block = PackedBlock(read_header(header), packed + bytes(32 * 32))
    with pytest.raises(AuditDamagedError, match="more bytes than it announces"):
        block.frames()
