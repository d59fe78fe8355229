"""Who writes the disk of a running worker puts other segments there, and takes them away again."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.audit.base.frames import read_frames
from hpcc.audit.base.heads import HeadSigner
from hpcc.audit.base.index_statement import index_path, statement_path
from hpcc.audit.base.query import Query
from hpcc.audit.base.segments import (
    Seal,
    seal_path,
    seals,
    segment_path,
    spool_path,
    write_seal,
)
from hpcc.audit.base.spool_limits import SpoolLimits
from hpcc.audit.lookup.reader import TrailReader
from hpcc.cli.main import main
from hpcc.files.whole import no_fault
from hpcc_testkit.farm.audit_rows import SMALL, opened, row, written


async def _forged(directory: Path, first: Seal) -> None:
    """Write a trail of another key with another second row, and as many records in its segment."""
    async with opened(directory, limits=SpoolLimits(segment_bytes=1 << 20)) as log:
        for number in range(first.end):
            await log.append(row(number, tenant="acme" if number == 1 else "globex"))
        await log.seal()
        head = log.anchor[1]
        await log.append(row(first.end))
    # It is renamed and not yet sealed, so that no key of a seal contradicts.
    (directory / "spool.hpcc").rename(segment_path(directory, first.end))
    size = segment_path(directory, 0).stat().st_size
    signed = HeadSigner("w1", Ed25519PrivateKey.generate()).sign(first.end, head, 1.0)
    write_seal(
        directory,
        Seal(first=0, previous=first.previous, size_bytes=size, signed=signed),
        no_fault,
    )


async def test_the_worker_signs_no_index_of_a_segment_that_lay_there_for_a_moment(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trail, forged = tmp_path / "trail", tmp_path / "forged"
    await written(trail, 20)
    first, second = list(seals(trail))[:2]
    await _forged(forged, first)
    names = [make(trail, s.first) for make in (segment_path, seal_path) for s in (first, second)]
    before = {path: path.read_bytes() for path in names}
    async with opened(trail, limits=SMALL) as log:
        index_path(trail, 0).unlink()
        for path in names:
            path.unlink()
            if (forged / path.name).exists():
                path.write_bytes((forged / path.name).read_bytes())
        await log.index_old()
        for path, data in before.items():
            path.write_bytes(data)
    assert "the segment is not the one that was sealed" in caplog.text
    assert not statement_path(trail, 0).exists()
    found = list(TrailReader(trail).find(Query(tenant="tenant-1")))
    assert [record.sequence for record in found] == [1]


@pytest.mark.parametrize("has_open", [True, False])
async def test_a_sealed_segment_that_became_the_open_one_is_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], has_open: bool
) -> None:
    """Without its seal and its end it looks like the newest part, but later segments exist."""
    await written(tmp_path, 20)
    cut = list(seals(tmp_path))[1]
    data = segment_path(tmp_path, cut.first).read_bytes()
    end = next(iter(read_frames(io.BytesIO(data)))).after
    for make in (seal_path, segment_path, index_path):
        make(tmp_path, cut.first).unlink()
    spool_path(tmp_path).unlink()
    if has_open:
        spool_path(tmp_path).write_bytes(data[:end])
    else:
        for path in tmp_path.glob("*.hpcc"):  # noqa: ASYNC240 - a test
            if path != segment_path(tmp_path, 0):
                path.unlink()  # only a later seal stays
    for command in ("list", "export", "verify"):
        assert main(["audit", command, "--directory", str(tmp_path)]) == 1
        assert "are missing" in capsys.readouterr().err
