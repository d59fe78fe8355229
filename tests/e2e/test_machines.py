"""The packages serve on machines with systemd: a scheduler's and a worker's, set up by hand.

The steps are those of docs/operate.md, "A farm on several machines", with the embedded database.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpcc import __version__
from hpcc.audit.signer.place import SIGNER_UID
from hpcc.wire.helper import FIRST_ID, IDS
from hpcc_testkit.farm.booted import THERE, BootedMachine, own_network
from hpcc_testkit.farm.estate import ProviderThread
from hpcc_testkit.farm.machine import Machine
from hpcc_testkit.operate.set_up import log_in_at, start_scheduler, start_worker

_DROP_IN = Path(__file__).parents[2] / "deploy/systemd/hpcc-worker-root.conf"
pytestmark = [pytest.mark.vm, pytest.mark.nightly, pytest.mark.timeout(1500)]
_USER = "hpcc-worker"


# Much of the compiler, and little memory.
_SLOW = """
template <int N> constexpr long slow() {
    long sum = N;
    for (long i = 0; i < 500; ++i)
        for (long j = 0; j < 500; ++j)
            sum += i ^ j;
    return sum;
}
constexpr long values[] = {PARTS};
long NAME() { return values[0]; }
"""
# linux/capability.h.
_CAPABILITIES = {
    "CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_FOWNER": 3, "CAP_KILL": 5, "CAP_SETGID": 6,
    "CAP_SETUID": 7, "CAP_SETPCAP": 8, "CAP_SYS_CHROOT": 18, "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21, "CAP_SYS_RESOURCE": 24, "CAP_MKNOD": 27,
}  # fmt: skip
# Names and effective and permitted rights of what has a guest's id.
_RIGHTS_OF_GUESTS = f"""
exec 2>/dev/null
for process in /proc/[0-9]*; do
    uid=$(stat -c %u $process)
    [ "$uid" -ge {FIRST_ID} ] && [ "$uid" -lt {FIRST_ID + IDS} ] &&
        echo $(cat $process/comm | tr " " _) $(sed -n "s/^Cap[EP][fr][fm]:\t//p" $process/status)
