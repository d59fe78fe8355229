"""Whether Firecracker and its jailer can be used here, and what to do if not."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.core import InfrastructureError
from hpcc.runtime.firecracker.plan import (
    JAILER,
    MINIMUM_VERSION,
    PROGRAM,
    RELEASES,
    parse_version,
)
from hpcc.runtime.host.tools import ToolError, run_tool, sha256_of

KVM: Final = Path("/dev/kvm")
_VERSION_SECONDS: Final = 30.0
_INSTALL: Final = (
    f"install {PROGRAM} and {JAILER} of one official release, {MINIMUM_VERSION[0]}."
    f"{MINIMUM_VERSION[1]} or newer, where root's PATH finds them: {RELEASES}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirecrackerTools:
    """The two programs, which have the same version; digests are `sha256:…`."""

    firecracker: Path
    jailer: Path
    version: str
    firecracker_digest: str
    jailer_digest: str


async def find_firecracker(search_path: str | None = None) -> FirecrackerTools:
    """Find the programs on PATH, or on `search_path`, and check them.

    Raises:
        ToolError: one is missing or unsafe to run as root, or their versions differ.
        InfrastructureError: they are too old.
    """
    firecracker = await asyncio.to_thread(_program, PROGRAM, search_path)
    jailer = await asyncio.to_thread(_program, JAILER, search_path)
    versions = [
        parse_version(await run_tool(str(p), "--version", timeout_seconds=_VERSION_SECONDS))
        for p in (firecracker, jailer)
    ]
    if versions[0] != versions[1]:
        raise ToolError(
            f"{firecracker} is {versions[0]} and {jailer} is {versions[1]}; {_INSTALL}",
            reason="firecracker-version",
        )
    return FirecrackerTools(
        firecracker=firecracker,
        jailer=jailer,
        version=versions[0],
        firecracker_digest=await asyncio.to_thread(sha256_of, firecracker),
        jailer_digest=await asyncio.to_thread(sha256_of, jailer),
    )


def _program(name: str, search_path: str | None) -> Path:
    found = shutil.which(name, path=search_path)
    if found is None:
        raise ToolError(f"{name} is not installed; {_INSTALL}", reason="tool-missing")
    path = Path(found).resolve()
    status = path.stat()
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ToolError(
            f"{path} can be changed by others than root, and would run as root;"
            f" try: chown root:root {path} && chmod 755 {path}",
            reason="unsafe-tool",
        )
    return path


def check_machine(directory: Path) -> None:
    """Check what the jailer needs of the machine; `directory` is where jails will be.

    Raises:
        InfrastructureError: something is missing; the text says how to mend it.
    """
    if not KVM.exists():
        raise InfrastructureError(
            f"{KVM} does not exist: Firecracker needs hardware virtualisation; use a machine that"
            ' has it, enable nesting on its host, or use runtime = "qemu"',
            reason="no-kvm",
        )
    if os.geteuid() != 0:
        raise InfrastructureError(
            "the jailer makes a chroot and changes its user, which only root may; run the worker as"
            ' root (each VMM gets its own unprivileged uid), or use runtime = "qemu"',
            reason="not-root",
        )
    existing = next(p for p in (directory, *directory.parents) if p.exists())
    flags = os.statvfs(existing).f_flag
    for flag, name in ((os.ST_NODEV, "nodev"), (os.ST_NOEXEC, "noexec")):
        if flags & flag:
            raise InfrastructureError(
                f"{existing} is mounted {name}: the jail's device nodes and program would not work;"
                " point HPCC_DIR at another file system",
                reason="jail-mount",
            )
