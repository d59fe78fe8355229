"""The OCI specifications of a guest's container and of its agent. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.runtime.runc.seccomp import seccomp_profile
from hpcc.wire.container import (
    CONTAINER_LINK_DIRECTORY,
    CONTAINER_MEMORY_VARIABLE,
    CONTAINER_PIDS_VARIABLE,
    CONTAINER_TOKEN_VARIABLE,
)
from hpcc.wire.helper import FIRST_ID, IDS

# Not 0: with 0 the host's handler of crashes would still start (core(5), pipes).
_CORE_BYTES: Final = 1
# The number of ids in a guest's user namespace. The agent needs 260,000.
UIDS: Final = 1 << 18
# The first of these ranges follows the ids of VMMs and wardens. The last ends below 2,147,352,576:
# systemd uses some ids from there on, and old interfaces read one over 2^31 as negative (ADR 58).
FIRST_UID: Final = FIRST_ID + IDS
RANGES: Final = 527
CGROUP_PARENT: Final = "hpcc"
# Directories that the container's root must have. Where the image has none, they are created in the
# upper layer.
MOUNT_POINTS: Final = ("proc", "dev", "sys", "run", "tmp", "var/tmp", "src", "out", ".hpcc")
_PIDS: Final = 4096
# What a compile gets (init.c), and what every Linux allows.
_FILES: Final = 4096
_PERIOD_US: Final = 100_000
_MIB: Final = 1 << 20
# The share of the container's memory that the agent's blobs and staged trees may take, as in a VM.
_RUN_PERCENT: Final = 70
# Not the value that protects the shim. A compile has a higher one, so it is killed before the
# agent.
_OOM_SCORE: Final = 0
# They hold only in the container's own user namespace. The agent needs them to make sandboxes
# (SYS_ADMIN), own staged files, read outputs of any mode, become a compile's uid and kill it.
_AGENT_CAPABILITIES: Final = (
    "CAP_SYS_ADMIN", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETUID",
    "CAP_SETGID",
)  # fmt: skip
_MASKED: Final = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
    "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
    "/proc/timer_stats",
)  # fmt: skip
_READ_ONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_NAMESPACES: Final = ("pid", "ipc", "uts", "mount", "network", "user", "cgroup")
PAUSE: Final = ("/.hpcc/bin/hpcc-init", "pause")
_AGENT: Final = (
    "/.hpcc/lib/hpcc-ld.so", "--inhibit-cache", "--library-path", "/.hpcc/lib",
    "--argv0", "/.hpcc/bin/python3", "/.hpcc/bin/python3", "-I", "-S", "-B", "-u", "-X", "utf8",
    "-c",
    "import sys;sys.path.append('/.hpcc/site');"
    "from hpcc.agent.linux.container import main_in_container as m;m()",
)  # fmt: skip


def uid_range(number: int) -> int:
    """Return the first host id of the user namespace with this number, which is below RANGES."""
    return FIRST_UID + number % RANGES * UIDS


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerPlan:
    """One guest's container. `link` is the host directory of the agent's socket."""

    container_id: str
    first_uid: int
    memory_mib: int
    vcpus: int
    link: Path

    @property
    def spec(self) -> dict[str, object]:
        """The container as JSON values. Its first process only keeps it alive."""
        ids = [{"containerID": 0, "hostID": self.first_uid, "size": UIDS}]
        memory_bytes = self.memory_mib * _MIB
        return {
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs", "readonly": True},
            "hostname": "hpcc",
            "process": _process(PAUSE, {}, ()),
            "mounts": self._mounts(),
            "linux": {
                "cgroupsPath": f"/{CGROUP_PARENT}/{self.container_id}",
                "uidMappings": ids,
                "gidMappings": ids,
                "namespaces": [{"type": kind} for kind in _NAMESPACES],
                "resources": {
                    "devices": [{"allow": False, "access": "rwm"}],
                    "memory": {"limit": memory_bytes, "swap": memory_bytes},
                    "pids": {"limit": _PIDS},
                    "cpu": {"quota": self.vcpus * _PERIOD_US, "period": _PERIOD_US},
                },
                "seccomp": seccomp_profile(),
                "maskedPaths": list(_MASKED),
                "readonlyPaths": list(_READ_ONLY),
            },
        }

    def agent(self, token: str) -> dict[str, object]:
        """Return the agent's process as JSON values."""
        variables = {
            CONTAINER_TOKEN_VARIABLE: token,
            CONTAINER_MEMORY_VARIABLE: str(self.memory_mib * _MIB),
            CONTAINER_PIDS_VARIABLE: str(_PIDS),
        }
        return _process(_AGENT, variables, _AGENT_CAPABILITIES)

    def _mounts(self) -> list[dict[str, object]]:
        none = ("nosuid", "noexec", "nodev")
        run_bytes = self.memory_mib * _MIB * _RUN_PERCENT // 100
        return [
            _mount("/proc", "proc", "proc", *none),
            _mount("/dev", "tmpfs", "tmpfs", "nosuid", "noexec", "mode=755", "size=64k"),
            _mount("/sys", "tmpfs", "tmpfs", *none, "mode=755", "size=64k"),
            _mount("/sys/fs/cgroup", "cgroup", "cgroup", *none),
            _mount("/run", "tmpfs", "tmpfs", "nosuid", "nodev", "mode=711", f"size={run_bytes}"),
            _mount(CONTAINER_LINK_DIRECTORY, "bind", str(self.link), "bind", "ro", *none),
        ]


def _mount(destination: str, kind: str, source: str, *options: str) -> dict[str, object]:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def _process(
    argv: tuple[str, ...], variables: dict[str, str], capabilities: tuple[str, ...]
) -> dict[str, object]:
    env = {"PATH": "/usr/bin:/bin", "HOME": "/", "LANG": "C.UTF-8", **variables}
    return {
        "args": list(argv),
        "cwd": "/",
        "env": [f"{name}={value}" for name, value in env.items()],
        "user": {"uid": 0, "gid": 0, "umask": 0o22},
        "noNewPrivileges": True,
        "capabilities": {
            kind: list(capabilities) for kind in ("bounding", "effective", "permitted")
        },
        "oomScoreAdj": _OOM_SCORE,
        "rlimits": [
            {"type": kind, "hard": most, "soft": most}
            for kind, most in (
                ("RLIMIT_NOFILE", _FILES),
                ("RLIMIT_NPROC", _PIDS),
                ("RLIMIT_CORE", _CORE_BYTES),
            )
        ],
    }