done
true
"""
# A process may end meanwhile.
_VMMS = """
exec 2>/dev/null
for process in /proc/[0-9]*; do
    case $(cat $process/comm) in firecracker*|qemu-system*)
        group=$(sed -n s/^0:://p $process/cgroup)
        echo $(stat -c %u $process) $group $(cat /sys/fs/cgroup$group/memory.max || echo none) ;;
    esac
done
"""
# A service that starts and ends more slowly than its unit allows, and one whose event loop hangs.
_SERVICE = """
import asyncio, sys, time
from pathlib import Path
from hpcc.rpc.base.process import run_service
async def main(process):
    is_slow = sys.argv[1] == "slow"
    process.health.end_seconds = 30
    await asyncio.sleep(25 * is_slow)
    process.ready({})
    await asyncio.sleep(1)
    is_slow or time.sleep(600)
    try:
        await asyncio.sleep(600)
    finally:
        await asyncio.sleep(8)
raise SystemExit(run_service("t", main, Path("/dev/null")))
"""
_UNIT = """[Service]
Type=notify
TimeoutStartSec=20
TimeoutStopSec=4
WatchdogSec=4
ExecStart=/usr/lib/hpcc/bin/python -B /service.py %N
"""
# Half a second: an idle guest does not use as much.
_AT_WORK_TICKS = 50


@dataclass(frozen=True, slots=True)
class Farm:
    """A scheduler's and a worker's machine, and somebody who has logged in."""

    scheduler: BootedMachine
    worker: BootedMachine
    person: Machine

    def compile(self, name: str, text: str) -> None:
        """Compile in the project of the person; the build must end with an object."""
        (self.person.root / name).write_text(text)
        self.person.run(["hpcc", "gcc", "-c", name])
        assert (self.person.root / name.replace(".c", ".o")).exists()

    def executed(self) -> int:
        """Return how many compiles of the person the farm has made so far."""
        return self.person.counters().get("miss.remote.executed", 0)

    def compile_until_executed(self, name: str) -> None:
        """Compile new texts until the farm makes one; those before it are made here."""
        before, deadline = self.executed(), time.monotonic() + 300
        for number in itertools.count():
            self.compile(f"{name}{number}.c", f"int {name}{number};\n")
            if self.executed() > before:
                return
            assert time.monotonic() < deadline, self.worker.journal("hpcc-worker")[-4000:]
            time.sleep(1)

    @contextmanager
    def slow_compile(self, name: str, parts: int = 2) -> Iterator[subprocess.Popen[str]]:
        """Start a compile of some seconds; the block runs when a guest is at work on it.

        Each part is half a second of the compiler, and five in an emulated guest.
        """
        source = self.person.root / f"{name}.cc"
        calls = ", ".join(f"slow<{number}>()" for number in range(parts))
        source.write_text(_SLOW.replace("NAME", name).replace("PARTS", calls))
        before = _guests_ticks(self.worker)
        argv = ["hpcc", "g++", "-c", source.name]
        with self.person.spawn(argv, cwd=self.person.root) as compile_:
            deadline = time.monotonic() + 120
            while _guests_ticks(self.worker) < before + _AT_WORK_TICKS:
                assert compile_.poll() is None, "the compile was over too soon for this test"
                assert time.monotonic() < deadline, "no guest is at work"
                time.sleep(0.1)
            yield compile_
            said, _ = compile_.communicate(timeout=300)
        assert (compile_.returncode, said) == (0, "")
        assert source.with_suffix(".o").stat().st_size > 0


@pytest.fixture(scope="module")
def farm(
    tmp_path_factory: pytest.TempPathFactory,
    machines_base: Path,
    shared_cache: Path,
    toolchain: str,
) -> Iterator[Farm]:
    directory = tmp_path_factory.mktemp("machines")
    with own_network(), ProviderThread() as provider:
        scheduler = BootedMachine(directory, machines_base, "s1", cable=False)
        worker = BootedMachine(directory, machines_base, "w1", cable=True)
        person = Machine(directory / "ann", shared_cache)
        (person.root / ".hpcc").touch()
        try:
            scheduler.boot()
            worker.boot("/dev/kvm", "/dev/net/tun", "/dev/userfaultfd")
            started = start_scheduler(scheduler, provider.issuer, toolchain)
            start_worker(worker, started, THERE, shared_cache, max_guests=2, memory_mib=2048)
            log_in_at(started, person, provider)
            yield Farm(scheduler, worker, person)
        finally:
            person.close()
            for machine in (worker, scheduler):
                machine.close()


def _guests(worker: BootedMachine) -> list[int]:
    """Return the processor time of each of the machine's VMMs, in hundredths of a second."""
    found = []
    for stat in worker.run("sh", "-c", "cat /proc/[0-9]*/stat; true").splitlines():
        name, _, rest = stat.partition("(")[2].rpartition(")")
        if name.startswith(("firecracker", "qemu-system")):
            found.append(sum(map(int, rest.split()[11:13])))
    return found


def _guests_ticks(worker: BootedMachine) -> int:
    return sum(_guests(worker))


def _user_of(worker: BootedMachine) -> str:
    pid = worker.run("systemctl", "show", "-P", "MainPID", "hpcc-worker").strip()
    return worker.run("stat", "-c", "%U", f"/proc/{pid}").strip()


def _confined(worker: BootedMachine) -> list[tuple[int, str, str]]:
    """Return the uid, the cgroup and its limit of memory for each of the machine's VMMs."""
    lines = worker.run("sh", "-c", _VMMS).splitlines()
    return [(int(uid), group, limit) for uid, group, limit in (line.split() for line in lines)]


def test_a_farm_of_the_shipped_units_compiles(farm: Farm) -> None:
    farm.compile("first.c", "int first;\n")
    assert farm.executed() == 1, farm.worker.journal("hpcc-worker")[-4000:]
    farm.compile_until_executed("warm")
    # The unit leaves the worker all that QEMU's jail needs.
    assert "without a jail" not in farm.worker.journal("hpcc-worker")
    for machine, unit, said in (
        (farm.worker, "hpcc-worker", "places: "),
        (farm.scheduler, "hpcc-scheduler", "workers: 1 live"),
    ):
        assert said in machine.run("systemctl", "show", "-P", "StatusText", unit)
        assert machine.run("systemctl", "is-active", unit) == "active\n", "systemd heard READY=1"


def test_a_worker_without_rights_has_guests_with_own_ids_and_limits(farm: Farm) -> None:
    farm.compile_until_executed("confined")
    assert _user_of(farm.worker) == _USER
    vmms = _confined(farm.worker)
    assert vmms
    assert len({uid for uid, _, _ in vmms}) == len(vmms)
    assert all(FIRST_ID <= uid < FIRST_ID + IDS for uid, _, _ in vmms)
    unit = "/system.slice/hpcc-worker.service"
    if "memory" in farm.worker.run("cat", "/sys/fs/cgroup/cgroup.controllers").split():
        assert all(group.startswith(f"{unit}/hpcc/") for _, group, _ in vmms)
        assert all(limit.isdecimal() for _, _, limit in vmms)
    else:  # version 1 has them on this host; test_worker_helper_unified.py has the limits
        assert {group for _, group, _ in vmms} == {f"{unit}/worker"}


def test_a_worker_that_is_stopped_lets_its_compiles_finish(farm: Farm) -> None:
    # Without a guest that is warm, the worker is stopped while one boots, and nothing runs in it.
    farm.compile_until_executed("ready")
    before = farm.executed()
    with farm.slow_compile("drained"):
        farm.worker.run("systemctl", "stop", "hpcc-worker")
    assert farm.executed() == before + 1, farm.worker.journal("hpcc-worker")[-4000:]
    assert farm.worker.run("systemctl", "show", "-P", "Result", "hpcc-worker") == "success\n"
    assert "SIGKILL" not in farm.worker.journal("hpcc-worker")
    assert _guests(farm.worker) == []
    farm.worker.run("systemctl", "start", "hpcc-worker")
    farm.compile_until_executed("again")


def test_a_worker_that_is_restarted_cuts_none_of_its_compiles(farm: Farm) -> None:
    farm.compile_until_executed("ready_again")
    before = farm.executed()
    with farm.slow_compile("left", parts=4), farm.slow_compile("right", parts=4):
        farm.worker.run("systemctl", "restart", "hpcc-worker")
    assert farm.executed() == before + 2, farm.worker.journal("hpcc-worker")[-4000:]
    farm.compile_until_executed("restarted")


def test_a_worker_that_is_killed_costs_no_build_and_comes_back(farm: Farm) -> None:
    with farm.slow_compile("killed"):
        # The next guest needs ids, and so a helper that has come back as well.
        farm.worker.run("systemctl", "kill", "-s", "KILL", "hpcc-helper")
        farm.worker.run("systemctl", "kill", "--kill-whom=main", "-s", "KILL", "hpcc-worker")
    farm.compile_until_executed("back")
    restarts = farm.worker.run("systemctl", "show", "-P", "NRestarts", "hpcc-worker")
    assert int(restarts) >= 1


def test_a_scheduler_that_is_restarted_costs_no_build(farm: Farm) -> None:
    with farm.slow_compile("meanwhile"):
        farm.scheduler.run("systemctl", "restart", "hpcc-scheduler")
    farm.compile_until_executed("after")
    assert farm.scheduler.run("systemctl", "is-active", "hpcc-scheduler") == "active\n"


def test_systemd_waits_for_a_slow_service_and_ends_one_that_hangs(farm: Farm) -> None:
    machine = farm.scheduler
    (machine.root / "service.py").write_text(_SERVICE)
    for name in ("slow", "hang"):
        (machine.root / f"etc/systemd/system/{name}.service").write_text(_UNIT)
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "start", name)
    machine.run("systemctl", "stop", "slow")
    assert machine.run("systemctl", "show", "-P", "Result", "slow") == "success\n"
    deadline = time.monotonic() + 120
    while machine.run("systemctl", "is-active", "hang", check=False) != "failed\n":
        assert time.monotonic() < deadline, machine.journal("hang")
        time.sleep(0.5)
    assert machine.run("systemctl", "show", "-P", "Result", "hang") == "watchdog\n"
    # Where the loop hung.
    assert 'File "/service.py", line 11 in main' in machine.journal("hang")


