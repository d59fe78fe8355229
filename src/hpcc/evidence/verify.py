"""`verify-evidence`: checks an evidence file against a file and pinned keys, without any network.

Problem: the evidence comes from anybody, and its reader has nothing else than a key.

What is checked, in this order:

- The zip file has the one form that hpcc writes; all sizes are limited before anything is unpacked.
- The summary is signed by a pinned key of a maker, and names every other file by digest. Before
  that nothing is parsed but the zip file's headers and one envelope.
- The file in question has the digest that evidence is about. An archive is read again: the parts
  must be its members.
- Each record is in canonical form, has the fields of a row and its worker's signature.
- Each proof leads from its record to the root in the worker's checkpoint, which the worker signed,
  or the maker (`makers_heads`).
- Each statement is the one that follows from its record, and has the maker's signature.
- All other files, and the summary with its verdict, follow from these byte for byte.

What it rests on: workers' keys are pinned, or the maker names them (`workers_pinned`). The parts of
a linked file are what one machine's daemon recorded, which the maker repeats. The time is the
maker's. That a row is true is the worker's word.

What must never happen: a file is read that this check did not compare, or a verdict is printed that
was not made here from what was checked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from hpcc.audit.base.canonical import (
    AuditDamagedError,
    Record,
    check_canonical,
    decode_record,
    row_of,
)
from hpcc.audit.base.heads import KEY_BYTES
from hpcc.core import CallerError
from hpcc.evidence import bundle
from hpcc.evidence.bundle import EvidenceContent
from hpcc.evidence.forms.container import unpack_files
from hpcc.evidence.forms.dsse import IN_TOTO, Envelope, check_envelope, read_envelope
from hpcc.evidence.forms.errors import EvidenceDamagedError
from hpcc.evidence.keys import PinnedKeys, key_id_of, parse_pinned, worker_word
from hpcc.evidence.making import ReadSubject
from hpcc.evidence.model import (
    MAX_ROW_BYTES,
    MAX_ROWS,
    Coverage,
    EvidencePolicy,
    FilePart,
    Grade,
    Making,
    ProvedRow,
    RowIndex,
    WorkerTree,
)
from hpcc.evidence.proof import check_inclusion, is_of_maker, open_head, read_proof
from hpcc.evidence.reading import ReadSummary, read_making, read_summary

_FIXED: Final = frozenset(
    {
        bundle.LINK, bundle.OBJECTS, bundle.VSA, bundle.RECORDS, bundle.PROOFS, bundle.README,
        bundle.KEYS, bundle.MAKER_PEM, bundle.SBOM,
    }
)  # fmt: skip
_MAX_LINE: Final = 2 * MAX_ROW_BYTES + 4096
# It is parsed before any signature is checked. 256 names with digests are 0.1 MiB of it.
_MAX_SUMMARY: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedEvidence:
    """What a checked evidence file says. `coverage` is by the reader's policy.

    `signatures` were good, those of workers and those of the maker. `workers_pinned`: the reader
    pinned the workers' keys; else they are what the maker says. `makers_heads` are the workers
    whose tree has a head of the maker's, and none that the worker signed.
    """

    evidence: EvidenceContent
    coverage: Coverage
    signatures: int
    workers_pinned: bool
    makers_heads: tuple[str, ...]


def verify_evidence(
    data: bytes,
    subject: ReadSubject,
    pinned: PinnedKeys,
    policy: EvidencePolicy | None = None,
) -> VerifiedEvidence:
    """Check an evidence file about a file; `policy` is the reader's, None takes the maker's.

    Raises:
        EvidenceDamagedError: the evidence was changed, is not the maker's, or about another file.
    """
    files = unpack_files(data)
    missing = sorted(_FIXED - set(files))
    if missing:
        raise EvidenceDamagedError(f"the evidence lacks {', '.join(missing)}")
    summary, maker = _summary(files, pinned)
    _check_digests(files, summary)
    making = _making(files, maker)
    if making.digest != subject.digest:
        raise EvidenceDamagedError("the evidence is about another file: the digests differ")
    if (making.grade is Grade.MEMBERS) != (subject.members is not None):
        raise EvidenceDamagedError("only a library is made of members, and each library is")
    if making.grade is Grade.MEMBERS and making.parts != subject.members:
        raise EvidenceDamagedError("the library has other members than the evidence names")
    if making.grade is Grade.WHOLE and making.parts != (FilePart(making.name, making.digest),):
        raise EvidenceDamagedError("an object has other parts than itself")
    keys = _worker_keys(files, maker, pinned)
    rows, trees = _rows(files, keys, maker)
    evidence = EvidenceContent(
        making=making, rows=rows, trees=trees, maker=maker, policy=summary.policy, at=summary.at
    )
    _check_statements(files, evidence)
    _check_all(files, evidence, summary)
    return VerifiedEvidence(
        evidence=evidence,
        coverage=evidence.coverage(policy),
        signatures=2 * len(rows) + len(trees) + 2,
        workers_pinned=bool(pinned.workers),
        makers_heads=tuple(tree.worker for tree in trees if is_of_maker(tree.checkpoint)),
    )


def _summary(files: Mapping[str, bytes], pinned: PinnedKeys) -> tuple[ReadSummary, bytes]:
    """Return the summary and the maker's key."""
    if len(files[bundle.VSA]) > _MAX_SUMMARY:
        raise EvidenceDamagedError("the summary is larger than any that hpcc writes")
    envelope = read_envelope(files[bundle.VSA], bundle.VSA)
    for key in pinned.makers:
        if key_id_of(key) == envelope.key_id:
            check_envelope(envelope, key, IN_TOTO, bundle.VSA)
            return read_summary(envelope.payload), key
    raise EvidenceDamagedError(
        "the evidence is not signed by a pinned key: it is another maker's, or was made anew"
    )


