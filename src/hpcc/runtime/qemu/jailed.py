"""Makes QEMU's jail from inside and becomes QEMU. Runs as a script, with the standard library only.

`unshare` starts it as PID 1 of new PID, mount, network, IPC and UTS namespaces. It mounts what QEMU
opens below a new root, makes that the root, gives up its rights and executes QEMU. `jail` makes its
one argument, a plan in JSON. It fails with a text on stderr and status 78; nothing is left to undo,
because the mounts end with their namespace.
"""

# ruff: noqa: PTH103, PTH115, PTH118, PTH120 - pathlib takes as long to import as all of this
from __future__ import annotations

import ctypes
import json
import os
import platform
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

EXIT_NO_JAIL: Final = 78
# linux/mount.h; the first six have the same values in statvfs's flags.
_MS_RDONLY: Final = 1
_MS_NOSUID: Final = 2
_MS_NODEV: Final = 4
_MS_NOEXEC: Final = 8
_MS_NOATIME: Final = 1024
_MS_NODIRATIME: Final = 2048
_MS_REMOUNT: Final = 32
_MS_BIND: Final = 4096
_MNT_DETACH: Final = 2
# A bind mount keeps these of its source.
_KEPT: Final = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC | _MS_NOATIME | _MS_NODIRATIME
_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41}
# linux/prctl.h
_PR_SET_PDEATHSIG: Final = 1
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
# linux/capability.h
_CAPABILITY_VERSION_3: Final = 0x20080522
_LAST_CAPABILITY: Final = 63
_ROOT_OPTIONS: Final = b"size=1m,mode=755"
_HOST_NAME: Final = "vmm"
_HELPER_SECONDS: Final = 20.0

_libc = ctypes.CDLL(None, use_errno=True)


def main(plan: Mapping[str, Any]) -> None:
    """Make the jail of a plan (see `jail.JailPlan`) and become its program.

    Raises:
        OSError: a step failed.
    """
    # QEMU's uid has to get through the root's directories, whatever the worker's mask is.
    os.umask(0o022)
    # /proc still shows the host's numbers.
    number = os.readlink("/proc/self")
    if plan["helper"]:
        _get_ids(*plan["helper"])
    for group in plan["groups"]:
        _write(os.path.join(group, "cgroup.procs"), "0")
    with suppress(OSError):  # forbidden by systemd's ProtectHostname, and hides little
        socket.sethostname(_HOST_NAME)
    _make_root(plan)
    _become(plan, number)
    with os.fdopen(plan["status_fd"], "w") as status:
        status.write(number)
    os.execve(plan["argv"][0], plan["argv"], plan["env"])  # noqa: S606 - no shell is wanted


def _get_ids(helper: str, request: str) -> None:
    """Ask the worker's helper for the ids of QEMU. This process is root in its user namespace."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(_HELPER_SECONDS)
        connection.connect(helper)
        connection.send(bytes.fromhex(request))
        if connection.recv(1) != b"\0":
            raise OSError("the worker's helper gave no ids")


def _make_root(plan: Mapping[str, Any]) -> None:
    root = plan["root"]
    _mount("tmpfs", root, b"tmpfs", _MS_NOSUID | _MS_NODEV, _ROOT_OPTIONS)
    for source, target, kind in plan["files"]:
        if kind == "write" and plan["helper"]:
            os.chown(source, plan["uid"], -1)  # the worker may not; QEMU opens the file by name
        _bind(source, root + target, kind)
    process_dir = os.open("/proc/self/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.chdir(root)
    _checked("pivot_root", _libc.syscall(_PIVOT_ROOT[platform.machine()], b".", b"."))
    _checked("umount", _libc.umount2(b".", _MNT_DETACH))
    os.chdir("/")
    flags = _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV
    _mount("none", "/", None, flags, None)
    plan["process_dir"] = process_dir  # type: ignore[index]  # a dict that nobody else has


def _bind(source: str, target: str, kind: str) -> None:
    """Mount a file; `kind` is "read", "write" or "device"."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))
    _mount(source, target, None, _MS_BIND, None)
    flags = os.statvfs(source).f_flag & _KEPT | _MS_REMOUNT | _MS_BIND | _MS_NOSUID
    if kind != "device":
        flags |= _MS_NODEV
    if kind == "read":
        flags |= _MS_RDONLY
    _mount("none", target, None, flags, None)


def _become(plan: Mapping[str, Any], number: str) -> None:
    """Give up every right of this process."""
    if plan["uid"] is not None:
        _enter_user_namespace(plan)
        os.setgroups(plan["extra_groups"])
        os.setresgid(plan["uid"], plan["uid"], plan["uid"])
        os.setresuid(plan["uid"], plan["uid"], plan["uid"])
    for capability in range(_LAST_CAPABILITY + 1):
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # the kernel has fewer
    _drop_capabilities()
    # The change of uid has cleared it. If the parent has ended before, its process group is killed.
    _checked("prctl", _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    _checked("prctl", _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _drop_capabilities() -> None:
    """Empty all sets: a user namespace gives all capabilities in it, also to be inherited."""
    _checked("prctl", _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _checked("capset", _libc.capset(header, (ctypes.c_uint32 * 6)()))


def _enter_user_namespace(plan: Mapping[str, Any]) -> None:
    """Enter a user namespace that has QEMU's uid and groups, and nobody else's.

    Only a process outside may write its maps: a child that stays outside does.
    """
    theirs, ours = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        os._exit(_write_maps(plan, theirs))
    os.close(theirs)
    os.unshare(os.CLONE_NEWUSER)
    os.write(ours, b"1")
    os.close(ours)
    if os.waitpid(child, 0)[1] != 0:
        raise OSError("no uid map was written")


def _write_maps(plan: Mapping[str, Any], entered: int) -> int:
    if os.read(entered, 1) != b"1":
        return 1
    groups = sorted({plan["uid"], *plan["extra_groups"]})
    maps = {"uid_map": [plan["uid"]], "gid_map": groups}
    try:
        for name, ids in maps.items():
            text = "".join(f"{number} {number} 1\n" for number in ids)
            fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=plan["process_dir"])
            os.write(fd, text.encode())
            os.close(fd)
    except OSError:
        return 1
    return 0


def _mount(source: str, target: str, kind: bytes | None, flags: int, data: bytes | None) -> None:
    result = _libc.mount(
        os.fsencode(source), os.fsencode(target), kind, ctypes.c_ulong(flags), data
    )
    _checked(f"mount {target}", result)


def _checked(what: str, result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except OSError as problem:
        sys.stderr.write(f"QEMU's jail: {problem}\n")
    sys.exit(EXIT_NO_JAIL)
