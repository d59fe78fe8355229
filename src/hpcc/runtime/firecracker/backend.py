"""Guests as Firecracker microVMs, each in its own jail: Linux with working KVM, as root."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Final

from hpcc.core import HpccError, Isolation
from hpcc.ports import Clock, GuestIdentity, GuestSpec, Probe
from hpcc.runtime.assets.assets import GuestAssets, probe_spec
from hpcc.runtime.firecracker.io import request_bytes
from hpcc.runtime.firecracker.plan import (
    AGENT,
    IMAGE,
    INITRAMFS,
    JAILER,
    KERNEL,
    MEMORY,
    PROGRAM,
    STATE,
    Microvm,
    boot_calls,
    kernel_command_line,
)
from hpcc.runtime.firecracker.tools import check_machine
from hpcc.runtime.firecracker.vm import FirecrackerConfig, JailedVm
from hpcc.runtime.host.cgroups import has_cgroups
from hpcc.runtime.host.tools import sha256_of
from hpcc.runtime.host.users import warden_label
from hpcc.runtime.vm.command_line import recorded_line
from hpcc.runtime.vm.snapshot_store import Snapshot, snapshot_key
from hpcc.runtime.vm.vm import Vm, VmGuest, booted
from hpcc.runtime.vm.warm import Template, WarmStart
from hpcc.wire.link import TOKEN_BYTES

__all__ = ["FirecrackerConfig", "FirecrackerRuntime"]
_BOOT_TRIES: Final = 2


class FirecrackerRuntime:
    """One jailed microVM for each guest. With `warm`, guests are restored from snapshots."""

    isolation = Isolation.FIRECRACKER_KVM

    def __init__(
        self,
        config: FirecrackerConfig,
        assets: GuestAssets,
        clock: Clock,
        warm: WarmStart | None = None,
    ) -> None:
        self._config, self._assets, self._clock = config, assets, clock
        self._warm = warm

    async def probe(self) -> Probe:
        """Boot a guest from the agent drive only, with a console, until its agent answers.

        See `hpcc.ports.Runtime.probe`.
        """
        spec = probe_spec(self._assets, self._config.probe_seconds)
        try:
            await asyncio.to_thread(check_machine, self._config.directory)
            async with booted(
                partial(self._vm, spec, has_console=True), spec, self._clock, tries=1
            ):
                pass
        except HpccError as error:
            lines = str(error).splitlines() or [""]
            return Probe(
                is_usable=False,
                isolation=self.isolation,
                summary=lines[0],
                details=tuple(lines[1:]),
            )
        details = () if has_cgroups() else ("no cgroup v2: the VMM's memory has no separate limit",)
        summary = f"a guest answered ({self.isolation}, Firecracker {self._config.tools.version})"
        return Probe(
            is_usable=True,
            isolation=self.isolation,
            summary=summary,
            details=details,
            no_warm_start="",
        )

    @asynccontextmanager
    async def guest(self, spec: GuestSpec) -> AsyncIterator[VmGuest]:
        """Restore or boot a guest, with two tries to boot; see `hpcc.ports.Runtime.guest`.

        Raises:
            GuestBootError: the guest did not answer in time or could not start.
        """
        if self._warm is not None and not spec.is_passing:
            async with self._warm.guest(self, spec, tries=_BOOT_TRIES) as guest:
                yield guest
            return
        async with booted(partial(self.cold, spec), spec, self._clock, tries=_BOOT_TRIES) as guest:
            yield guest

    def key(self, spec: GuestSpec) -> str:
        """Return a name for everything that a snapshot of this guest depends on. Reads files.

        Raises:
            OSError: a file is missing.
        """
        microvm = replace(self._microvm(spec, has_console=self._config.has_console), token="")
        tools = self._config.tools
        return snapshot_key(
            spec,
            self._assets.vmlinux_digest,
            sha256_of(self._assets.vsock_initramfs),
            self._assets.agent_digest,
            tools.version,
            tools.firecracker_digest,
            tools.jailer_digest,
            *(request_bytes(call).decode() for call in boot_calls(microvm)),
        )

    def cold(self, spec: GuestSpec) -> Vm:
        """Return a guest to boot."""
        return self._vm(spec, has_console=self._config.has_console)

    def restored(self, spec: GuestSpec, snapshot: Snapshot) -> Vm:
        """Return a guest to restore."""
        return self._vm(spec, has_console=self._config.has_console, snapshot=snapshot)

    def template(self, spec: GuestSpec) -> Template:
        """Return a VM that becomes a snapshot."""
        return self._vm(spec, has_console=self._config.has_console)

    def _microvm(self, spec: GuestSpec, *, has_console: bool) -> Microvm:
        return Microvm(
            memory_mib=spec.memory_mib,
            vcpus=spec.vcpus,
            token=secrets.token_hex(TOKEN_BYTES // 2),
            has_console=has_console,
            has_mitigations=spec.has_mitigations,
            extra_options=self._config.extra_kernel_options,
        )

    def _vm(
        self, spec: GuestSpec, *, has_console: bool, snapshot: Snapshot | None = None
    ) -> JailedVm:
        tools, microvm = self._config.tools, self._microvm(spec, has_console=has_console)
        identity = GuestIdentity(
            guest_id=f"f-{secrets.token_hex(8)}",
            isolation=self.isolation,
            kernel_digest=self._assets.vmlinux_digest,
            vmm_digest=tools.firecracker_digest,
            agent_digest=self._assets.agent_digest,
            warden=warden_label(),
            vmm_version=f"{PROGRAM} {tools.version}",
            jailer_digest=tools.jailer_digest,
            snapshot_digest=snapshot.digest if snapshot else "",
            kernel_command_line=recorded_line(kernel_command_line(microvm)),
            vmm_jail=JAILER,
        )
        files = {
            KERNEL: self._assets.vmlinux,
            INITRAMFS: self._assets.vsock_initramfs,
            IMAGE: spec.image_path,
            AGENT: self._assets.agent_drive,
        }
        if snapshot is not None:
            microvm = replace(microvm, token=snapshot.token)
            files |= {MEMORY: snapshot.memory, STATE: snapshot.state}
        return JailedVm(self._config, identity, microvm, files)
