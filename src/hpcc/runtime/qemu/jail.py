"""QEMU's jail: what it may open, and the command that starts it there.

The problem: a VMM that a guest took over is a process of the host. As an unprivileged user without
capabilities it could still read the host's files, reach the worker and the network, and see other
processes. Firecracker's jailer takes that away. QEMU has no jailer, so this is one.

In the jail QEMU is PID 1 in private PID, mount, network, IPC, UTS and user namespaces. Its root
holds, read-only, its program, its libraries, its firmware and its guest's files, and nothing else.
No network device but an unused `lo` is there. Cgroups limit its memory, swap and processes.

An example: a worker runs as root. `unshare` makes the namespaces and dies with the worker. Its
child, `jailed`, is root in them, builds the root, becomes the VMM's uid and executes QEMU.

A worker of another user gets the same with a private user namespace, where the kernel lets it: with
a separate uid if there is a helper (ADR 69), and with cgroups if systemd delegates some. Where it
does not, as in many containers, QEMU runs without a jail, with its own uid
if the worker is root, without new privileges and under its own filter of system calls. `hpcc
doctor` and the worker's log say so.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.core import InfrastructureError
from hpcc.runtime.host.tools import ToolError, run_tool
from hpcc.runtime.host.users import VMM_NUMBERS, VmmUser, vmm_user

# The firmware that a microvm with a kernel loads, below one of QEMU's directories.
_FIRMWARE: Final = ("bios-microvm.bin", "linuxboot_dma.bin", "pvh.bin", "kvmvapic.bin")
_DEVICES: Final = ("/dev/null", "/dev/urandom", "/dev/kvm")
_LIBRARY: Final = re.compile(r"(?:=> )?(/\S+) \(0x[0-9a-f]+\)$", re.M)
_SCRIPT: Final = str(Path(__file__).with_name("jailed.py"))
_ENV: Final = {"LC_ALL": "C"}
_ANSWER: Final = "QEMU emulator version"


@dataclass(frozen=True, slots=True)
class QemuJail:
    """What this machine's QEMU opens. `program` is its whole path."""

    program: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Jailing:
    """One VMM in its jail.

    `root` is its private directory. `guest_files` are its guest's: their places in
    the jail, their paths, and whether QEMU writes them. `groups` are its cgroups.
    """

    jail: QemuJail
    root: Path
    argv: Sequence[str]
    user: VmmUser
    guest_files: Sequence[tuple[str, Path, bool]] = ()
    groups: Sequence[Path] = ()
    status_fd: int


async def find_jail(program: str, directory: Path) -> QemuJail:
    """Return the jail of a program, after it has run once in it; `directory` is for guests.

    Raises:
        InfrastructureError: QEMU cannot be jailed here; the text says why.
    """
    path = shutil.which(program)
    if path is None:
        raise ToolError(f"{program} is not installed", reason="tool-missing")
    libraries = _LIBRARY.findall(await run_tool("ldd", path))
    jail = QemuJail(path, (path, *libraries, *await _firmware(path)))
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True, mode=0o700)
    number, (reader, writer) = VMM_NUMBERS.take(), os.pipe()
    try:
        with tempfile.TemporaryDirectory(dir=directory, prefix="jail-") as root:
            jailing = Jailing(
                jail=jail, root=Path(root), argv=[path, "--version"], user=vmm_user(number),
                status_fd=writer,
            )  # fmt: skip
            answer = await run_tool(*jail_argv(jailing), timeout_seconds=30.0, pass_fds=(writer,))
    finally:
        VMM_NUMBERS.give_back(number)
        os.close(reader)
        os.close(writer)
    if not answer.startswith(_ANSWER):
        raise InfrastructureError(f"QEMU in a jail answered {answer[:80]!r}", reason="no-jail")
    return jail


async def _firmware(program: str) -> list[str]:
    """Return the firmware files of a QEMU that exist, by its own list of directories."""
    places = (await run_tool(program, "-L", "help")).splitlines()
    found = [Path(place, name) for place in places for name in _FIRMWARE if place.startswith("/")]
    return [str(p) for p in found if p.is_file()]


def jail_argv(jailing: Jailing) -> list[str]:
    """Return the command line that starts QEMU in its jail.

    `unshare` dies with the worker, and its child with it. QEMU's user namespace has no other user;
    a worker that is not root needs one from the beginning.
    """
    user = jailing.user
    own = [] if user.uid is not None and user.maps is None else ["--user", "--keep-caps"]
    if user.uid is None:
        own += [f"--map-user={os.geteuid()}", f"--map-group={os.getegid()}"]
    plan = {
        "root": str(jailing.root),
        "files": _files(jailing),
        "helper": [user.maps.socket, user.maps.request.hex()] if user.maps else None,
        "uid": user.uid,
        "extra_groups": list(user.groups),
        "groups": [str(g) for g in jailing.groups],
        "status_fd": jailing.status_fd,
        "argv": [jailing.jail.program, *jailing.argv[1:]],
        "env": _ENV,
    }
    return [
        "setpriv", "--pdeathsig=KILL",
        "unshare", *own, "--pid", "--net", "--ipc", "--uts", "--mount", "--propagation", "private",
        "--fork", "--kill-child=KILL",
        sys.executable, "-I", "-S", "-B", _SCRIPT, json.dumps(plan),
    ]  # fmt: skip


def _files(jailing: Jailing) -> list[tuple[str, str, str]]:
    """Return what is mounted: source, place in the jail, and kind."""
    read = [(os.path.realpath(name), name, "read") for name in jailing.jail.files]
    guest = [
        (str(path.resolve()), place, "write" if writes else "read")
        for place, path, writes in jailing.guest_files
    ]
    devices = [(name, name, "device") for name in _DEVICES if Path(name).exists()]
    return [*dict.fromkeys(read), *guest, *devices]
