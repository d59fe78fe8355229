"""A whole machine: a Debian with systemd as PID 1, in a container of systemd-nspawn.

Units, their sandboxing and `systemctl` do here what they do on a server. `base_root` makes the root
that machines share; `Network` is a network namespace that belongs to the thread; `BootedMachine` is
an overlay on the root.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hpcc_testkit.packages.built import ALL, Builder, built_wheel

# A small server, and what a worker's package recommends.
_PACKAGES: Final = (
    "systemd,systemd-sysv,dbus,iproute2",
    "python3,python3-venv,gcc,libc6-dev,musl-tools,ca-certificates",
    "qemu-system-x86,erofs-utils,mmdebstrap,dpkg-dev,apt-utils",
)
_SUITE: Final = "trixie"
_BRIDGE: Final = "hpcc0"
# The two ends of a machine's cable.
HERE: Final = "10.77.0.1"
THERE: Final = "10.77.0.2"
_BOOT_SECONDS: Final = 180.0
_POLL_SECONDS: Final = 0.1
_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}
# The host's tree of cgroups may be version 1; the machine gets version 2.
_BOOT: Final = """
umount -l /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p "/sys/fs/cgroup/$1"; echo $$ > "/sys/fs/cgroup/$1/cgroup.procs"
shift; exec "$@"
"""


def missing_or_none() -> str | None:
    """Return what this host lacks to boot machines, or None."""
    if os.geteuid() != 0:
        return "not root"
    for program in ("systemd-nspawn", "mmdebstrap", "ip"):
        if shutil.which(program) is None:
            return f"no {program}: tools/bootstrap.sh packages guest test"
    return None


def base_root(shared_cache: Path, directory: Path) -> Path:
    """Return a root with hpcc's packages, installed as an operator does.

    The distribution's part is kept in `shared_cache`; the rest is made below `directory`. The
    packages of the next revision are in /next, for upgrades.
    """
    archive = distribution(shared_cache)
    root, made = directory / "base", directory / "packages"
    root.mkdir(parents=True)
    _run("tar", "xf", str(archive), "-C", str(root))
    made.mkdir()
    builder = Builder(built_wheel(made))
    files = builder.build(root / "packages", "deb", ALL)
    _run("chroot", str(root), "dpkg", "-i", *(f"/packages/{file.name}" for file in files))
    shutil.rmtree(root / "packages")
    builder.build(root / "next", "deb", ALL, revision=2)
    return root


def distribution(shared_cache: Path, packages: tuple[str, ...] = _PACKAGES) -> Path:
    """Return an archive of a root with the distribution's packages; the cache keeps it."""
    name = hashlib.sha256(repr((_SUITE, packages)).encode()).hexdigest()[:16]
    archive = shared_cache / "machines" / f"{name}.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        new = archive.with_name(f"{os.getpid()}.tar")
        include = ",".join(packages)
        _run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={include}", _SUITE, str(new))
        new.rename(archive)
    return archive


def _run(*argv: str, timeout: float = 600) -> str:
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=timeout, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{argv} -> {done.returncode}\n{done.stdout[-4000:]}"
    return done.stdout


@contextmanager
def own_network() -> Iterator[None]:
    """Give the calling thread, and what it starts meanwhile, an empty network with a loopback."""
    descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        os.unshare(os.CLONE_NEWNET)
        try:
            _run("ip", "link", "set", "lo", "up")
            yield
        finally:
            os.setns(descriptor, os.CLONE_NEWNET)
    finally:
        os.close(descriptor)


def make_bridge() -> None:
    """Make the bridge of the calling thread's network, for machines with addresses."""
    _run("ip", "link", "add", _BRIDGE, "type", "bridge")
    _run("ip", "link", "set", _BRIDGE, "up")