def _upgrade(machine: BootedMachine) -> str:
    return machine.run("sh", "-c", "dpkg -i /next/*.deb")


def test_an_upgrade_of_the_packages_cuts_no_compile_and_keeps_settings(farm: Farm) -> None:
    farm.compile_until_executed("old")
    before, config = farm.executed(), farm.worker.run("cat", "/etc/hpcc/worker/worker.json")
    with farm.slow_compile("upgraded"):
        said = _upgrade(farm.worker)
    assert farm.executed() == before + 1, farm.worker.journal("hpcc-worker")[-4000:]
    assert f"Setting up hpcc-worker ({__version__}-2)" in said
    assert farm.worker.run("cat", "/etc/hpcc/worker/worker.json") == config
    # It runs again, as the new one.
    farm.compile_until_executed("new")
    _upgrade(farm.scheduler)
    farm.compile_until_executed("both")
    for machine, unit in ((farm.worker, "hpcc-worker"), (farm.scheduler, "hpcc-scheduler")):
        assert machine.run("systemctl", "is-active", unit) == "active\n"
        # What did not run before does not run now.
        assert machine.run("systemctl", "is-active", "hpcc-gateway", check=False) == "inactive\n"
    assert "ImportError" not in farm.worker.journal("hpcc-worker")


def _status(worker: BootedMachine, pid: str) -> dict[str, str]:
    lines = worker.run("cat", f"/proc/{pid}/status").splitlines()
    return dict(line.split(":\t", 1) for line in lines)


