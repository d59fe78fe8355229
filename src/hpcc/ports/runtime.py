"""The interface of every isolation backend. Contract: `hpcc_testkit` and tests/vm."""

from __future__ import annotations

from asyncio import Future
from collections.abc import AsyncGenerator
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
            NotFoundError: the input was never uploaded, or was removed.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestSpec:
    """What a guest boots from. `image_path` is a read-only filesystem image.

    `is_passing`: the guest answers one question and ends, so a snapshot is not worth making.
    `has_mitigations`: its kernel defends processes in it against side channels of the CPU.
    """

    image: ImageDigest
    image_path: Path
    memory_mib: int = 1024
    vcpus: int = 1
    boot_timeout_seconds: float = 60.0
    is_passing: bool = False
    has_mitigations: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestIdentity:
    """The guest's fields of an audit row. Digests are `sha256:…`; "" if there is none."""

    guest_id: str
    isolation: Isolation
    kernel_digest: str
    vmm_digest: str
    agent_digest: str
    vmm_version: str = ""
    jailer_digest: str = ""
    warden: str = "none"
    # The snapshot that it was restored from; "" if it was booted.
    snapshot_digest: str = ""
    # What its kernel was started with, without the token; "" if it runs on the host's kernel.
    kernel_command_line: str = ""
    # What confines its VMM: "jailer" (Firecracker's), "hpcc" (QEMU's) or "none"; "" without a VMM.
    vmm_jail: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether a backend works here, and sentences on why and how to fix it."""

    is_usable: bool
    isolation: Isolation
    summary: str
    details: tuple[str, ...] = field(default=())
    remedy: str = ""
    # Why every guest is booted; "" if guests can be restored from snapshots.
    no_warm_start: str = "this backend has no snapshots"


class Guest(Protocol):
    """A booted guest whose agent has answered."""

    @property
    def identity(self) -> GuestIdentity: ...

    def exec(self, request: ExecRequest, blobs: BlobSource) -> AsyncGenerator[ExecEvent]:
        """Run one compile; yields Stdio*, exactly one Result, Output*.

        Several may run at once. Closing the generator, or cancelling it while it runs, kills the
        compile's process tree in the guest.

        Raises:
            GuestLostError: the guest died or broke the protocol, and is retired.
            NotFoundError: an input is not in `blobs`; the guest stays usable.
            CallerError: the request exceeds a limit and was not sent to the guest.
        """
        ...

    @property
    def lost(self) -> Future[str]:
        """Complete with a reason when the guest dies, whatever the cause. Nobody cancels it."""
        ...

    @property
    def is_lost(self) -> bool: ...


class Runtime(Protocol):
    """One isolation backend."""

    @property
    def isolation(self) -> Isolation:
        """The label of the isolation that this runtime actually provides."""
        ...

    async def probe(self) -> Probe:
        """Return whether it works here. Bounded in time; never raises for a missing part."""
        ...

    def guest(self, spec: GuestSpec) -> AbstractAsyncContextManager[Guest]:
        """Boot a guest. When the block ends in any way, nothing of the guest remains.

        Raises:
            GuestBootError: it could not start, or did not answer in time.
        """
        ...