class BootedMachine:
    """One machine on the network of the thread that boots it; `close` ends it.

    With a `cable` it has an own network, and a cable with the address `10.77.0.2` there and
    `10.77.0.1` here. With an `address` it has an own network on the thread's bridge. Without either
    it uses the thread's network.
    """

    def __init__(
        self, directory: Path, base: Path, name: str, *, cable: bool = False, address: str = ""
    ) -> None:
        self.name, self.address, self._has_cable = name, address, cable
        self.root = directory / name / "root"
        self.log = directory / name / "console.log"
        upper, work = directory / name / "upper", directory / name / "work"
        for path in (self.root, upper, work):
            path.mkdir(parents=True)
        options = f"lowerdir={base},upperdir={upper},workdir={work}"
        _run("mount", "-t", "overlay", "overlay", "-o", options, str(self.root))
        (self.root / "etc/hostname").write_text(f"{name}\n")
        self._process: subprocess.Popen[bytes] | None = None

    def boot(self, *devices: str) -> None:
        """Start the machine and wait for systemd; it gets those of the devices that exist here."""
        group = f"hpcc-machine-{self.name}-{os.getpid()}"
        argv = [
            "unshare", "-m", "bash", "-euc", _BOOT, "_", group,
            "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot",
            f"--machine={self.name}", f"--directory={self.root}", "--resolv-conf=off",
            *(["--network-veth"] if self._has_cable else []),
            *([f"--network-bridge={_BRIDGE}"] if self.address else []),
            *(f"--bind={d}" for d in devices if Path(d).exists()),
        ]  # fmt: skip
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._wait_for("its init", lambda: self._leader() is not None)
        if self._has_cable:
            end = f"ve-{self.name}"
            self._wait_for("its network", lambda: _tries("ip", "link", "set", end, "up"))
            _run("ip", "address", "add", f"{HERE}/24", "dev", end)
        if own := THERE if self._has_cable else self.address:
            self.run("ip", "address", "add", f"{own}/24", "dev", "host0")
            self.run("ip", "link", "set", "host0", "up")
        self._wait_for("its services", lambda: self._state() in ("running", "degraded"))

    def run(self, *argv: str, check: bool = True, timeout: float = 300) -> str:
        """Run a command in the machine as root; return what it prints."""
        with self.spawn(*argv) as process:
            try:
                said, _ = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        done = subprocess.CompletedProcess(argv, process.returncode, said)
        if check and done.returncode:
            raise AssertionError(f"{self.name}: {argv} -> {done.returncode}\n{done.stdout}")
        return done.stdout

    def spawn(self, *argv: str) -> subprocess.Popen[str]:
        """Start a command in the machine as root; its output is one stream."""
        entered = ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", "-C", *argv]
        return subprocess.Popen(
            entered, env=_ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip

    @property
    def pid(self) -> int:
        """Return the process of the machine's init, as this host numbers it."""
        leader = self._leader()
        assert leader is not None, f"{self.name} does not run:\n{self.log.read_text()[-3000:]}"
        return leader

    def processor_seconds(self) -> float:
        """Return what its services have used since it was booted, of all processors."""
        text = Path(f"/proc/{self.pid}/root/sys/fs/cgroup/cpu.stat").read_text()
        facts = dict(line.split() for line in text.splitlines())
        return int(facts["usage_usec"]) / 1e6

    def write(self, path: str, text: str, *, owner: str = "root") -> None:
        """Write a private file, as `install -m 600 -o OWNER` does. Parents must exist."""
        target = self.root / path.removeprefix("/")
        target.touch(0o600)
        target.write_text(text)
        self.run("chown", f"{owner}:", path)

    def journal(self, unit: str) -> str:
        return self.run("journalctl", "--no-pager", "-o", "cat", "-u", unit)

    def start(self, unit: str, *, until: str, seconds: float = 180) -> None:
        """Enable and start a unit as an operator does; wait until its journal has a text."""
        self.run("systemctl", "enable", unit)
        # It would return when the unit serves: the wait below ends with what the journal says.
        self.run("systemctl", "start", "--no-block", unit)
        try:
            self._wait_for(f"{until!r} of {unit}", lambda: until in self.journal(unit), seconds)
        except AssertionError as error:
            status = self.run("systemctl", "status", "--no-pager", unit, check=False)
            raise AssertionError(f"{error}\n{status}\n{self.journal(unit)[-3000:]}") from None

    def close(self) -> None:
        """End the machine and unmount its root; idempotent."""
        process, self._process = self._process, None
        if process is not None:
            leader = _child(process.pid)
            if leader is not None:
                os.kill(leader, signal.SIGRTMIN + 4)  # systemd: power off
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if os.path.ismount(self.root):
            _run("umount", str(self.root))

    def _leader(self) -> int | None:
        return _child(self._process.pid) if self._process is not None else None

    def _state(self) -> str:
        return self.run("systemctl", "is-system-running", check=False).strip()

    def _wait_for(
        self, what: str, is_there: Callable[[], bool], seconds: float = _BOOT_SECONDS
    ) -> None:
        deadline = time.monotonic() + seconds
        while not is_there():
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name}: no {what}\n{self.log.read_text()[-3000:]}")
            time.sleep(_POLL_SECONDS)


def _tries(*argv: str) -> bool:
    return subprocess.run(argv, capture_output=True, check=False, timeout=30).returncode == 0


def _child(pid: int) -> int | None:
    """Return the init of the machine that this systemd-nspawn runs; None before it exists."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    for child in map(int, children):
        try:
            name = Path(f"/proc/{child}/comm").read_text().strip()
        except OSError:
            continue
        if name in ("systemd", "init"):
            return child
    return None
