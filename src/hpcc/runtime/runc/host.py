"""What a container needs of the host: its root's layers, its groups, the socket to its agent."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import signal
import socket
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.core import InfrastructureError
from hpcc.runtime.containerd.client import RootMount
from hpcc.runtime.host.tools import ToolError
from hpcc.runtime.runc.spec import CGROUP_PARENT, MOUNT_POINTS
from hpcc.wire.container import CONTAINER_LINK

_EROFS_AT: Final = 1024
_EROFS_MAGIC: Final = bytes.fromhex("e2e1f5e0")
_SQUASHFS_MAGIC: Final = b"hsqs"
_HEAD_BYTES: Final = 2048
# Of every layer: what lies below does not pass it on to an overlay.
_PLAIN: Final = ("nosuid", "nodev")
# What the holder of a group may write: linux, cgroup v2 "Delegation", and its like in version 1.
_V2_DELEGATED: Final = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")
_V1_DELEGATED: Final = ("cgroup.procs", "tasks")
_CONTROLLERS: Final = ("memory", "pids")
_FILE_SYSTEMS: Final = ("overlay", "erofs")
_CREDENTIALS: Final = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class GuestPlaces:
    """A guest's directory on the host."""

    directory: Path

    @property
    def upper(self) -> Path:
        return self.directory / "upper"

    @property
    def work(self) -> Path:
        return self.directory / "work"

    @property
    def link(self) -> Path:
        return self.directory / "link"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    def make(self) -> None:
        """Make the directories, and the mount points in the upper layer."""
        points = [self.upper / name for name in MOUNT_POINTS]
        for path in (self.upper, self.work, self.link, *points):
            path.mkdir(parents=True)
        # Whatever the umask: the container's root is nobody to these, and must get through.
        for path in (self.upper, self.link, *self.upper.rglob("*")):
            path.chmod(0o755)
        os.mkfifo(self.log, 0o600)


def rootfs(places: GuestPlaces, image: Path, drive: Path, *, by_loop: bool) -> list[RootMount]:
    """Return the mounts that the shim makes a root of, in its own place, in order.

    The image; over it the mount points; in it the agent's drive. Both images are files that the
    kernel reads in place: nothing is unpacked or imported. `lowerdir` is relative because the shim
    works in its bundle, whose `rootfs` the image was just mounted on.

    Raises:
        ToolError: a file is no such image.
    """
    layers = f"upperdir={places.upper}", f"workdir={places.work}"
    return [
        _image_mount(image, "", by_loop=by_loop),
        RootMount(kind="overlay", source="overlay", options=("lowerdir=rootfs", *layers, *_PLAIN)),
        _image_mount(drive, ".hpcc", by_loop=by_loop),
    ]


def _image_mount(image: Path, target: str, *, by_loop: bool) -> RootMount:
    with image.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    options = ["ro", *_PLAIN]
    if head.startswith(_SQUASHFS_MAGIC):
        kind, by_loop = "squashfs", True
    elif head[_EROFS_AT:].startswith(_EROFS_MAGIC):
        kind = "erofs"
    else:
        raise ToolError(f"{image} is no erofs or squashfs image", reason="no-image")
    options += ["loop"] if by_loop else []
    return RootMount(kind=kind, source=str(image), target=target, options=tuple(options))


def groups_of_container(pid: int, container_id: str) -> list[Path]:
    """Return those of a container's process that were made for it, and no other.

    Where runc has put the process into none of some hierarchy it is in its shim's group there.
    """
    return [group for group in cgroups_of(pid) if group.name == container_id]


def cgroups_of(pid: int) -> list[Path]:
    """Return the process's groups that can be limited: one in version 2, else one a controller."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    found: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        wanted = set(controllers.split(",")) & set(_CONTROLLERS)
        mount = _mount_of(mounts, wanted or None)
        if (wanted or not controllers) and mount is not None:
            found.append(Path(mount, path.lstrip("/")))
    return found


def _mount_of(mounts: list[str], controllers: set[str] | None) -> str | None:
    for line in mounts:
        _, place, kind, options, *_ = line.split(" ")
        if controllers is None and kind == "cgroup2":
            return place
        if controllers is not None and kind == "cgroup" and controllers & set(options.split(",")):
            return place
    return None


def delegate(groups: list[Path], uid: int) -> None:
    """Let the container's root make groups below its own; the limits of its own stay the host's."""
    for group in groups:
        names = _V2_DELEGATED if (group / "cgroup.controllers").exists() else _V1_DELEGATED
        os.chown(group, uid, uid)
        for name in names:
            os.chown(group / name, uid, uid)


def _parents() -> list[Path]:
    places = [
        line.split(" ")[1]
        for line in Path("/proc/self/mounts").read_text().splitlines()
        if line.split(" ")[2] in {"cgroup", "cgroup2"}
    ]
    return [p for place in places if (p := Path(place, CGROUP_PARENT)).is_dir()]


def remove_groups(container_id: str) -> None:
    """Remove what runc left of a dead container's groups, and their parents where empty."""
    for parent in _parents():
        if (parent / container_id).is_dir():
            for directory, _, _ in os.walk(parent / container_id, topdown=False):
                with suppress(OSError):
                    Path(directory).rmdir()
        with suppress(OSError):
            parent.rmdir()


