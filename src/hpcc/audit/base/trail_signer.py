"""What signs a trail: a key in this process, or the signer's process.

A caller names what it wants to have signed, as a value, and gives the text that it expects. A key
in this process signs the text. The signer's process makes the text itself, from what it signed
before, and never sees the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hpcc.core import InfrastructureError, IntegrityError


class SignerError(InfrastructureError):
    """The signer's process gives no signature now: it ended, hangs, or its disk is full."""

    default_reason = "audit-signer"


class SignerRefusedError(IntegrityError):
    """The signer's process refuses: this is not the next record of its trail, or no state of it."""

    default_reason = "audit-signer-refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexDigest:
    """What a statement says of an index: hash in hex, size, and the times of its records."""

    sha256: str
    size_bytes: int
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class WantedHead:
    """A head of the first `count` records, as anchors have it."""

    count: int
    at: float


@dataclass(frozen=True, slots=True)
class WantedTree:
    """The head of the tree over the first `count` records."""

    count: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedSeal:
    """The seal of the open segment, which begins with record `first`."""

    first: int
    signed_from: int
    at: float
    index: IndexDigest | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedIndex:
    """The statement about the index of the segment that begins with record `first`.

    `seal` is the segment's seal as it is on the disk; empty for the open segment.
    """

    first: int
    index: IndexDigest
    seal: bytes = b""


@dataclass(frozen=True, slots=True)
class WantedName:
    """A head of no records: it names the key before the first seal does."""

    at: float


type Wanted = WantedHead | WantedTree | WantedSeal | WantedIndex | WantedName


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailEnd:
    """Where a trail ends on the disk, when it is opened.

    It has `count` records, the last of hash `head`. Record `tree_first` is the second leaf of its
    tree, which consists of `peaks`. The open segment begins with record `first`, whose predecessor
    has hash `previous`, and has `size_bytes`. Each record from `signed_from` on is signed; None if
    no seal says so.
    """

    count: int
    head: str
    tree_first: int
    peaks: tuple[bytes, ...]
    first: int
    previous: str
    size_bytes: int
    signed_from: int | None


class TrailSigner(Protocol):
    """Signs the records of one worker and the statements about them. Any thread may call it."""

    worker: str
    public_key: bytes
    # How often its process was started again.
    restarts: int

    @property
    def separation(self) -> str:
        """Return how it is kept apart: `own-uid`, `same-uid`, or `in-process`."""
        ...

    @property
    def remembers(self) -> bool:
        """Return whether a record that was signed has to be written, also if the disk refuses."""
        ...

    @property
    def trouble(self) -> str:
        """Return why nothing can be signed now; "" if it can."""
        ...

    def open(self) -> None:
        """Make it ready to sign. The caller has the lock of the trail.

        Raises:
            HpccError: the key or the process cannot be used.
        """
        ...

    def close(self) -> None:
        """End the process, if there is one."""
        ...

    def meet(self, end: TrailEnd) -> bytes:
        """Compare the trail with what was signed; return the frames that the trail lacks.

        Raises:
            AuditDamagedError: the trail is not the one that was signed.
            SignerError: the process gives no answer.
        """
        ...

    def sign_records(self, records: Sequence[bytes]) -> list[bytes]:
        """Return the signatures of the next records, in their order.

        Raises:
            SignerRefusedError: they are not the next records.
            SignerError: the process gives no answer.
        """
        ...

    def sign_text(self, wanted: Wanted, text: bytes) -> bytes:
        """Return the signature of what is wanted; `text` is what the caller takes it to be.

        Raises:
            SignerRefusedError: it was not signed before.
            SignerError: the process gives no answer.
        """
        ...
