"""Whatever somebody without the maker's key does to an evidence file is refused, or says the same.

The oracle is what the untouched file says, and its files as Python's own reader of zip files finds
them. `HPCC_EVIDENCE_TAMPERINGS` and `HPCC_TAMPERING_SEED` choose how many there are and which.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from hpcc.core import HpccError
from hpcc.evidence.forms.errors import EvidenceDamagedError
from hpcc.evidence.making import ReadSubject, read_subject
from hpcc.evidence.verify import verify_evidence
from hpcc_testkit.evidence.made import (
    MadeEvidence,
    guest_row,
    library,
    made_evidence,
    pinned,
    trail_of,
)
from hpcc_testkit.evidence.tampering import (
    EvidenceTamperer,
    MakerTamperer,
    contents,
    deflated_otherwise,
)

COUNT = int(os.environ.get("HPCC_EVIDENCE_TAMPERINGS", "2000"))
SEED = int(os.environ.get("HPCC_TAMPERING_SEED", "124"))
pytestmark = pytest.mark.timeout(120 + COUNT)
OBJECTS = {f"object-with-a-long-name-{n}.o": b"object %d\n" % n for n in range(6)}


def saved(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


async def prepared(directory: Path) -> tuple[MadeEvidence, MadeEvidence, ReadSubject]:
    rows = [guest_row(n, {name: data}) for n, (name, data) in enumerate(OBJECTS.items())]
    trail = await trail_of(directory / "trail", rows[:-1])
    library_file = saved(directory / "libm.a", library(OBJECTS))
    other = saved(directory / "other.a", library(dict(list(OBJECTS.items())[:3])))
    made = made_evidence(library_file, [trail])
    return made, made_evidence(other, [trail]), read_subject(library_file)


def said(data: bytes, subject: ReadSubject) -> object:
    """Return what the check says of an evidence file."""
    found = verify_evidence(data, subject, pinned())
    return found.evidence, found.coverage, found.signatures, found.workers_pinned


async def test_each_of_2000_tamperings_is_refused_or_says_the_same(tmp_path: Path) -> None:
    made, other, subject = await prepared(tmp_path)
    truth = said(made.data, subject)
    assert contents(made.data) == made.files
    tamperer, verdicts = EvidenceTamperer(made, other, SEED), Counter[str]()
    for number in range(COUNT):
        kind, data = tamperer.next()
        try:
            assert said(data, subject) == truth, (SEED, number, kind)
            # Nothing but the compressed form differs, also for other readers.
            assert contents(data) == made.files, (SEED, number, kind)
            verdicts["same"] += 1
        except HpccError as error:
            assert isinstance(error, EvidenceDamagedError), (SEED, number, kind, error)
            verdicts["refused"] += 1
    sys.stdout.write(f"{COUNT} without a key from seed {SEED}: {dict(verdicts)}\n")
    assert sum(verdicts.values()) == COUNT
    assert verdicts["refused"] > COUNT * 0.9, verdicts


async def test_what_the_maker_changes_and_signs_is_refused_or_says_the_same(
    tmp_path: Path,
) -> None:
    """A maker can sign any summary. Rows, proofs, heads and all that follows are not its word."""
    made, other, subject = await prepared(tmp_path)
    truth = said(made.data, subject)
    tamperer, verdicts = MakerTamperer(made, other, SEED), Counter[str]()
    for number in range(COUNT // 2):
        kind, data = tamperer.next()
        try:
            assert said(data, subject) == truth, (SEED, number, kind)
            assert contents(data) == made.files, (SEED, number, kind)
            verdicts["same"] += 1
        except HpccError as error:
            assert isinstance(error, EvidenceDamagedError), (SEED, number, kind, error)
            verdicts["refused"] += 1
    # With -s: how many there were.
    sys.stdout.write(f"{COUNT // 2} by the maker from seed {SEED}: {dict(verdicts)}\n")
    assert verdicts["refused"] > COUNT // 2 * 0.9, verdicts


async def test_other_compressed_bytes_of_the_same_files_say_the_same(tmp_path: Path) -> None:
    made, _, subject = await prepared(tmp_path)
    again = deflated_otherwise(made, 1)
    assert again != made.data
    assert said(again, subject) == said(made.data, subject)


@pytest.mark.parametrize("bit", range(0, 400, 37))
async def test_a_changed_library_is_refused(tmp_path: Path, bit: int) -> None:
    made, _, _ = await prepared(tmp_path)
    changed = bytearray(library(OBJECTS))
    changed[bit] ^= 1
    path = saved(tmp_path / "changed.a", bytes(changed))
    with pytest.raises(HpccError):
        said(made.data, read_subject(path))
