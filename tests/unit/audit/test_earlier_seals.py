"""Seals of format 2, in which the head is signed and not the seal."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.audit.base.canonical import AuditDamagedError
from hpcc.audit.base.heads import HeadSigner
from hpcc.audit.base.index_statement import IndexFacts, sign_index
from hpcc.audit.base.segments import Seal, seals, write_seal
from hpcc.files.whole import no_fault

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
OTHER = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
HEAD = "a" * 64


@pytest.mark.parametrize(
    ("worker", "first", "head", "key"),
    [("w2", 0, HEAD, KEY), ("w1", 1, HEAD, KEY), ("w1", 0, "b" * 64, KEY), ("w1", 0, HEAD, OTHER)],
)
def test_a_statement_of_another_segment_is_refused(
    worker: str, first: int, head: str, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    facts = IndexFacts(data=b"x", since=0.0, until=1.0)
    for signer, number, of, is_right in (
        (HeadSigner("w1", KEY), 0, HEAD, True),
        (HeadSigner(worker, key), first, head, False),
    ):
        statement = sign_index(signer, number, of, facts)
        signed = HeadSigner("w1", KEY).sign(2, HEAD, 1.0)
        seal = Seal(
            first=0, previous="0" * 64, size_bytes=9, signed=signed, index=statement,
            is_signing=True,
        )  # fmt: skip
        write_seal(tmp_path, seal, no_fault)
        if is_right:
            assert len(list(seals(tmp_path))) == 1
            continue
        with pytest.raises(AuditDamagedError, match="of another segment"):
            list(seals(tmp_path))
