"""The compared compile farms on one machine: distcc, icecream, and hpcc with a container as guest.

A fair comparison needs this:

- Everything runs in a private network namespace, so the bytes on its loopback device are those of
  the compared farms. All compile with the same compiler, the one of hpcc's image.
- No farm compiles on the client: distcc's fallback is off, icecream's local daemon takes no job,
  hpcc's fallback is "never".
- Servers have compiled something before a measurement starts. icecream has received its
  environment, hpcc's guest is booted.
- The CPU of a compile is that of the client's processes and of all servers, with the compiler's.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from _measure import BenchError, own_seconds, run, tree_seconds

from hpcc_testkit.farm.machine import HPCC, Machine
from hpcc_testkit.guests.containerd_daemon import ContainerdDaemon, containerd_daemon

# Not a loopback address: icecream takes those for "this machine".
ADDRESS: Final = "10.9.0.1"
_NETWORK: Final = "icecc-bench"
_SCHEDULER_PORT: Final = 8765
_FIRST_PORT: Final = 4100
_START_SECONDS: Final = 30.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")
INSTALL: Final = "apt-get install distcc icecc, or --peers DIR with both packages unpacked"
SETTINGS: Final = """
[worker]
runtime = "process"
containerd = "{}"
max_guests = 1
[remote]
fallback = "never"
"""


class Peer:
    """One compile farm and its client's command; a subclass starts the servers."""

    name: str
    env: Mapping[str, str]
    wrapper: Sequence[str]

    def __init__(self) -> None:
        self._stack = ExitStack()

    def argv(self, compiler: str, arguments: Sequence[str]) -> list[str]:
        return [*self.wrapper, compiler, *arguments]

    def seconds(self) -> dict[str, float]:
        """Return the CPU of each kind of server so far."""
        return {}

    def close(self) -> None:
        self._stack.close()

    def _server(self, argv: Sequence[str], env: Mapping[str, str], log: Path) -> int:
        """Start a server that ends with the bench; return its id."""
        with log.open("ab") as out:
            child = subprocess.Popen(
                argv, env=dict(env), stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

        def end() -> None:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

        self._stack.callback(end)
        return child.pid


class Bare(Peer):
    """The compiler without a farm."""

    name = "bare"

    def __init__(self, env: Mapping[str, str]) -> None:
        super().__init__()
        self.env, self.wrapper = env, ()


class Distcc(Peer):
    """distcc's plain mode: the client preprocesses. One server for each worker, of so many jobs."""

    name = "distcc"

    def __init__(
        self, programs: Programs, directory: Path, *, workers: int, jobs: int, limit: int
    ) -> None:
        super().__init__()
        directory.mkdir()
        self._servers = []
        for number in range(workers):
            argv = [
                programs.path("distccd"), "--no-detach", "--daemon", "--listen", ADDRESS,
                "--port", str(_FIRST_PORT + number), "--allow", f"{ADDRESS}/24",
                "--jobs", str(jobs),
                "--user", "nobody", "--enable-tcp-insecure", "--log-stderr",
                "--log-level", "warning",
            ]  # fmt: skip
            env = {**programs.env, "TMPDIR": "/tmp"}
            self._servers.append(self._server(argv, env, directory / f"server-{number}.log"))
        hosts = [f"{ADDRESS}:{_FIRST_PORT + n}/{limit}" for n in range(workers)]
        self.env = {
            **programs.env,
            "DISTCC_HOSTS": " ".join(hosts),
            "DISTCC_FALLBACK": "0",
            "DISTCC_DIR": str(directory),
        }
        self.wrapper = (programs.path("distcc"),)
        time.sleep(1)

    def seconds(self) -> dict[str, float]:
        return {"server": sum(map(tree_seconds, self._servers))}


class Icecream(Peer):
    """icecream: a scheduler, the client's daemon without places, a daemon for each worker."""

    name = "icecream"

    def __init__(
        self, programs: Programs, directory: Path, environment: Path, *, workers: int, jobs: int
    ) -> None:
        super().__init__()
        directory.mkdir()
        directory.chmod(0o755)
        env = programs.env
        scheduler = self._server(
            [programs.path("icecc-scheduler"), "-p", str(_SCHEDULER_PORT), "-n", _NETWORK],
            env, directory / "scheduler.log",
        )  # fmt: skip
        self._servers = [scheduler]
        time.sleep(1)
        for number in range(workers + 1):
            is_client = number == 0
            base = directory / f"daemon-{number}"
            base.mkdir()
            os.chown(base, pwd.getpwnam("nobody").pw_uid, -1)
            argv = [
                programs.path("iceccd"), "-s", f"{ADDRESS}:{_SCHEDULER_PORT}", "-n", _NETWORK,
                "-b", str(base), "-p", str(_FIRST_PORT + 100 + number), "-N", f"node{number}",
                "-u", "nobody", "--nice", "0", "-m", "0" if is_client else str(jobs),
                *(["--no-remote"] if is_client else []),
            ]  # fmt: skip
            private = {"ICECC_TEST_SOCKET": str(base / "socket")}
            self._servers.append(
                self._server(argv, {**env, **private}, directory / f"daemon-{number}.log")
            )
        self.env = {
            **env,
            "ICECC_TEST_SOCKET": str(directory / "daemon-0/socket"),
            "ICECC_VERSION": str(environment),
            "ICECC_CARET_WORKAROUND": "0",
        }
        self.wrapper = (programs.path("icecc"),)
        self._wait(workers + 1)

    def _wait(self, count: int) -> None:
        """Wait until the scheduler knows all daemons; it lists them on its second port."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with socket.create_connection((ADDRESS, _SCHEDULER_PORT + 1), 5) as console:
                console.sendall(b"listcs\nquit\n")
                text = console.makefile().read()
            if all(f" node{number} " in text for number in range(count)):
                return
            if time.monotonic() > deadline:
                self.close()
                raise BenchError(f"icecream has no daemons: {text}")
            time.sleep(0.2)

    def seconds(self) -> dict[str, float]:
        scheduler, client, *workers = map(tree_seconds, self._servers)
        return {"client's daemon": client, "server": sum(workers), "scheduler": scheduler}


class Hpcc(Peer):
    """hpcc with one container as guest, as `hpcc up` starts it."""

    name = "hpcc"

    def __init__(self, directory: Path, cache: Path) -> None:
        super().__init__()
        self._containerd: ContainerdDaemon = self._stack.enter_context(containerd_daemon())
        self._machine = Machine(directory, cache)
        self._stack.callback(self._machine.close)
        settings = self._machine.directory / "config/hpcc.toml"
        settings.parent.mkdir(parents=True)
        settings.write_text(SETTINGS.format(self._containerd.socket))
        self.isolation = "process/runc"
        if f"isolation: {self.isolation}" not in self._machine.hpcc("up").stdout:
            raise BenchError("hpcc is not up with containers")
        self.env = self._machine.env
        self.wrapper = (str(HPCC),)

    def counts(self) -> dict[str, int]:
        return self._machine.counters()

    def seconds(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for pid in self._machine.processes():
            kind, own = _kind(pid), own_seconds(pid)
            if kind == "worker":
                found["warden"] = tree_seconds(pid) - own
            elif kind != "warden":
                own += _waited_seconds(pid)
            found[kind] = found.get(kind, 0.0) + own
        shims = [p for p in _processes() if _is_shim(p, str(self._containerd.socket))]
        found["guest"] = sum(map(tree_seconds, shims))
        return found


class Programs:
    """Where distcc's and icecream's programs are: installed, or below a directory."""

    def __init__(self, directory: Path | None) -> None:
        path = os.environ.get("PATH", "/usr/bin:/bin")
        self.env = {"PATH": f"{path}:/usr/sbin", "HOME": "/"}
        if directory is not None:
            folders = [directory / "usr/bin", directory / "usr/sbin"]
            self.env["PATH"] = ":".join([*map(str, folders), path])
            self.env["LD_LIBRARY_PATH"] = str(directory / "usr/lib/x86_64-linux-gnu")

    def path(self, name: str) -> str:
        """Return a program's path.

        Raises:
            BenchError: it is not installed.
        """
        found = shutil.which(name, path=self.env["PATH"])
        if found is None:
            raise BenchError(f"{name} is not installed: {INSTALL}")
        return found

    def environment(self, directory: Path, compiler: str, stub: Path | None = None) -> Path:
        """Return icecream's archive of a compiler; `stub` takes the compiler's place in it."""
        directory.mkdir()
        compilers = [shutil.which(compiler) or compiler, shutil.which("g++") or "g++"]
        run([self.path("icecc-create-env"), *compilers], self.env, directory)
        (made,) = directory.glob("*.tar.*")
        if stub is None:
            return made
        tree = directory / "tree"
        with tarfile.open(made) as archive:
            archive.extractall(tree, filter="fully_trusted")
        for name in ("usr/bin/gcc", f"usr/bin/{compiler}"):
            with suppress(FileNotFoundError):
                (tree / name).unlink()
            shutil.copy2(stub, tree / name)
        changed = directory / "stub.tar.gz"
        with tarfile.open(changed, "w:gz") as archive:
            archive.add(tree, ".")
        return changed


def lo_bytes() -> int:
    """Return the bytes that the loopback device has received: everything that was sent."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, fields = line.partition(":")
        if name.strip() == "lo":
            return int(fields.split()[0])
    raise BenchError("no loopback device")


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _words(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (OSError, UnicodeDecodeError):
        return ""


def _is_shim(pid: int, socket: str) -> bool:
    words = _words(pid)
    return "containerd-shim" in words and socket in words


def _kind(pid: int) -> str:
    words = _words(pid)
    kinds = ("dispatch", "warden", "worker", "scheduler", "supervise")
    return next(
        (kind for kind in kinds if f"hpcc.{kind}" in words or f".{kind}" in words), "daemon"
    )


def _waited_seconds(pid: int) -> float:
    """Return the CPU of the children that a process has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[13]) + int(fields[14])) / _TICKS
