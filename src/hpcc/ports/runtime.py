"""The one interface of every isolation backend. Contract: `hpcc_testkit` and tests/vm."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from hpcc.core import Digest, ExecEvent, ExecRequest, ImageDigest, Isolation


class BlobSource(Protocol):
    """Where a guest's missing inputs come from (the worker's CAS of that tenant)."""

    async def read(self, digest: Digest) -> bytes:
        """Return the blob's bytes, already checked.

        Raises:
            NotFoundError: the input was never uploaded, or is gone.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestSpec:
    """What a guest is booted from. `image_path` is a read-only filesystem image.

    `is_passing`: it answers one question and ends, so that no snapshot is worth its making.
    """

    image: ImageDigest
    image_path: Path
    memory_mib: int = 1024
    vcpus: int = 1
    boot_timeout_seconds: float = 60.0
    is_passing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestIdentity:
    """What the audit row says of a guest: digests are `sha256:…`, "" where there is none."""

    guest_id: str
    isolation: Isolation
    kernel_digest: str
    vmm_digest: str
    agent_digest: str
    vmm_version: str = ""
    jailer_digest: str = ""
    warden: str = "none"
    # Of the snapshot that it was restored from; "" if it was booted.
    snapshot_digest: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether a backend works here, and the sentences that say why and how to mend it."""

    is_usable: bool
    isolation: Isolation
    summary: str
    details: tuple[str, ...] = field(default=())
    remedy: str = ""
    # Why every guest is booted here; "" where guests can be restored from snapshots.
    no_warm_start: str = "this backend has no snapshots"


class Guest(Protocol):
    """A booted guest whose agent has answered."""

    @property
    def identity(self) -> GuestIdentity: ...

    def exec(self, request: ExecRequest, blobs: BlobSource) -> AsyncGenerator[ExecEvent]:
        """Run one compile; yields Stdio*, exactly one Result, Output*.

        Several may run at once. Closing the generator, or a cancel while it runs, kills the
        compile's process tree in the guest.

        Raises:
            GuestLostError: the guest died or broke the protocol; it is retired.
            NotFoundError: an input is not in `blobs`; the guest stays usable.
            CallerError: the request breaks a limit; the guest was not asked.
        """
        ...

    @property
    def lost(self) -> Awaitable[str]:
        """Completes with a reason when the guest dies, for whatever cause."""
        ...

    @property
    def is_lost(self) -> bool: ...


class Runtime(Protocol):
    """One isolation backend."""

    @property
    def isolation(self) -> Isolation:
        """The label of what this runtime really gives."""
        ...

    async def probe(self) -> Probe:
        """Say whether it works here; bounded in time, never raises for a missing piece."""
        ...

    def guest(self, spec: GuestSpec) -> AbstractAsyncContextManager[Guest]:
        """Boot a guest; however the block ends, nothing of it is left.

        Raises:
            GuestBootError: it did not answer in time or could not start.
        """
        ...
