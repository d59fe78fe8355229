"""What `hpcc verify-evidence` and `hpcc attest` read from anybody: evidence files and libraries."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO

from hpcc.core import CallerError
from hpcc.evidence.archive import MAX_MEMBERS, read_members
from hpcc.evidence.bundle import VSA
from hpcc.evidence.forms.container import MAX_TOTAL_BYTES, pack_files, unpack_files
from hpcc.evidence.forms.dsse import envelope_text, read_envelope, seal_statement
from hpcc.evidence.forms.errors import EvidenceDamagedError
from hpcc.evidence.keys import keys_text, parse_pinned, pem_of
from hpcc.evidence.making import ReadSubject
from hpcc.evidence.verify import verify_evidence
from hpcc_testkit.evidence.made import MAKER, library, pinned, raw

_SUBJECT = ReadSubject("a", "0" * 64, None)


def evidence_file(data: bytes) -> None:
    """A zip file: what is read comes back, and nothing else than the documented error is raised."""
    with suppress(EvidenceDamagedError):
        files = unpack_files(data)
        assert sum(map(len, files.values())) <= MAX_TOTAL_BYTES
        assert unpack_files(pack_files(files)) == files
    with suppress(EvidenceDamagedError):
        verify_evidence(data, _SUBJECT, pinned())
        raise AssertionError("no maker signed this")
    with suppress(EvidenceDamagedError):
        assert envelope_text(read_envelope(data, "an envelope")) == data
    with suppress(CallerError):
        parse_pinned(data, "keys")


def evidence_file_seeds() -> Mapping[str, bytes]:
    """Return a file of two, an envelope and a line of keys."""
    statement = seal_statement(b"{}", "0" * 32, MAKER.sign)
    return {
        "files": pack_files({"a": b"one", VSA: statement}), "envelope": statement,
        "keys": keys_text(raw(MAKER), {"w1": raw(MAKER)}), "pem": pem_of(raw(MAKER)),
    }  # fmt: skip


def library_members(data: bytes) -> None:
    """A static library: a bounded number of members, or the documented error."""
    with suppress(CallerError):
        assert sum(1 for _ in read_members(BytesIO(data), "a.a")) <= MAX_MEMBERS


def library_members_seeds() -> Mapping[str, bytes]:
    """Return libraries with long, short and BSD's names."""
    head = b"%-16b%-32b%-10d`\n"
    short = b"!<arch>\n" + head % (b"a.o/", b"0", 2) + b"aa" + head % (b"/", b"0", 4) + b"tabl"
    bsd = b"!<arch>\n" + head % (b"#1/6", b"0", 8) + b"bsd.o\0bb"
    return {"long": library({"a-very-long-name.o": b"1", "b.o": b"22"}), "short": short, "bsd": bsd}
