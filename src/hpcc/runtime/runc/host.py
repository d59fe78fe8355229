"""What a container needs from the host: the layers of its root, its cgroups, its agent's socket."""

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
# On every layer, because an overlay does not inherit these options from the mounts below it.
_PLAIN: Final = ("nosuid", "nodev")
# The files of a cgroup that its holder may write: Linux, cgroup v2 "Delegation", and the same for
# version 1.
_V2_DELEGATED: Final = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")
_V1_DELEGATED: Final = ("cgroup.procs", "tasks")
_CONTROLLERS: Final = ("memory", "pids")
_FILE_SYSTEMS: Final = ("overlay", "erofs")
_CREDENTIALS: Final = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class GuestPlaces:
    """Paths in a guest's directory on the host."""

    directory: Path

    @property
    def upper(self) -> Path:
        """The upper layer of the root's overlay."""
        return self.directory / "upper"

    @property
    def work(self) -> Path:
        """The overlay's work directory."""
        return self.directory / "work"

    @property
    def link(self) -> Path:
        """The directory of the socket that the agent connects to."""
        return self.directory / "link"

    @property
    def log(self) -> Path:
        """The FIFO that the agent writes its output to."""
        return self.directory / "log"

    def make(self) -> None:
        """Create the directories and the FIFO, with the mount points in the upper layer."""
        points = [self.upper / name for name in MOUNT_POINTS]
        for path in (self.upper, self.work, self.link, *points):
            path.mkdir(parents=True)
        # Regardless of the umask: the container's root has no special rights here and must get
        # through.
        for path in (self.upper, self.link, *self.upper.rglob("*")):
            path.chmod(0o755)
        os.mkfifo(self.log, 0o600)


def rootfs(places: GuestPlaces, image: Path, drive: Path, *, by_loop: bool) -> list[RootMount]:
    """Return the mounts that the shim makes the container's root from, in order.

    First the image, over it the mount points, in it the agent's drive. The kernel reads both images
    in place: nothing is unpacked or imported. `lowerdir` is relative, because the shim works in its
    bundle, and the first mount is on the bundle's `rootfs`.

    Raises:
        ToolError: a file is neither an erofs nor a squashfs image.
        OSError: a file cannot be read.
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
        raise ToolError(f"{image} is neither an erofs nor a squashfs image", reason="no-image")
    options += ["loop"] if by_loop else []
    return RootMount(kind=kind, source=str(image), target=target, options=tuple(options))


def groups_of_container(pid: int, container_id: str) -> list[Path]:
    """Return the cgroups of a container's process that were made for the container.

    In a hierarchy where runc made no cgroup, the process is in its shim's cgroup, which is left
    out.
    """
    return [group for group in cgroups_of(pid) if group.name == container_id]


def cgroups_of(pid: int) -> list[Path]:
    """Return the process's cgroups with limits: one in version 2, else one per controller."""
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
    """Let the container's root create cgroups below its own, whose limits stay the host's."""
    for group in groups:
        names = _V2_DELEGATED if (group / "cgroup.controllers").exists() else _V1_DELEGATED
        os.chown(group, uid, uid)
        for name in names:
            os.chown(group / name, uid, uid)


def groups_left(container_id: str) -> list[Path]:
    """Return the cgroups of that name that still exist, in every hierarchy."""
    return [p for p in _parents() if (p / container_id).is_dir()]


def _parents() -> list[Path]:
    places = [
        line.split(" ")[1]
        for line in Path("/proc/self/mounts").read_text().splitlines()
        if line.split(" ")[2] in {"cgroup", "cgroup2"}
    ]
    return [p for place in places if (p := Path(place, CGROUP_PARENT)).is_dir()]


def remove_groups(container_id: str) -> None:
    """Remove the cgroups that runc left of a dead container, and their parents if empty."""
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
        # Through a descriptor, because the directory's own path may be too long for a socket
        # address.
        directory = os.open(places.link, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._listener.bind(f"/proc/self/fd/{directory}/{self._path.name}")
        finally:
            os.close(directory)
        self._path.chmod(0o666)  # only the host's root can reach its directory
        self._listener.listen(1)
        self._listener.settimeout(0)

    async def accept(self) -> socket.socket:
        """Wait, without a deadline, for the agent; the listener and its name are gone afterwards.

        Raises:
            InfrastructureError: the peer is not the container's root.
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
        """Close the listener and remove its name; idempotent."""
        self._listener.close()
        self._path.unlink(missing_ok=True)


class PidHandle:
    """One process by descriptor, because the kernel may reuse its number."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    def kill(self) -> None:
        """Kill the process unless it is already gone."""
        with suppress(ProcessLookupError, OSError):
            signal.pidfd_send_signal(self._fd, signal.SIGKILL)

    def close(self) -> None:
        """Close the descriptor; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def daemon_of(address: Path, *, owner: int = 0) -> Path:
    """Return the program that listens on the socket, as `/proc/PID/exe`.

    That name stays valid if an upgrade replaces the program's file.

    Raises:
        ToolError: nothing listens, this user may not connect, or the listener's uid is not `owner`.
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
        # containerd reports which process is a guest's, and this worker kills and limits it as
        # root.
        raise ToolError(
            f"the process that listens on {address} has uid {uid}, not {owner}",
            reason="unsafe-tool",
        )
    program = Path(f"/proc/{pid}/exe")
    if not program.exists():
        raise ToolError(
            f"the process that listens on {address} cannot be seen from here; run the worker in the"
            " same PID namespace as containerd",
            reason="no-containerd",
        )
    return program


_ROOT: Final = "run the worker as root, which containers need, or use another runtime"


def check_machine(runc: str) -> Path:
    """Check what containers need from the machine; returns runc's path.

    Raises:
        InfrastructureError: something is missing; the text names the remedy.
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
    """Return whether the kernel has the file system, or a module that a mount would load."""
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