def _check_worker_of_root(worker: BootedMachine) -> None:
    """Check what the drop-in gives: these capabilities, and guests with own ids and limits."""
    (line,) = (
        x for x in _DROP_IN.read_text().splitlines() if x.startswith("CapabilityBoundingSet")
    )
    wanted = sum(1 << _CAPABILITIES[name] for name in line.partition("=")[2].split())
    pid = worker.run("systemctl", "show", "-P", "MainPID", "hpcc-worker").strip()
    first, status = (_status(worker, process) for process in ("1", pid))
    # The machine's first process has what the machine can give.
    rights = wanted & int(first["CapBnd"], 16)
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == rights
    assert status["NoNewPrivs"].strip() == "1"
    vmms = _confined(worker)
    assert vmms
    assert len({uid for uid, _, _ in vmms}) == len(vmms)
    assert all(FIRST_ID <= uid < FIRST_ID + IDS for uid, _, _ in vmms)
    for line in worker.run("sh", "-c", _RIGHTS_OF_GUESTS).splitlines():
        name, *sets = line.split()
        assert {int(rights, 16) for rights in sets} == {0}, name
    controllers = worker.run("cat", "/sys/fs/cgroup/cgroup.controllers").split()
    if "memory" in controllers:
        assert all(group.startswith("/hpcc/") for _, group, _ in vmms)
        assert all(limit.isdecimal() for _, _, limit in vmms)


def test_a_worker_of_root_compiles_and_leaves_its_state_to_the_next_user(farm: Farm) -> None:
    worker, state = farm.worker, "/var/lib/hpcc-worker"
    directory = worker.root / "etc/systemd/system/hpcc-worker.service.d"
    directory.mkdir()
    shutil.copy(_DROP_IN, directory / "root.conf")
    for user in ("root", _USER):
        worker.run("systemctl", "stop", "hpcc-worker")
        worker.run("chown", "-R", f"{user}:", "/etc/hpcc/worker")
        worker.run("systemctl", "daemon-reload")
        worker.run("systemctl", "start", "hpcc-worker")
        farm.compile_until_executed(f"as_{user[:4]}")
        assert _user_of(worker) == user
        if user == "root":
            _check_worker_of_root(worker)
        guests_files = ["-uid", f"+{FIRST_ID - 1}"]
        foreign = worker.run(
            "find", state, "!", "-user", user, "!", *guests_files, "-printf", "%U %P\n"
        )
        # Beside root the signer has its own uid. Files that a worker of root left are the user's.
        signers = f"{SIGNER_UID} keys/audit-signing.signer" if user == "root" else "-"
        assert [x for x in foreign.splitlines() if not x.startswith(signers)] == []
        (directory / "root.conf").unlink(missing_ok=True)