def _check_digests(files: Mapping[str, bytes], summary: ReadSummary) -> None:
    """Check that the files are those that the summary names."""
    found = {n: hashlib.sha256(data).hexdigest() for n, data in files.items() if n != bundle.VSA}
    for name in sorted(set(found) | set(summary.files)):
        if found.get(name) != summary.files.get(name):
            what = "changed" if name in found and name in summary.files else "added or removed"
            raise EvidenceDamagedError(f"{name[:200]} of the evidence was {what}")


def _making(files: Mapping[str, bytes], maker: bytes) -> Making:
    envelope = read_envelope(files[bundle.LINK], bundle.LINK)
    check_envelope(envelope, maker, IN_TOTO, bundle.LINK)
    return read_making(envelope.payload)


def _worker_keys(
    files: Mapping[str, bytes], maker: bytes, pinned: PinnedKeys
) -> Mapping[str, bytes]:
    """Return the workers' keys by word: what the file names, where it agrees with the pinned."""
    try:
        named = parse_pinned(files[bundle.KEYS], bundle.KEYS)
    except CallerError as error:
        raise EvidenceDamagedError(str(error)) from error
    if named.makers != (maker,):
        raise EvidenceDamagedError(f"{bundle.KEYS} names another maker")
    for word, key in named.workers.items():
        if pinned.workers and pinned.workers.get(word) != key:
            raise EvidenceDamagedError(f"the key of worker {word} is not a pinned one")
    return named.workers


def _rows(
    files: Mapping[str, bytes], keys: Mapping[str, bytes], maker: bytes
) -> tuple[tuple[ProvedRow, ...], tuple[WorkerTree, ...]]:
    proofs = _lines(files, bundle.PROOFS)
    heads: dict[str, WorkerTree] = {}
    opened = {}
    rows: list[ProvedRow] = []
    for number, line in enumerate(_lines(files, bundle.RECORDS), 1):
        what = f"line {number} of {bundle.RECORDS}"
        record = _record(read_envelope(line, what), keys, what)
        worker = record.worker
        if worker not in heads:
            checkpoint = files.get(bundle.checkpoint_name(worker), b"")
            heads[worker] = WorkerTree(worker, keys[worker_word(worker)], checkpoint)
            opened[worker] = open_head(heads[worker], maker)
        text = _text(next(proofs, b""))
        index, proof = read_proof(text, heads[worker].checkpoint)
        check_inclusion(record, index, proof, opened[worker])
        if rows and (rows[-1].record.worker, rows[-1].record.sequence) >= (worker, record.sequence):
            raise EvidenceDamagedError(f"{what} is not in its place")
        rows.append(ProvedRow(record, index, proof))
    if next(proofs, None) is not None:
        raise EvidenceDamagedError(f"{bundle.PROOFS} has more proofs than there are rows")
    return tuple(rows), tuple(heads[worker] for worker in sorted(heads))


