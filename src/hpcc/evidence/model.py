"""Values of evidence: what a file consists of, which row proves each part, and the policy.

Problem: a person wants one answer, and some parts of a binary have no proof.

Rule: a part is of a guest only if a worker's signed row of an execution has its digest among its
outputs, in an isolation that the policy accepts. Everything else keeps its name: it is not counted
as something better, and with one part that is not known the answer is no.

Example: 185 of 187 members of a library are outputs of rows, one was served by a worker from
another worker's execution, whose row is not here, and one has no row. The answer is no, and both
are named.

What must never happen: a part counts as of a guest because somebody says so.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hpcc.audit.base.canonical import Record
from hpcc.core import CallerError
from hpcc.core.names import Isolation

DIGEST: Final = re.compile(r"[0-9a-f]{64}")
MAX_INPUTS: Final = 131_072
MAX_ROWS: Final = 32_768
# A row has at most 64 KiB of command and 64 KiB of names, which JSON may write six times as long.
MAX_ROW_BYTES: Final = 1 << 20
# Rows of a compile that ran in a guest and gave a result.
_EXECUTIONS: Final = ("executed", "verify")
# Rows of a result that a worker gave away without making it again.
SERVED: Final = ("hit", "joined", "pack")
_KERNEL: Final = 3
_BITCODE: Final = frozenset(("-emit-llvm", "-emit-llvm-bc"))


class PartSource(StrEnum):
    """Where a part of a file came from, as far as it is proved."""

    GUEST = "guest"
    # A worker gave it away, and the row of the execution is not here or not accepted.
    SERVED = "served"
    # A guest gave it, and the link went on to compile it: link-time optimisation.
    LTO = "lto"
    # A package of the machine that linked, as that machine says.
    HOST = "host"
    UNKNOWN = "unknown"


class Grade(StrEnum):
    """What proves which parts a file has."""

    # An archive: its members are in it.
    MEMBERS = "members"
    # The file is one part: an object.
    WHOLE = "whole"
    # A link that one machine's daemon recorded.
    CLAIMED = "claimed"


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file that went into another one.

    `digest` is its SHA-256 in hex; empty if it is not known, and `note` is the reason. `package` is
    the package URL of the file of a package. `note` may also say what an unknown part is.
    """

    name: str
    digest: str
    package: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """How a file was made of its parts, and how well that is known.

    `left_out` counts parts that the record does not have. `facts` are texts of a recorded link:
    command, directory, compiler, build, times.
    """

    name: str
    digest: str
    grade: Grade
    parts: tuple[FilePart, ...]
    left_out: int = 0
    facts: Mapping[str, str] | None = None
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProvedRow:
    """A row of worker `record.worker`, and the proof that it is a leaf of that worker's tree."""

    record: Record
    index: int
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class WorkerTree:
    """The head of a worker's tree as a signed checkpoint, and the raw key of the worker's rows."""

    worker: str
    key: bytes
    checkpoint: bytes


@dataclass(frozen=True, slots=True)
class EvidencePolicy:
    """Which isolations count as a guest. The default is every one with a separate kernel."""

    isolations: tuple[str, ...] = tuple(sorted(i.value for i in Isolation if i.rank == _KERNEL))


