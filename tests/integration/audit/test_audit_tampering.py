"""`verify` detects changes to a trail on disk; each test makes one kind of change."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.audit.base.canonical import AuditDamagedError
from hpcc.audit.base.heads import HeadSigner, check_head, head_of_text, head_text
from hpcc.audit.base.segments import segment_path, spool_path
from hpcc.audit.base.spool_limits import SpoolLimits
from hpcc.audit.verify import read_anchors, verify_trail
from hpcc.core import CallerError, IntegrityError
from hpcc.ports import SignedHead
from hpcc_testkit.farm.audit_rows import KEY, SMALL, opened, row, written


def frames(path: Path) -> list[bytes]:
    data, found = path.read_bytes(), []
    while data:
        size = 4 + int.from_bytes(data[1:4], "big") + 1
        found.append(data[:size])
        data = data[size:]
    return found


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("sealed-*.hpcc"))


async def anchored(directory: Path, rows: int = 20) -> list[SignedHead]:
    """Write a trail of several segments; return an anchor after every third row."""
    anchors = []
    async with opened(directory, limits=SMALL) as log:
        for number in range(rows):
            await log.append(row(number))
            if number % 3 == 0:
                anchors.append(log.signed_anchor())
        anchors.append(log.signed_anchor())
    assert len(segments(directory)) > 2
    return anchors


def refused(directory: Path, anchors: list[SignedHead] | None = None) -> str:
    with pytest.raises(AuditDamagedError) as caught:
        verify_trail(directory, anchors or [])
    return str(caught.value)


async def test_a_whole_trail_is_good_with_and_without_anchors(tmp_path: Path) -> None:
    anchors = await anchored(tmp_path)
    verified = verify_trail(tmp_path, anchors)
    assert (verified.count, verified.first, verified.newest_anchor) == (20, 0, 20)
    assert verified.anchors == len(anchors)
    assert verified.keys == (HeadSigner("w1", KEY).public_key.hex(),)
    assert verify_trail(tmp_path).count == 20


@pytest.mark.parametrize("where", ["sealed", "open"])
async def test_a_changed_row_is_found(tmp_path: Path, where: str) -> None:
    await anchored(tmp_path)
    path = segments(tmp_path)[1] if where == "sealed" else spool_path(tmp_path)
    data = path.read_bytes()
    changed = data.replace(b"principal-", b"principal=", 1)
    assert changed != data
    path.write_bytes(changed)
    assert "has a wrong signature: it was changed" in refused(tmp_path)


async def test_a_missing_row_is_found(tmp_path: Path) -> None:
    await anchored(tmp_path)
    path = segments(tmp_path)[1]
    path.write_bytes(b"".join(f for i, f in enumerate(frames(path)) if i != 1))
    assert "the chain is broken" in refused(tmp_path)


async def test_reordered_rows_are_found(tmp_path: Path) -> None:
    await anchored(tmp_path)
    path = segments(tmp_path)[1]
    first, second, *rest = frames(path)
    path.write_bytes(b"".join([second, first, *rest]))
    assert "the chain is broken" in refused(tmp_path)


async def test_a_row_that_was_put_in_is_found(tmp_path: Path) -> None:
    await anchored(tmp_path)
    path = segments(tmp_path)[1]
    every = frames(path)
    path.write_bytes(b"".join([*every[:1], *every]))
    assert "the chain is broken" in refused(tmp_path)


async def test_a_cut_tail_is_found_by_an_anchor_and_not_without_one(tmp_path: Path) -> None:
    anchors = await anchored(tmp_path)
    every = frames(spool_path(tmp_path))
    assert every
    spool_path(tmp_path).write_bytes(b"".join(every[:-1]))
    assert verify_trail(tmp_path).count == 19
    assert "the end is missing" in refused(tmp_path, anchors)


async def test_a_removed_open_segment_is_found_by_an_anchor(tmp_path: Path) -> None:
    anchors = await anchored(tmp_path)
    spool_path(tmp_path).unlink()
    assert "the end is missing" in refused(tmp_path, anchors)


async def test_the_last_segment_cut_off_with_its_seal_is_found_by_an_anchor(tmp_path: Path) -> None:
    anchors = await anchored(tmp_path)
    spool_path(tmp_path).unlink()
    last = segments(tmp_path)[-1]
    last.with_suffix(".seal").unlink()
    last.unlink()
    assert verify_trail(tmp_path).count > 0
    assert "the end is missing" in refused(tmp_path, anchors)


async def test_a_tail_that_was_written_anew_is_found_by_an_anchor(tmp_path: Path) -> None:
    anchors = await anchored(tmp_path)
    every = frames(spool_path(tmp_path))
    spool_path(tmp_path).write_bytes(b"".join(every[:-1]))
    # The worker's own program, with its own key, goes on: a chain of the same length or longer.
    await written(tmp_path, 5, start=100)
    assert verify_trail(tmp_path).count == 24
    assert "was rewritten" in refused(tmp_path, anchors)


async def test_a_removed_segment_is_found(tmp_path: Path) -> None:
    await anchored(tmp_path)
    segments(tmp_path)[1].unlink()
    assert "missing in the middle" in refused(tmp_path)


async def test_removed_segments_at_the_beginning_are_not_taken_for_retention(
    tmp_path: Path,
) -> None:
    await anchored(tmp_path)
    segments(tmp_path)[0].unlink()
    assert "retention did not remove them" in refused(tmp_path)


async def test_a_segment_removed_with_its_seal_is_found(tmp_path: Path) -> None:
    await anchored(tmp_path)
    first = segments(tmp_path)[0]
    first.with_suffix(".seal").unlink()
    first.unlink()
    assert "are missing, and later ones are not" in refused(tmp_path)


async def test_segments_that_changed_places_are_found(tmp_path: Path) -> None:
    await anchored(tmp_path)
    one, two, *_ = segments(tmp_path)
    one.rename(tmp_path / "x")
    two.rename(one)
    (tmp_path / "x").rename(two)
    assert refused(tmp_path)


async def test_a_seal_that_was_made_with_another_key_is_found(tmp_path: Path) -> None:
    anchors = await anchored(tmp_path)
    # Without the key only another one can sign; the whole trail is made anew with it.
    async with opened(tmp_path / "forged", key=Ed25519PrivateKey.generate(), limits=SMALL) as log:
        for number in range(20):
            await log.append(row(number))
    assert verify_trail(tmp_path / "forged").count == 20
    assert "different keys" in refused(tmp_path / "forged", anchors)


async def test_a_seal_whose_bytes_were_changed_is_found(tmp_path: Path) -> None:
    await anchored(tmp_path)
    seal = segments(tmp_path)[0].with_suffix(".seal")
    data = seal.read_bytes()
    for old, new in ((b'"worker":"w1"', b'"worker":"w2"'), (b'"count":', b'"count":1')):
        seal.write_bytes(data.replace(old, new))
        assert "signature is wrong" in refused(tmp_path)
    for junk in (b"", b"[]", b"{}", b"{" * 5000, b"[" * 3000):
        seal.write_bytes(junk)
        assert "the seal at record 0" in refused(tmp_path)


async def test_a_worker_does_not_write_on_where_a_sealed_part_is_missing_or_changed(
    tmp_path: Path,
) -> None:
    await anchored(tmp_path)
    path = segments(tmp_path)[1]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(AuditDamagedError, match="another size"):
        async with opened(tmp_path, limits=SMALL):
            pass


async def test_a_file_in_the_place_of_a_segment_is_not_taken_for_one(tmp_path: Path) -> None:
    await anchored(tmp_path)
    segment_path(tmp_path, 900).write_bytes(b"")
    with pytest.raises(AuditDamagedError, match="without seals"):
        async with opened(tmp_path, limits=SMALL):
            pass


async def test_an_anchor_that_was_changed_or_is_unsigned_is_refused(tmp_path: Path) -> None:
    anchors = await anchored(tmp_path)
    good = anchors[-1]
    check_head(good)
    for bad in (
        dataclasses.replace(good, count=good.count - 1),
        dataclasses.replace(good, head="ab" * 32),
        dataclasses.replace(good, at=good.at + 1),
        dataclasses.replace(good, worker="w2"),
        dataclasses.replace(good, signature=b""),
        dataclasses.replace(good, signature=bytes(64)),
        dataclasses.replace(good, key=b""),
        dataclasses.replace(good, key=bytes(32)),
        dataclasses.replace(good, head="AB" * 32),
        dataclasses.replace(good, head="zz"),
        dataclasses.replace(good, count=1 << 63),
        dataclasses.replace(good, at=float("nan")),
        dataclasses.replace(good, worker=""),
        dataclasses.replace(good, worker="w" * 200),
    ):
        with pytest.raises(IntegrityError):
            verify_trail(tmp_path, [bad])


async def test_anchors_of_two_workers_or_two_histories_are_not_mixed(tmp_path: Path) -> None:
    anchors = await anchored(tmp_path / "one")
    other = HeadSigner("w2", KEY).sign(1, "ab" * 32, 1.0)
    with pytest.raises(CallerError, match="several workers"):
        verify_trail(tmp_path / "one", [*anchors, other])
    contradiction = HeadSigner("w1", KEY).sign(anchors[-1].count, "ab" * 32, 1.0)
    assert "two anchors" in refused(tmp_path / "one", [*anchors, contradiction])


async def test_an_anchor_file_reads_back_and_junk_in_it_is_refused(tmp_path: Path) -> None:
    anchors = await anchored(tmp_path / "trail")
    file = tmp_path / "anchors"
    other = HeadSigner("w2", KEY).sign(1, "ab" * 32, 1.0)
    lines = [head_text(a) for a in [*anchors, other]]
    file.write_bytes(b"\n".join(lines) + b"\n")
    assert read_anchors(file, "w1") == anchors
    with pytest.raises(CallerError, match="no anchor"):
        read_anchors(file, "w3")
    for junk in (b"{}", b"[1]", b"nonsense", lines[0].replace(b'"count"', b'"c"'),
                 lines[0].replace(b'"at":', b'"at":1e999, "at":'), lines[0][:-9] + b'"ff"}',
                 lines[0].replace(b'"key":"', b'"key":"zz'), b"[" * 100_000):  # fmt: skip
        with pytest.raises(AuditDamagedError):
            check_head(head_of_text(junk))
    with pytest.raises(CallerError, match="cannot read"):
        read_anchors(tmp_path / "absent")


async def test_retention_is_no_damage_and_says_what_it_removed(tmp_path: Path) -> None:
    anchors = await anchored(tmp_path)
    keep_a_moment = SpoolLimits(segment_bytes=6000, max_bytes=600_000, keep_seconds=1e-6)
    async with opened(tmp_path, limits=keep_a_moment) as log:
        while await log.retire():
            pass
        anchors.append(log.signed_anchor())
    assert segments(tmp_path) == []
    verified = verify_trail(tmp_path, anchors)
    assert verified.first > 10
    assert verified.count >= 21
    assert verified.older_anchors > 0
    await written(tmp_path, 20, start=50)
    assert verify_trail(tmp_path, anchors).count > 40


@pytest.mark.parametrize("name", ["segment", "seal", "spool"])
@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
async def test_what_is_no_file_in_place_of_a_trails_file_is_damage_and_no_hang(
    name: str, kind: str, tmp_path: Path
) -> None:
    await anchored(tmp_path)
    first = segments(tmp_path)[0]
    place = {"segment": first, "seal": first.with_suffix(".seal"), "spool": spool_path(tmp_path)}
    place[name].unlink()
    if kind == "pipe":
        os.mkfifo(place[name])
    elif kind == "device":
        place[name].symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as bound, contextlib.chdir(tmp_path):
            bound.bind(place[name].name)
    with pytest.raises((AuditDamagedError, OSError)) as caught:
        verify_trail(tmp_path)
    assert kind == "socket" or "is not a regular file" in str(caught.value)