def _record(envelope: Envelope, keys: Mapping[str, bytes], what: str) -> Record:
    if envelope.payload_type != bundle.RECORD_TYPE or len(envelope.payload) > MAX_ROW_BYTES:
        raise EvidenceDamagedError(f"{what} has no row")
    key = next((key for key in keys.values() if key_id_of(key) == envelope.key_id), None)
    if key is None or len(key) != KEY_BYTES:
        raise EvidenceDamagedError(f"{what} is signed by no worker whose key is here")
    check_envelope(envelope, key, bundle.RECORD_TYPE, what)
    try:
        read = decode_record(envelope.payload, envelope.signature)
        check_canonical(read)
        row_of(read)
    except AuditDamagedError as error:
        raise EvidenceDamagedError(f"{what}: {error}") from error
    if keys.get(worker_word(read.worker)) != key:
        raise EvidenceDamagedError(f"{what} is not a row of the worker whose key signed it")
    return read


def _check_statements(files: Mapping[str, bytes], evidence: EvidenceContent) -> None:
    """Check that each statement follows from its row, and has the maker's signature."""
    lines = _lines(files, bundle.OBJECTS)
    try:
        wanted = bundle.statements(evidence)
    except AuditDamagedError as error:
        raise EvidenceDamagedError(str(error)) from error
    for number, payload in enumerate(wanted, 1):
        what = f"line {number} of {bundle.OBJECTS}"
        envelope = read_envelope(next(lines, b""), what)
        if envelope.payload != payload or envelope.key_id != key_id_of(evidence.maker):
            raise EvidenceDamagedError(f"{what} does not follow from its row")
        check_envelope(envelope, evidence.maker, IN_TOTO, what)
    if next(lines, None) is not None:
        raise EvidenceDamagedError(f"{bundle.OBJECTS} has more statements than there are rows")


def _check_all(files: Mapping[str, bytes], evidence: EvidenceContent, summary: ReadSummary) -> None:
    """Check that all files, and the summary, are what follows from the rows and the making."""
    index = RowIndex((row.record for row in evidence.rows), evidence.policy)
    needed = {id(record) for part in evidence.making.parts if (record := index.row_of(part.digest))}
    if len(needed) != len(evidence.rows):
        raise EvidenceDamagedError("the evidence has rows that no part needs")
    wanted = bundle.plain_files(evidence)
    for name in (bundle.LINK, bundle.OBJECTS, bundle.VSA):
        wanted[name] = files[name]
    for name in sorted(set(files) | set(wanted)):
        if files.get(name) != wanted.get(name):
            raise EvidenceDamagedError(f"{name} is not what follows from the rows")
    if bundle.summary_payload(evidence, files) != summary.payload:
        raise EvidenceDamagedError("the summary is not what follows from the rest")


def _lines(files: Mapping[str, bytes], name: str) -> Iterator[bytes]:
    """Yield the lines of a file.

    Raises:
        EvidenceDamagedError: they are too many, too long, or the last has no end.
    """
    data = files[name]
    if data.count(b"\n") > MAX_ROWS or (data and not data.endswith(b"\n")):
        raise EvidenceDamagedError(f"{name} has more rows than are read, or was cut")
    start = 0
    while start < len(data):
        end = data.index(b"\n", start)
        if end - start > _MAX_LINE:
            raise EvidenceDamagedError(f"{name} has a line that is too long")
        yield data[start:end]
        start = end + 1


def _text(line: bytes) -> str:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise EvidenceDamagedError("a proof is missing, or not JSON") from error
    if not isinstance(found, str):
        raise EvidenceDamagedError("a proof is not a text")
    return found
