"""Warm start: guests restored from a snapshot that was taken before anything of a tenant ran.

The first guest of a kind boots. Beside it, and never before it, a template of the same kind boots
as far as the agent's READY, becomes a snapshot and ends. Later guests are restored from that; one
that cannot be is booted.
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
# After so many failures of a kind this process only boots it, for a while: the host may have been
# short of memory or disk, and nothing but a restart of the worker would have it tried again.
_MAX_FAILURES: Final = 2
FORGIVE_SECONDS: Final = 1800.0
# What is left of the time for a boot if a restore hangs.
_RESTORE_SHARE: Final = 1 / 3
TEMPLATE_NICE: Final = 10
# A template boots with less of the CPU than guests have.
_TEMPLATE_PATIENCE: Final = 4
_MAX_TEXT_CHARS: Final = 300
_log = logging.getLogger(__name__)
type Fields = tuple[tuple[str, str], ...]
type OnEvent = Callable[[str, Fields], Awaitable[None]]


class Template(Protocol):
    """A guest that becomes a snapshot instead of getting a host."""

    async def save(self) -> Saved:
        """Boot to READY, write memory and state into the VM's directory, end the VMM.

        Raises:
            GuestLostError, IntegrityError, OSError: it did not get there.
        """
        ...

    async def end(self) -> None:
        """Leave nothing behind."""
        ...


class WarmBackend(Protocol):
    """What a runtime gives: VMs by spec."""

    def key(self, spec: GuestSpec) -> str:
        """Name everything that a snapshot depends on; reads files. Raises OSError."""
        ...

    def cold(self, spec: GuestSpec) -> Vm: ...

    def restored(self, spec: GuestSpec, snapshot: Snapshot) -> Vm: ...

    def template(self, spec: GuestSpec) -> Template: ...


async def _log_event(name: str, fields: Fields) -> None:
    _log.warning("%s %s", name, dict(fields))


class WarmStart:
    """Guests by snapshot, and the templates that are being made; they end with the block."""

    def __init__(self, store: SnapshotStore, clock: Clock, on_event: OnEvent = _log_event) -> None:
        self._store, self._clock, self._on_event = store, clock, on_event
        self._making: dict[str, asyncio.Task[None]] = {}
        # Per kind, and when the last one was (monotonic).
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
        """Restore a guest, or boot it; see `hpcc.ports.Runtime.guest`."""
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
        """Return the key of a kind of guest, "" where it is only booted, and its snapshot."""
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
            return "", None  # the boot will say what is wrong with the spec's files
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
        """Return the failures of a kind that count; a while after the last one none does."""
        count, last_at = self._failures.get(key, (0, 0.0))
        if count and self._clock.monotonic() - last_at >= FORGIVE_SECONDS:
            del self._failures[key]
            return 0
        return count

    def _start_making(self, key: str, backend: WarmBackend, spec: GuestSpec) -> None:
        if self._making or self._is_given_up(key):
            return  # one at a time; a later guest asks again
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
                # TimeoutError is one of them. No guest waits for this.
                self._failed(key)
                _log.warning("no snapshot of %s: %s", spec.image, str(error)[:_MAX_TEXT_CHARS])
            finally:
                await vm.end()


def _hurried(spec: GuestSpec) -> GuestSpec:
    return replace(spec, boot_timeout_seconds=spec.boot_timeout_seconds * _RESTORE_SHARE)


def snapshot_bytes(state_dir: Path) -> int:
    """Return how much disk the snapshots under a worker's state directory take."""
    return open_store(state_dir).disk_bytes()


def open_store(state_dir: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> SnapshotStore:
    """Return the store of a worker's state directory."""
    return SnapshotStore(state_dir / "snapshots", max_bytes)