def policy_of(isolations: Iterable[str]) -> EvidencePolicy:
    """Return the policy that accepts these labels; without any the default.

    Raises:
        CallerError: a label is none of hpcc's, or stands for no isolation at all.
    """
    given = tuple(sorted(set(isolations)))
    for label in given:
        if label not in {i.value for i in Isolation if i.rank}:
            known = ", ".join(i.value for i in Isolation if i.rank)
            raise CallerError(f"--isolation {label[:80]!r}: must be one of {known}")
    return EvidencePolicy(given) if given else EvidencePolicy()


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many parts of a file came from where.

    `guests` counts by isolation and reuse. `unproved` are the parts that are neither of a guest nor
    of a package, at most `MAX_INPUTS`, each with its source.
    """

    counts: Mapping[PartSource, int]
    guests: Mapping[str, int]
    unproved: tuple[tuple[FilePart, PartSource], ...]
    left_out: int

    @property
    def total(self) -> int:
        """Return the number of parts, also those that the record does not have."""
        return sum(self.counts.values()) + self.left_out

    @property
    def is_proved(self) -> bool:
        """Return whether at least one part is of a guest, and all others of packages."""
        return bool(self.counts[PartSource.GUEST]) and not self.unproved and not self.left_out


def coverage_of(making: Making, rows: Iterable[ProvedRow], policy: EvidencePolicy) -> Coverage:
    """Count the parts of a file by what rows prove of them."""
    index = RowIndex((row.record for row in rows), policy)
    counts: Counter[PartSource] = Counter()
    guests: Counter[str] = Counter()
    unproved = []
    for part in making.parts:
        source, record = index.source_of(part, making.grade)
        counts[source] += 1
        if source is PartSource.GUEST and record is not None:
            guests[f"{record.body['isolation']}, reuse {record.body['reuse']}"] += 1
        elif source is not PartSource.HOST:
            unproved.append((part, source))
    return Coverage(counts, dict(sorted(guests.items())), tuple(unproved), making.left_out)


class RowIndex:
    """Rows by the digests of their outputs: for each digest the one that proves most."""

    def __init__(self, records: Iterable[Record], policy: EvidencePolicy) -> None:
        self._policy = policy
        self._best: dict[str, Record] = {}
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Add a row; one that proves no more than an earlier one changes nothing."""
        score = self.score(record)
        for digest in released(record) if score else ():
            known = self._best.get(digest)
            if known is None or self.score(known) < score:
                self._best[digest] = record

    def score(self, record: Record) -> int:
        """Return how much a row proves: 0 nothing, 1 that a worker had its outputs, above: more."""
        body = record.body
        status, isolation = body.get("cache_status"), str(body.get("isolation"))
        if record.kind != "row" or body.get("exit_code") != 0:
            return 0
        if status in SERVED:
            return 1
        is_own = body.get("worker") == record.worker
        if status not in _EXECUTIONS or not body.get("guest_id") or not is_own:
            return 0
        if isolation not in self._policy.isolations:
            return 2
        # A guest of one compile proves more than one that others used before.
        return 3 + (body.get("reuse") == "exec") + 2 * (status == "executed")

    def row_of(self, digest: str) -> Record | None:
        """Return the row that proves most of the object with this digest, None without one."""
        return self._best.get(digest)

    def source_of(self, part: FilePart, grade: Grade) -> tuple[PartSource, Record | None]:
        """Return where a part of a file came from, and the row that says so."""
        record = self._best.get(part.digest) if part.digest else None
        if record is not None:
            if self.score(record) <= 2:  # noqa: PLR2004 - see `score`
                return PartSource.SERVED, record
            is_compiled_again = grade is Grade.CLAIMED and _is_for_lto(record)
            return PartSource.LTO if is_compiled_again else PartSource.GUEST, record
        return (PartSource.HOST if part.package and part.digest else PartSource.UNKNOWN), None


def _is_for_lto(record: Record) -> bool:
    """Return whether a command gave what a link compiles, alone or beside machine code."""
    argv = record.body.get("argv")
    words = [w for w in argv if isinstance(w, str)] if isinstance(argv, list | tuple) else []
    switches = [w for w in words if w in {"-flto", "-fno-lto"} or w.startswith("-flto=")]
    return not _BITCODE.isdisjoint(words) or switches[-1:] not in ([], ["-fno-lto"])


def released(record: Record) -> list[str]:
    """Return the SHA-256 of each output of a row, in hex."""
    outputs = record.body.get("outputs")
    found = []
    for pair in outputs if isinstance(outputs, list | tuple) else ():
        if isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[1], str):  # noqa: PLR2004 - path and digest
            digest = pair[1].partition("/")[0]
            if DIGEST.fullmatch(digest):
                found.append(digest)
    return found


def clean(text: str) -> str:
    """Return a text without halves of surrogate pairs, which other readers of JSON refuse."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
