"""Everything a guest boots from besides its image, prepared once and named by content."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.core import ImageDigest
from hpcc.ports import GuestSpec
from hpcc.runtime.assets.drive import build_drive, drive_key
from hpcc.runtime.assets.initramfs import build_initramfs
from hpcc.runtime.assets.kernel import GuestLinkKind, Kernel, prepare_kernel
from hpcc.runtime.host.guest_programs import guest_program
from hpcc.runtime.host.threads import in_thread
from hpcc.runtime.host.tools import (
    ToolError,
    key_of,
    locked,
    made_once,
    remove_unfinished,
    run_tool,
    sha256_of,
)

_SOURCE: Final = guest_program("init.c")
_FLAGS: Final = ("-std=c11", "-O2", "-static", "-s")
# musl first: 40 kB instead of 700, and no libc warnings about static NSS.
_COMPILERS: Final = ("musl-gcc", "cc", "gcc")
# Starts a plain kernel by its PVH entry. The default firmware fails in one boot of four.
_QBOOT: Final = ("/usr/share/qemu/qboot.rom", "/usr/local/share/qemu/qboot.rom")


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestAssets:
    """Files that a guest boots from; digests are `sha256:…`.

    `firmware` is None for the VMM's default. `kernel` and `initramfs` are for a guest with a
    virtio-serial port. `vmlinux`, which is never compressed, and `vsock_initramfs` are for a guest
    with vsock.
    """

    kernel: Path
    kernel_digest: str
    initramfs: Path
    initramfs_digest: str
    vmlinux: Path
    vmlinux_digest: str
    vsock_initramfs: Path
    agent_drive: Path
    agent_digest: str
    firmware: Path | None


async def prepare_assets(directory: Path, progress: Callable[[str], None]) -> GuestAssets:
    """Prepare kernel, initramfs and agent drive under `directory`, or find them there.

    `progress` gets one line before each slow step. Several processes may call this at once.

    Raises:
        ToolError: a tool or package is missing; the text names the command that installs it.
    """
    async with locked(directory):
        await asyncio.to_thread(remove_unfinished, directory)
        kernel = await prepare_kernel(directory, progress)
        init = await _build_init(directory)
        initramfs = await _build_initramfs(directory, kernel, init, "port")
        vsock_initramfs = await _build_initramfs(directory, kernel, init, "vsock")
        key = await drive_key(init)

        async def make(target: Path) -> None:
            progress("building the agent drive")
            await build_drive(target, init)

        drive = await made_once(directory / f"agent-{key}.erofs", make)
        return await asyncio.to_thread(_assets, kernel, initramfs, vsock_initramfs, drive)


def _assets(kernel: Kernel, initramfs: Path, vsock_initramfs: Path, drive: Path) -> GuestAssets:
    firmware = find_firmware()
    image = kernel.vmlinux if firmware else kernel.bzimage
    return GuestAssets(
        kernel=image,
        kernel_digest=sha256_of(image),
        initramfs=initramfs,
        initramfs_digest=sha256_of(initramfs),
        vmlinux=kernel.vmlinux,
        vmlinux_digest=sha256_of(kernel.vmlinux),
        vsock_initramfs=vsock_initramfs,
        agent_drive=drive,
        agent_digest=sha256_of(drive),
        firmware=firmware,
    )


def find_firmware() -> Path | None:
    """Return the firmware that starts a plain kernel; None for the VMM's default."""
    return next((Path(p) for p in _QBOOT if Path(p).is_file()), None)


def find_static_compiler() -> str | None:
    """Return the C compiler that will build the guest's init; None without one."""
    return next((c for c in _COMPILERS if shutil.which(c)), None)


async def _build_init(directory: Path) -> Path:
    compiler = find_static_compiler()
    if compiler is None:
        raise ToolError(
            "no C compiler to build the guest's init; try: apt-get install musl-tools",
            reason="tool-missing",
        )
    # Built each time: no key names the C library that a static program contains.
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(scratch, "init")
        await run_tool(
            compiler, *_FLAGS, "-o", str(built), str(_SOURCE), remedy="apt-get install musl-tools"
        )  # fmt: skip
        data = await in_thread(built.read_bytes)

    async def make(target: Path) -> None:
        await in_thread(lambda: target.write_bytes(data))

    return await made_once(directory / f"init-{key_of([data])}", make)


async def _build_initramfs(
    directory: Path, kernel: Kernel, init: Path, link: GuestLinkKind
) -> Path:
    archive = await asyncio.to_thread(
        lambda: build_initramfs(init.read_bytes(), kernel.modules(link))
    )

    async def make(target: Path) -> None:
        await in_thread(lambda: target.write_bytes(archive))

    return await made_once(directory / f"initramfs-{key_of([archive])}.cpio", make)


def probe_spec(assets: GuestAssets, boot_timeout_seconds: float) -> GuestSpec:
    """Return a guest for a probe: it needs no image, because the agent drive serves as one."""
    return GuestSpec(
        image=ImageDigest(assets.agent_digest),
        image_path=assets.agent_drive,
        memory_mib=256,
        boot_timeout_seconds=boot_timeout_seconds,
    )
