"""What a live VMM is and can reach, as the kernel shows it in /proc. One list for every backend."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_CAPABILITIES: Final = ("CapEff", "CapPrm", "CapInh", "CapAmb")
_NAMESPACES: Final = ("mnt", "net", "pid", "ipc", "uts", "user")
_DEVICES: Final = frozenset({"/dev/null", "/dev/urandom", "/dev/kvm"})
# Of these every machine has some. None may be below a VMM's root.
_NOT_FOR_VMMS: Final = ("etc/passwd", "etc/ssl", "home", "root", "var", "run", "sys", "proc", "tmp")
_V1_LIMITS: Final = {"memory": "memory.limit_in_bytes", "pids": "pids.max"}
_V2_LIMITS: Final = ("memory.max", "pids.max")


def unconfined(pid: int, *, may_hold: frozenset[str], shares: frozenset[str] = frozenset()) -> str:
    """Return what is not confined about a VMM, a line for each; "" if everything is.

    It may hold descriptors of files whose paths end in `may_hold`. `shares` are the namespaces that
    its backend leaves it of the host's.
    """
    return "\n".join([
        *_identity(pid), *_namespaces(pid, shares), *_addresses(pid), *_root(pid), *_groups(pid),
        *_descriptors(pid, may_hold), *_merged(pid),
    ])  # fmt: skip


def status_of(pid: int) -> dict[str, str]:
    """Return the fields of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _identity(pid: int) -> list[str]:
    status = status_of(pid)
    found = [f"capabilities {name}" for name in _CAPABILITIES if int(status[name], 16)]
    found += [] if status["NoNewPrivs"] == "1" else ["new privileges"]
    found += [] if status["Seccomp"] == "2" else ["no filter of system calls"]
    if min(int(uid) for uid in status["Uid"].split()) < 1_000_000_000:
        found.append(f"uid {status['Uid']}")
    return found


def _namespaces(pid: int, shares: frozenset[str]) -> list[str]:
    wanted = [name for name in _NAMESPACES if name not in shares]
    return [f"{n} namespace of the host" for n in wanted if _link(pid, n) == _link("self", n)]


def _link(pid: int | str, name: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{name}")


def _addresses(pid: int) -> list[str]:
    """Return the network devices, routes, addresses and nameless sockets that it has."""
    devices = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    names = {line.partition(":")[0].strip() for line in devices}
    routes = Path(f"/proc/{pid}/net/route").read_text().splitlines()[1:]
    addresses = Path(f"/proc/{pid}/net/if_inet6").read_text().splitlines()
    found = [f"device {name}" for name in names - {"lo"}]
    found += [f"route {route}" for route in routes]
    found += [f"address {address}" for address in addresses]
    # A name that begins with "@" belongs to the network namespace, and any other to a file.
    sockets = Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]
    return [*found, *(f"socket {line}" for line in sockets if " @" in line)]


def _root(pid: int) -> list[str]:
    root = Path(f"/proc/{pid}/root")
    seen = [f"/{name} below its root" for name in _NOT_FOR_VMMS if _has_content(root / name)]
    mounts = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    places = [line.split()[4] for line in mounts]
    return seen + [f"mount {p}" for p in places if p.startswith(("/proc", "/sys", "/run"))]


def _has_content(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def _groups(pid: int) -> list[str]:
    found = []
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    own = [line.split(":", 2)[1:] for line in lines if "hpcc" in line]
    limited = {controller for names, _ in own for controller in names.split(",")}
    unified = [path for names, path in own if not names]
    for controller, name in _V1_LIMITS.items():
        if not unified and controller not in limited:
            found.append(f"no limit of {controller} ({name})")
    for path in unified:
        group = Path("/sys/fs/cgroup") / path.lstrip("/")
        found += [f"no {n}" for n in _V2_LIMITS if (group / n).read_text().strip() == "max"]
        swap = group / "memory.swap.max"
        found += ["swap"] if swap.exists() and swap.read_text().strip() != "0" else []
    return found


def _descriptors(pid: int, may_hold: frozenset[str]) -> list[str]:
    found = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        target = os.readlink(f"/proc/{pid}/fd/{number}")
        is_private = target.startswith(("pipe:", "socket:", "anon_inode:", "/memfd:"))
        if not (is_private or target in _DEVICES or target.endswith(tuple(may_hold))):
            found.append(f"descriptor of {target}")
    return found


def _merged(pid: int) -> list[str]:
    """Return where the kernel may merge its pages with equal ones of others (KSM)."""
    found, at = [], ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, flags = line.partition(":")
        if name == "VmFlags" and "mg" in flags.split():
            found.append(f"mergeable memory at {at}")
        at = line if "-" in name else at
    return found
