"""Warm start: what restored guests may share, and what they may not.

The problem: a boot takes seconds, under emulation tens of seconds, and every trust domain needs its
own guests. A snapshot of a booted guest can be restored in a fraction of that time, any number of
times. But a snapshot is a copy of memory. If memory had ever held a tenant's byte or a secret, each
restored guest would hold it, too.

The rule: a snapshot is taken from a template, never from a guest. A template boots like a guest, as
far as the agent's READY. Then it is saved and ended. No host has spoken to its agent, so its memory
holds the kernel, the agent and pages of the image, and nothing of a tenant.

An example: tenant A asks for an image for the first time. Its guest boots. Beside it, and never
before it, a template of the same kind boots with low CPU priority and becomes a snapshot. Tenant B
asks for the same image. Its guest is restored from the snapshot and gets its own name, the current
time and fresh entropy in its first exec, before any input. If the restore fails, the snapshot is
dropped and B's guest boots.

Restored guests share, read-only: the memory file (each maps it privately, so a page that a guest
writes becomes its own copy), the image, the agent drive, and the token of the link handshake that
is saved in the template's memory. The token tells the agent's stream from other bytes and is not a
secret; a fresh nonce shows that an answer is this guest's (`hpcc.wire.link`).

What must never happen:

- A guest that has run an exec is saved, or a template runs one.
- Two restored guests use the same entropy, name or clock. `_introduce` in `vm.vm` sets them in
  every guest, restored or booted.
- A guest is restored under another kernel, VMM, CPU, memory size or image than the snapshot's. All
  of these are in the key (`snapshot_key`).
- A damaged or changed snapshot is restored. The store checks owner, mode and digest first.
- A guest fails because a snapshot is missing, damaged or still being made. It boots, after a third
  of the boot's time at most.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from hpcc.core import IntegrityError
from hpcc.ports import Clock, GuestBootError, GuestLostError, GuestSpec
from hpcc.runtime.host.threads import in_thread
from hpcc.runtime.vm.snapshot_store import DEFAULT_MAX_BYTES, Saved, Snapshot, SnapshotStore
from hpcc.runtime.vm.vm import Vm, VmGuest, booted

DAMAGED: Final = "snapshot-damaged"
RESTORE_FAILED: Final = "snapshot-restore-failed"
# After this many failures a kind of guest is only booted, until `FORGIVE_SECONDS` have passed. The
# host may have been short of memory or disk, and would otherwise stay without snapshots until the
# worker restarts.
_MAX_FAILURES: Final = 2
FORGIVE_SECONDS: Final = 1800.0
# The share of the boot's time that a restore gets, so that a boot remains possible if it hangs.
_RESTORE_SHARE: Final = 1 / 3
TEMPLATE_NICE: Final = 10
# A template has a lower CPU priority than guests, so it gets this many times the boot's time.
_TEMPLATE_PATIENCE: Final = 4
_MAX_TEXT_CHARS: Final = 300
_log = logging.getLogger(__name__)
type Fields = tuple[tuple[str, str], ...]
type OnEvent = Callable[[str, Fields], Awaitable[None]]


class Template(Protocol):
    """A VM that becomes a snapshot and never serves a host."""

    async def save(self) -> Saved:
        """Boot to READY, write memory and state into the VM's directory, end the VMM.

        Raises:
            GuestLostError: the VMM ended.
            IntegrityError: VMM or guest broke a protocol.
            OSError: the VMM refused, or a file or connection failed.
        """
        ...

    async def end(self) -> None:
        """Remove everything that belongs to the VM; idempotent."""
        ...


class WarmBackend(Protocol):
    """What a runtime provides for warm start: VMs by spec. None of the four starts anything."""

    def key(self, spec: GuestSpec) -> str:
        """Return a name for everything that a snapshot depends on. Reads files.

        Raises:
            OSError: a file of the spec is missing.
        """
        ...

    def cold(self, spec: GuestSpec) -> Vm:
        """Return a guest to boot."""
        ...

    def restored(self, spec: GuestSpec, snapshot: Snapshot) -> Vm:
        """Return a guest to restore."""
        ...

    def template(self, spec: GuestSpec) -> Template:
        """Return a VM that becomes a snapshot."""
        ...


async def _log_event(name: str, fields: Fields) -> None:
    _log.warning("snapshots: %s %s", name, dict(fields))


class WarmStart:
    """Restores guests and makes snapshots; use it as `async with`.

    Templates in the making are cancelled and ended with the block. `on_event` gets
    `snapshot-damaged` and `snapshot-restore-failed` with the fields `snapshot` and `detail`.
    """

    def __init__(self, store: SnapshotStore, clock: Clock, on_event: OnEvent = _log_event) -> None:
        self._store, self._clock, self._on_event = store, clock, on_event
        self._making: dict[str, asyncio.Task[None]] = {}
        # By key: the number of failures, and when the last one was (monotonic).
        self._failures: dict[str, tuple[int, float]] = {}

    async def __aenter__(self) -> WarmStart:
        await in_thread(self._store.open)
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = list(self._making.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    @property
    def is_making(self) -> bool:
        """Whether a template is being made."""
        return bool(self._making)

    async def settle(self) -> None:
        """Wait until no template is being made."""
        while self._making:
            await asyncio.wait(list(self._making.values()))

    @asynccontextmanager
    async def guest(
        self, backend: WarmBackend, spec: GuestSpec, *, tries: int
    ) -> AsyncIterator[VmGuest]:
        """Restore a guest, or boot it up to `tries` times; see `hpcc.ports.Runtime.guest`.

        After a boot it starts to make a snapshot, unless one is being made already.

        Raises:
            GuestBootError: the guest could be neither restored nor booted.
        """
        key, snapshot = await self.find(backend, spec)
        if snapshot is not None:
            machine = booted(
                lambda: backend.restored(spec, snapshot), _hurried(spec), self._clock, tries=1
            )
            try:
                guest = await machine.__aenter__()
            except GuestBootError as error:
                await self._forget(key, RESTORE_FAILED, str(error))
            else:
                try:
                    yield guest
                finally:
                    await machine.__aexit__(None, None, None)
                return
        async with booted(lambda: backend.cold(spec), spec, self._clock, tries=tries) as guest:
            if key:
                self._start_making(key, backend, spec)
            yield guest

    async def find(self, backend: WarmBackend, spec: GuestSpec) -> tuple[str, Snapshot | None]:
        """Return the key of a kind of guest and its snapshot, or None if there is no snapshot.

        The key is "" if no snapshot of this kind shall be made.
        """
        key = ""
        try:
            key = await in_thread(lambda: backend.key(spec))
            if self._is_given_up(key):
                return "", None
            stop = threading.Event()
            found = await in_thread(lambda: self._store.find(key, stop.is_set), stop.set)
        except IntegrityError as error:
            # The store has removed it.
            await self._forget(key, DAMAGED, str(error))
            return key, None
        except OSError:
            return "", None  # the boot reports what is wrong with the spec's files
        else:
            return key, found

    async def _forget(self, key: str, event: str, text: str) -> None:
        self._failed(key)
        await in_thread(lambda: self._store.drop(key))
        await self._on_event(event, (("snapshot", key), ("detail", text[:_MAX_TEXT_CHARS])))

    def _failed(self, key: str, times: int = 1) -> None:
        self._failures[key] = (self._counted(key) + times, self._clock.monotonic())

    def _is_given_up(self, key: str) -> bool:
        return self._counted(key) >= _MAX_FAILURES

    def _counted(self, key: str) -> int:
        """Return the failures of a kind that still count; 0 once `FORGIVE_SECONDS` have passed."""
        count, last_at = self._failures.get(key, (0, 0.0))
        if count and self._clock.monotonic() - last_at >= FORGIVE_SECONDS:
            del self._failures[key]
            return 0
        return count

    def _start_making(self, key: str, backend: WarmBackend, spec: GuestSpec) -> None:
        if self._making or self._is_given_up(key):
            return  # one at a time; a later guest tries again
        task = asyncio.get_running_loop().create_task(self._make(key, backend, spec))
        self._making[key] = task
        task.add_done_callback(partial(self._made, key))

    def _made(self, key: str, task: asyncio.Task[None]) -> None:
        del self._making[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(key, _MAX_FAILURES)
            _log.error("no snapshot %s", key, exc_info=error)

    async def _make(self, key: str, backend: WarmBackend, spec: GuestSpec) -> None:
        with ExitStack() as stack:
            making = stack.enter_context(self._store.making())
            if not making or await in_thread(lambda: self._store.find(key)) is not None:
                return
            vm = backend.template(spec)
            try:
                async with asyncio.timeout(spec.boot_timeout_seconds * _TEMPLATE_PATIENCE):
                    saved = await vm.save()
                memory_bytes = spec.memory_mib << 20
                stop = threading.Event()
                await in_thread(
                    lambda: self._store.publish(
                        key,
                        saved,
                        memory_bytes=memory_bytes,
                        image=spec.image_path,
                        is_stopped=stop.is_set,
                    ),
                    stop.set,  # a worker that ends does not wait for a copy of all memory
                )
            except (GuestLostError, IntegrityError, OSError) as error:
                # TimeoutError is an OSError. No guest waits for this.
                self._failed(key)
                _log.warning("no snapshot of %s: %s", spec.image, str(error)[:_MAX_TEXT_CHARS])
            finally:
                await vm.end()


def _hurried(spec: GuestSpec) -> GuestSpec:
    return replace(spec, boot_timeout_seconds=spec.boot_timeout_seconds * _RESTORE_SHARE)


def snapshot_bytes(state_dir: Path) -> int:
    """Return the bytes of disk that the snapshots in a worker's state directory use."""
    return open_store(state_dir).disk_bytes()


def open_store(state_dir: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> SnapshotStore:
    """Return the store of a worker's state directory."""
    return SnapshotStore(state_dir / "snapshots", max_bytes)
