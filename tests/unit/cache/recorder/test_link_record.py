"""Recorded links: what was written comes back, inside its limits, and nothing else is shown."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.cache.recorder.link_record import (
    MAX_INPUTS,
    LinkFile,
    LinkRecord,
    NoDigest,
    digest_of_inputs,
    link_of,
    link_row_of,
)
from hpcc.cache.recorder.part_bytes import MAX_FRAME_BYTES, BuildPart, encode_frame
from hpcc.cache.recorder.places import LINKS_NAME, Limits
from hpcc.cache.recorder.reading import recorded_links
from hpcc.cache.recorder.recorder import Recorder
from hpcc.core import IntegrityError

DIGEST = "ab" * 32
PATHS = st.text(min_size=1, max_size=5000)


def record(
    *inputs: LinkFile, output: str = DIGEST, command: tuple[str, ...] = ("cc",)
) -> LinkRecord:
    return LinkRecord(
        1_000, 20, LinkFile("/t/app", output), 77, "/t", "/usr/bin/cc", DIGEST, command, DIGEST,
        inputs, digest_of_inputs(inputs),
    )  # fmt: skip


@given(st.lists(PATHS, max_size=20), st.lists(st.text(max_size=9000), max_size=20))
def test_a_row_is_inside_its_limits_whatever_was_linked(paths: list[str], words: list[str]) -> None:
    made = record(*(LinkFile(path, DIGEST) for path in paths), command=tuple(words))
    row = json.loads(json.dumps(link_row_of(made)))
    found = link_of(row)
    assert link_row_of(found) == row
    assert len(found.inputs) + found.left_out == len(paths)
    assert found.is_complete == (not found.left_out)


def test_so_many_inputs_that_no_frame_holds_them_are_counted() -> None:
    inputs = [LinkFile("/" + "\N{SNOWMAN}" * 2000 + str(n), DIGEST) for n in range(MAX_INPUTS + 9)]
    row = link_row_of(record(*inputs, command=("\N{SNOWMAN}" * 9000,) * 9000))
    assert len(json.dumps(row)) < MAX_FRAME_BYTES // 2
    found = link_of(row)
    assert len(found.inputs) + found.left_out == len(inputs)
    assert not found.is_complete
    assert found.inputs_digest == digest_of_inputs(inputs)


def test_a_file_without_a_digest_makes_the_record_incomplete() -> None:
    assert record(LinkFile("/a.o", DIGEST)).is_complete
    assert not record(LinkFile("/a.o", NoDigest.GONE)).is_complete
    assert not record(output=NoDigest.CHANGED).is_complete


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, -1), (0, True), (1, 1 << 60), (2, []), (2, ["/a", "nonsense"]), (2, ["", DIGEST]),
        (3, "7"), (4, "x" * 5000), (6, "AB"), (7, [1]), (7, ["x"] * 5000), (8, ""),
        (9, [["/a", DIGEST + "0"]]), (9, [["/a", "gone"]] * (MAX_INPUTS + 1)), (10, None),
        (11, -1),
    ],
)  # fmt: skip
def test_a_field_outside_its_limit_makes_the_frame_damaged(at: int, value: object) -> None:
    row = link_row_of(record(LinkFile("/a.o", DIGEST)))
    good = encode_frame([], [], b"", "b", [json.dumps(row)])
    row[at] = value
    with pytest.raises(ValueError, match=r"."):
        link_of(row)
    part = BuildPart(good + encode_frame([], [], b"", links=[json.dumps(row)]))
    assert list(part.compiles()) == []
    assert (len(part.links), part.is_damaged) == (1, True)
    with pytest.raises(IntegrityError):
        BuildPart(encode_frame([], [], b"", "b", [json.dumps(row)]))


def test_links_come_back_by_build_and_stay_within_their_bytes(tmp_path: Path) -> None:
    limits = Limits(builds=4, total_bytes=60_000, part_bytes=10_000, parts=8)
    clock = iter(range(1000, 100_000))
    recorder = Recorder(os.fspath(tmp_path / LINKS_NAME), lambda: next(clock), limits)
    for number in range(40):
        many = (LinkFile(f"/{number}/{n}.o", DIGEST) for n in range(40))
        recorder.add_link(f"b{number % 2}", record(*many)._replace(began_us=number))
        recorder.flush()
    found = recorded_links(os.fspath(tmp_path))
    assert not found.is_damaged
    began = [link.record.began_us for link in found.links]
    assert began == sorted(began)
    assert began[-1] == 39
    assert 0 < len(began) < 40
    assert {link.build for link in found.links} == {"b0", "b1"}
    assert all(link.build == "b1" for link in recorded_links(os.fspath(tmp_path), "b1").links)
    used = sum(file.stat().st_size for file in (tmp_path / LINKS_NAME).iterdir())
    assert used <= limits.total_bytes + limits.part_bytes
