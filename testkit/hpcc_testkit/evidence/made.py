"""Static libraries, trails with rows of their members, and evidence about them, for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.evidence.bundle import EvidenceContent, seal_evidence
from hpcc.evidence.collect import proved_rows, read_trails, signed_trees
from hpcc.evidence.forms.container import pack_files
from hpcc.evidence.heads import HeldCheckpoint
from hpcc.evidence.keys import PinnedKeys
from hpcc.evidence.making import LinkClaim, making_of, read_subject
from hpcc.evidence.model import EvidencePolicy
from hpcc.evidence.packages import SystemPackage
from hpcc_testkit.farm.audit_rows import KEY, opened, row

MAKER: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(64, 96)))
IMAGE: Final = "sha256:" + "f2" * 32


def raw(key: Ed25519PrivateKey) -> bytes:
    """Return the raw public key."""
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def library(members: Mapping[str, bytes]) -> bytes:
    """Return a static library, as `ar` writes it."""
    long_names = b"".join(f"{name}/\n".encode() for name in members)
    parts = [b"!<arch>\n", _member(b"//", long_names)]
    offset = 0
    for name, data in members.items():
        parts.append(_member(f"/{offset}".encode(), data))
        offset += len(name) + 2
    return b"".join(parts)


def _member(name: bytes, data: bytes) -> bytes:
    head = b"%-16b%-12b%-6b%-6b%-8b%-10d`\n" % (name, b"0", b"0", b"0", b"644", len(data))
    return head + data + (b"\n" if len(data) % 2 else b"")


def digest_of(data: bytes) -> str:
    """Return the digest of an output as rows have it."""
    return f"{hashlib.sha256(data).hexdigest()}/{len(data)}"


def guest_row(number: int, outputs: Mapping[str, bytes], **changes: object) -> dict[str, object]:
    """Return the changes of `row` that make it one of a guest that gave these outputs."""
    return {
        "outputs": tuple((name, digest_of(data)) for name, data in outputs.items()),
        "exit_code": 0, "cache_status": "executed", "isolation": "qemu/tcg",
        "reuse": "principal", "worker": "w1", "image_digest": IMAGE, "tenant": "acme",
        "guest_id": f"guest-{number}", "input_root_digest": digest_of(b"%d" % number),
        "started_at": 1.7e9 + number, **changes,
    }  # fmt: skip


async def trail_of(
    directory: Path,
    rows: Iterable[Mapping[str, object]],
    *,
    worker: str = "w1",
    key: Ed25519PrivateKey = KEY,
) -> Path:
    """Write a trail with these rows; return its directory."""
    async with opened(directory, worker=worker, key=key) as log:
        for number, changes in enumerate(rows):
            await log.append(row(number, **changes))
    return directory


@dataclass(frozen=True, slots=True)
class MadeEvidence:
    """Evidence about a file, before and after it was packed."""

    files: Mapping[str, bytes]
    data: bytes
    evidence: EvidenceContent


def made_evidence(
    file: Path,
    trails: Iterable[Path],
    *,
    links: Iterable[LinkClaim] = (),
    packages: Mapping[str, str] | None = None,
    maker: Ed25519PrivateKey = MAKER,
    policy: EvidencePolicy | None = None,
    held: Mapping[str, HeldCheckpoint] | None = None,
) -> MadeEvidence:
    """Return evidence about a file. `held` are heads that a scheduler holds, by worker."""
    chosen = policy or EvidencePolicy()
    named = {path: SystemPackage(url) for path, url in (packages or {}).items()}
    making = making_of(read_subject(file), list(links), lambda _: named)
    read = read_trails(list(trails), [making], chosen, held=held)
    rows = proved_rows(read, making, chosen)
    evidence = EvidenceContent(
        making=making, rows=rows, policy=chosen, maker=raw(maker), at="2026-11-30T12:00:00Z",
        trees=signed_trees(read, rows, raw(maker), maker.sign, 1764504000.0),
    )  # fmt: skip
    files = seal_evidence(evidence, maker.sign)
    return MadeEvidence(files, pack_files(files), evidence)


def pinned(*makers: Ed25519PrivateKey) -> PinnedKeys:
    """Return pinned keys of makers only."""
    return PinnedKeys(tuple(map(raw, makers or (MAKER,))), {})