class AgentSocket:
    """The socket that one container's agent connects to, once."""

    def __init__(self, places: GuestPlaces, first_uid: int) -> None:
        self._path = places.link / Path(CONTAINER_LINK).name
        self._first_uid = first_uid
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # By a path that is short enough whatever the directory's own is.
        directory = os.open(places.link, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._listener.bind(f"/proc/self/fd/{directory}/{self._path.name}")
        finally:
            os.close(directory)
        self._path.chmod(0o666)  # its directory is the host's root's alone
        self._listener.listen(1)
        self._listener.settimeout(0)

    async def accept(self) -> socket.socket:
        """Wait for the agent; without a deadline. The socket is closed and its name gone then.

        Raises:
            InfrastructureError: another than the container's root connected.
        """
        connection, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        self.close()
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        uid = _CREDENTIALS.unpack(raw)[1]
        if uid != self._first_uid:
            connection.close()
            raise InfrastructureError(f"uid {uid} is not the container's root", reason="peer")
        return connection

    def close(self) -> None:
        self._listener.close()
        self._path.unlink(missing_ok=True)


class PidHandle:
    """One process, which stays that one: a number may be used again."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    def kill(self) -> None:
        with suppress(ProcessLookupError, OSError):
            signal.pidfd_send_signal(self._fd, signal.SIGKILL)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def daemon_of(address: Path, *, owner: int = 0) -> Path:
    """Return the program that listens on the socket, by a name that an upgrade does not change.

    Raises:
        ToolError: nobody does, it may not be asked, or its uid is not `owner`.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(address))
        except PermissionError as error:
            raise ToolError(f"{address} may not be opened: {_ROOT}", reason="not-root") from error
        except OSError as error:
            raise ToolError(
                f"containerd does not listen on {address} ({error.strerror}); try: apt-get install"
                " containerd runc && systemctl start containerd",
                reason="no-containerd",
            ) from error
        raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    if uid != owner:
        # It says which process is a guest's, and this worker kills and limits that as root.
        raise ToolError(f"who listens on {address} is uid {uid}, not {owner}", reason="unsafe-tool")
    program = Path(f"/proc/{pid}/exe")
    if not program.exists():
        raise ToolError(
            f"who listens on {address} is not to be seen from here; run the worker in the same PID"
            " namespace as containerd",
            reason="no-containerd",
        )
    return program


_ROOT: Final = "run the worker as root, which containers need, or use another runtime"


def check_machine(runc: str) -> Path:
    """Check what containers need of the machine; returns where runc is.

    Raises:
        InfrastructureError: something is missing; the text says how to mend it.
    """
    if os.geteuid() != 0:
        raise InfrastructureError(f"containers are started by root; {_ROOT}", reason="not-root")
    found = shutil.which(runc)
    if found is None:
        raise ToolError("runc is not installed; try: apt-get install runc", reason="tool-missing")
    program = Path(found).resolve()
    status = program.stat()
    if status.st_uid != 0 or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ToolError(
            f"{program} can be changed by others than root, and would run as root;"
            f" try: chown root:root {program} && chmod 755 {program}",
            reason="unsafe-tool",
        )
    if missing := [name for name in _FILE_SYSTEMS if not has_file_system(name)]:
        raise InfrastructureError(
            f"this kernel has no file system {' and '.join(missing)}; use a distribution's kernel,"
            " with its modules installed",
            reason="no-file-system",
        )
    if not _limit_of_user_namespaces():
        raise InfrastructureError(
            "user namespaces are off; try: sysctl user.max_user_namespaces=65536",
            reason="no-user-namespaces",
        )
    if missing := _missing_controllers():
        raise InfrastructureError(
            f"no cgroup controller for {' and '.join(missing)}: a compile would have no limit; boot"
            " with cgroup v2 (systemd.unified_cgroup_hierarchy=1), outside of another container",
            reason="no-cgroups",
        )
    return program


def has_file_system(name: str) -> bool:
    """Say whether the kernel has it, or a module for it that a mount would load."""
    if name in Path("/proc/filesystems").read_text().split():
        return True
    modules = Path("/lib/modules", platform.release())
    for listing in ("modules.dep", "modules.builtin"):
        with suppress(OSError):
            if f"/{name}.ko" in (modules / listing).read_text():
                return True
    return False


def _limit_of_user_namespaces() -> int:
    try:
        return int(Path("/proc/sys/user/max_user_namespaces").read_text())
    except (OSError, ValueError):
        return 0


def _missing_controllers() -> list[str]:
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    there: set[str] = set()
    if (place := _mount_of(mounts, None)) is not None:
        with suppress(OSError):
            there |= set(Path(place, "cgroup.controllers").read_text().split())
    return [c for c in _CONTROLLERS if c not in there and _mount_of(mounts, {c}) is None]
