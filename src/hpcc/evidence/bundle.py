"""The files of an evidence file: which there are, and how each follows from a few values.

Problem: an evidence file has many texts that say the same in several forms. A reader must not
believe one that the others contradict.

Rule: the values are the records with their workers' signatures, their proofs, the heads of the
trees, the making, the policy and the time. Every file is made of them by the functions here, for
writing and for checking. So a check makes all files again and compares bytes; what cannot be made
again (the signatures of the maker) is checked with the pinned key.

What must never happen: a byte of a file is shown to nobody and compared by nobody.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from hpcc.audit.base.canonical import PAYLOAD_TYPE, canonical
from hpcc.core.names import Isolation
from hpcc.evidence.forms.dsse import Envelope, envelope_text, seal_statement
from hpcc.evidence.keys import key_id_of, keys_text, pem_of, worker_word
from hpcc.evidence.model import (
    Coverage,
    EvidencePolicy,
    Grade,
    Making,
    PartSource,
    ProvedRow,
    RowIndex,
    WorkerTree,
    coverage_of,
)
from hpcc.evidence.proof import proof_text
from hpcc.evidence.readme import readme_text
from hpcc.evidence.sbom import sbom_of
from hpcc.evidence.statement import SITE, STATEMENT, making_statement, row_statement

RECORD_TYPE: Final = PAYLOAD_TYPE.decode()
VSA_TYPE: Final = "https://slsa.dev/verification_summary/v1"
LINK, OBJECTS, VSA = "link.dsse.json", "objects.intoto.jsonl", "vsa.dsse.json"
RECORDS, PROOFS = "records.dsse.jsonl", "rows.proofs.jsonl"
README, KEYS, MAKER_PEM, SBOM = "README.txt", "keys.txt", "maker.pem", "sbom.cdx.json"
COVERAGE: Final = f"{SITE}/coverage"
_POLICY: Final = f"{SITE}/policy/guest/v1"
_UNEVALUATED: Final = "SLSA_BUILD_LEVEL_UNEVALUATED"
_KERNEL: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceContent:
    """What an evidence file says.

    `rows` are sorted by worker and number, and each is needed by a part. `trees` are those of their
    workers, sorted. `maker` is the raw public key of who made the file, at `at` (UTC, as text).
    """

    making: Making
    rows: tuple[ProvedRow, ...]
    trees: tuple[WorkerTree, ...]
    maker: bytes
    policy: EvidencePolicy
    at: str

    def coverage(self, policy: EvidencePolicy | None = None) -> Coverage:
        """Count the parts by a policy, by default that of the maker."""
        return coverage_of(self.making, self.rows, policy or self.policy)


def checkpoint_name(worker: str) -> str:
    """Return the name of the file with the head of a worker's tree."""
    return f"worker.{worker_word(worker)}.checkpoint"


def worker_pem_name(worker: str) -> str:
    """Return the name of the file with a worker's public key."""
    return f"worker.{worker_word(worker)}.pem"


def plain_files(evidence: EvidenceContent) -> dict[str, bytes]:
    """Return the files that need no signature of the maker, as far as they are not kept values."""
    heads = {tree.worker: tree.checkpoint for tree in evidence.trees}
    worker_keys = {tree.worker: tree.key for tree in evidence.trees}
    records = [row.record for row in evidence.rows]
    files = {
        README: readme_text(evidence.making, worker_keys, len(records)),
        KEYS: keys_text(evidence.maker, worker_keys),
        MAKER_PEM: pem_of(evidence.maker),
        SBOM: sbom_of(evidence.making, records),
        RECORDS: _lines(
            envelope_text(
                Envelope(r.data, RECORD_TYPE, key_id_of(worker_keys[r.worker]), r.signature)
            )
            for r in records
        ),
        PROOFS: _lines(
            canonical(proof_text(row.index, row.proof, heads[row.record.worker]))
            for row in evidence.rows
        ),
    }
    for tree in evidence.trees:
        files[checkpoint_name(tree.worker)] = tree.checkpoint
        files[worker_pem_name(tree.worker)] = pem_of(tree.key)
    return files


def statements(evidence: EvidenceContent) -> list[bytes]:
    """Return the statement of each row."""
    return [row_statement(row.record) for row in evidence.rows]


def seal_evidence(evidence: EvidenceContent, sign: Callable[[bytes], bytes]) -> dict[str, bytes]:
    """Return all files, signed by the maker, whose public key is `evidence.maker`."""
    key_id = key_id_of(evidence.maker)
    files = plain_files(evidence)
    files[OBJECTS] = _lines(seal_statement(s, key_id, sign) for s in statements(evidence))
    files[LINK] = seal_statement(making_statement(evidence.making), key_id, sign)
    files[VSA] = seal_statement(summary_payload(evidence, files), key_id, sign)
    return files


def summary_payload(evidence: EvidenceContent, files: Mapping[str, bytes]) -> bytes:
    """Return the verification summary: it names each other file by its digest."""
    making, coverage = evidence.making, evidence.coverage()
    levels = ["FAILED"]
    if coverage.is_proved:
        levels = ["HPCC_OBJECTS_FROM_GUESTS", _UNEVALUATED]
        if making.grade is Grade.WHOLE:  # the link of other files was not behind the boundary
            levels = sorted(_levels(evidence))
    return canonical(
        {
            "_type": STATEMENT,
            "subject": [{"name": making.name, "digest": {"sha256": making.digest}}],
            "predicateType": VSA_TYPE,
            "predicate": {
                "verifier": {"id": f"{SITE}/attest"},
                "timeVerified": evidence.at,
                "resourceUri": making.name,
                "policy": {
                    "uri": _POLICY,
                    "annotations": {"isolations": list(evidence.policy.isolations)},
                },
                "inputAttestations": [
                    {"uri": name, "digest": {"sha256": hashlib.sha256(data).hexdigest()}}
                    for name, data in sorted(files.items())
                    if name != VSA
                ],
                "verificationResult": "PASSED" if coverage.is_proved else "FAILED",
                "verifiedLevels": levels,
                "dependencyLevels": dict(sorted(_levels(evidence).items())),
                COVERAGE: {
                    **{source.value: coverage.counts[source] for source in PartSource},
                    "guests": dict(coverage.guests), "leftOut": coverage.left_out,
                },
            },
        }
    )  # fmt: skip


def _levels(evidence: EvidenceContent) -> Counter[str]:
    """Count the parts by the level of SLSA's build track that their rows give them."""
    index = RowIndex((row.record for row in evidence.rows), evidence.policy)
    levels: Counter[str] = Counter()
    for part in evidence.making.parts:
        source, record = index.source_of(part, evidence.making.grade)
        if source is not PartSource.GUEST or record is None:
            levels[_UNEVALUATED] += 1
            continue
        # Level 3 asks that builds cannot influence one another.
        is_apart = record.body["reuse"] == "exec" and (
            Isolation(str(record.body["isolation"])).rank == _KERNEL
        )
        levels["SLSA_BUILD_LEVEL_3" if is_apart else "SLSA_BUILD_LEVEL_2"] += 1
    return levels


def _lines(items: Iterable[bytes]) -> bytes:
    return b"".join(b"%b\n" % item for item in items)
