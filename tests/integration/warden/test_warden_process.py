"""The warden as a process: forbidden calls, the effect of its death, and what it leaves behind."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from hpcc._proto import agent_pb2 as pb
from hpcc.core import ResultEvent
from hpcc.ports import GuestLostError
from hpcc.runtime.channel.channel import ChannelTiming, GuestChannel
from hpcc.runtime.channel.warden import Zygote, warden_trouble
from hpcc.runtime.channel.warden_launch import warden_label
from hpcc.warden.sandbox import ADDRESS_SPACE_BYTES
from hpcc_testkit.guests import warden_probe as probe
from hpcc_testkit.guests.guest_contract import MemoryBlobs, request
from hpcc_testkit.guests.scripted_guest import scripted_guest

SECONDS = 20
REQUEST = request("cc", outputs=("o",))
IMPATIENT = ChannelTiming(warden_ping_seconds=0.5, warden_missed_pings=8)


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def hard_limits(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    columns = [re.split(r" {2,}", line) for line in lines]
    return {name.removeprefix("Max "): hard for name, _, hard, *_ in columns}


def is_alive(pid: int) -> bool:
    try:
        return status(pid)["State"][:1] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until_gone(*pids: int) -> None:
    async with asyncio.timeout(SECONDS):
        while any(map(is_alive, pids)):  # noqa: ASYNC110 - of no child of this process
            await asyncio.sleep(0.02)


@pytest.fixture
def zygote() -> Iterator[Zygote]:
    zygote = Zygote()
    yield zygote
    zygote.close()


async def honest(stream: Any) -> None:
    await stream.recv_message()
    await stream.send_message(pb.ServerFrame(need=pb.Need()))
    while await stream.recv_message() is not None:
        pass
    await stream.send_message(pb.ServerFrame(result=pb.Result(reason=pb.Result.REASON_ENDED)))


async def endless(stream: Any) -> None:
    await stream.recv_message()
    await stream.send_message(pb.ServerFrame(need=pb.Need()))
    await asyncio.Event().wait()


async def compile_once(channel: GuestChannel) -> ResultEvent:
    (event,) = [e async for e in channel.exec(REQUEST, MemoryBlobs())]
    assert isinstance(event, ResultEvent)
    return event


@asynccontextmanager
async def two_guests(
    zygote: Zygote, timing: ChannelTiming
) -> AsyncIterator[tuple[GuestChannel, GuestChannel]]:
    """Yield two guests: one in the middle of a compile, and a neighbour."""
    async with AsyncExitStack() as stack, asyncio.timeout(2 * SECONDS):
        # First, so that the impatient one does not wait for the zygote.
        other = await stack.enter_async_context(scripted_guest(honest, launch=zygote.launch))
        victim = await stack.enter_async_context(
            scripted_guest(endless, launch=zygote.launch, timing=timing)
        )
        assert 0 not in {victim.warden_pid, other.warden_pid}
        yield victim, other


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGKILL, "warden-died"),
        (signal.SIGSEGV, "warden-died"),
        (signal.SIGSYS, "warden-seccomp"),
        (signal.SIGXCPU, "warden-cpu"),
        (signal.SIGSTOP, "warden-silent"),
    ],
)
async def test_a_warden_killed_or_hung_costs_exactly_one_guest(
    zygote: Zygote, number: signal.Signals, reason: str
) -> None:
    timing = IMPATIENT if number == signal.SIGSTOP else ChannelTiming()
    async with two_guests(zygote, timing) as (victim, other):
        running = asyncio.get_running_loop().create_task(compile_once(victim))
        await asyncio.sleep(0.1)
        os.kill(victim.warden_pid, number)
        with pytest.raises(GuestLostError) as caught:
            await running
        assert caught.value.reason == reason
        assert (await victim.lost).startswith(reason)
        victim.close()
        await until_gone(victim.warden_pid)
        assert not other.lost.done()
        assert (await compile_once(other)).exit_code == 0
        async with scripted_guest(honest, launch=zygote.launch) as third:
            assert (await compile_once(third)).exit_code == 0


async def test_closing_the_channel_ends_a_warden_that_does_not_listen(zygote: Zygote) -> None:
    async with scripted_guest(honest, launch=zygote.launch) as channel:
        os.kill(channel.warden_pid, signal.SIGSTOP)
        channel.close()
        await until_gone(channel.warden_pid)


async def test_a_zygote_that_died_is_replaced(zygote: Zygote) -> None:
    async with scripted_guest(honest, launch=zygote.launch) as first:
        old, warden = zygote.pid, first.warden_pid
        os.kill(old, signal.SIGKILL)
        async with asyncio.timeout(SECONDS):
            assert (await first.lost).startswith("warden-died")
        await until_gone(warden)
    async with scripted_guest(honest, launch=zygote.launch) as second:
        assert zygote.pid not in {0, old}
        assert (await compile_once(second)).exit_code == 0


def launch_until_refused(zygote: Zygote, guest: socket.socket, stack: ExitStack) -> None:
    for _ in range(5000):
        stack.callback(zygote.launch(guest).close)


async def test_a_zygote_that_is_overrun_costs_no_other_guest(zygote: Zygote) -> None:
    guest, guest_end = socket.socketpair()
    with ExitStack() as stack, guest, guest_end:
        async with scripted_guest(honest, launch=zygote.launch) as channel:
            old = zygote.pid
            os.kill(old, signal.SIGSTOP)
            stack.callback(os.kill, old, signal.SIGCONT)
            with pytest.raises((GuestLostError, OSError)):
                launch_until_refused(zygote, guest, stack)
            stack.close()
            assert zygote.pid == old
            assert (await compile_once(channel)).exit_code == 0


async def test_what_a_warden_has_and_is(zygote: Zygote) -> None:
    async with (
        scripted_guest(honest, launch=zygote.launch) as channel,
        scripted_guest(honest, launch=zygote.launch) as other,
    ):
        pid = channel.warden_pid
        if os.geteuid() == 0:
            fds = sorted(
                os.readlink(f.path).partition(":")[0] for f in os.scandir(f"/proc/{pid}/fd")
            )
            # Epoll, the guest's stream, the worker's.
            assert fds == ["anon_inode", "socket", "socket"]
            assert environment(pid) == b""
        else:
            with pytest.raises(PermissionError):
                os.listdir(f"/proc/{pid}/fd")
        facts = status(pid)
        assert (facts["NoNewPrivs"], facts["Seccomp"], facts["Threads"]) == ("1", "2", "1")
        assert int(facts["CapEff"], 16) == int(facts["CapPrm"], 16) == 0
        # Not dumpable: what /proc has of it is root's.
        assert os.stat(f"/proc/{pid}/mem").st_uid == 0
        none = dict.fromkeys(
            ("file size", "core file size", "processes", "open files", "locked memory"), "0"
        )
        limits = hard_limits(pid)
        expected = {"address space": str(ADDRESS_SPACE_BYTES)} | none
        assert {name: limits[name] for name in expected} == expected
        assert os.getsid(pid) != os.getsid(0)
        uids = {facts["Uid"], status(other.warden_pid)["Uid"], status(os.getpid())["Uid"]}
        assert len(uids) == {"own-uid": 3, "shared-uid": 2, "same-uid": 1}[warden_label()]
        if warden_label() != "same-uid":
            assert facts["Groups"].strip() == ""


@pytest.fixture(scope="module")
def prober() -> Iterator[Zygote]:
    zygote = Zygote(Path(probe.__file__))
    yield zygote
    zygote.close()


def attempt(prober: Zygote, name: str) -> tuple[str, int]:
    """Make a warden run the attempt; return its report and its wait status."""
    guest, guest_end = socket.socketpair()
    with guest, guest_end:
        ends = prober.launch(guest)
    with ends.stream as stream, ends.line as line:
        stream.settimeout(SECONDS)
        line.settimeout(SECONDS)
        stream.send(name.encode())
        said = stream.recv(1000).decode()
        line.recv(64)  # its pid
        return said, int.from_bytes(line.recv(64), sys.byteorder, signed=True)


@pytest.mark.parametrize("name", [n for n in probe.ATTEMPTS if n != "nothing"])
def test_a_warden_that_is_taken_over_gets_nowhere(prober: Zygote, name: str) -> None:
    if name == "call of another ABI" and platform.machine() != "x86_64":
        pytest.skip("only x86-64 has one")
    said, how = attempt(prober, name)
    assert (said, os.WIFSIGNALED(how), os.WTERMSIG(how)) == ("", True, signal.SIGSYS)


def test_a_warden_that_tries_nothing_lives(prober: Zygote) -> None:
    assert attempt(prober, "nothing") == ("returned 'done'", 0)


WORKER = """
import asyncio, sys
from hpcc_testkit.guests.scripted_guest import scripted_guest
from hpcc.runtime.channel.warden import process_zygote
async def script(stream): pass
async def main():
    async with scripted_guest(script) as channel:
        print(process_zygote().pid, channel.warden_pid, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.parametrize("stopped", ["nobody", "warden", "zygote"])
async def test_a_killed_worker_takes_zygote_and_wardens_along(stopped: str) -> None:
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, stdout=subprocess.PIPE, env=os.environ
    )
    assert worker.stdout is not None
    zygote, warden = map(int, (await worker.stdout.readline()).split())
    assert is_alive(zygote)
    assert is_alive(warden)
    if stopped != "nobody":
        os.kill(warden if stopped == "warden" else zygote, signal.SIGSTOP)
    worker.kill()
    await worker.communicate()
    try:
        await until_gone(zygote, warden)
    finally:
        for pid in (zygote, warden):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def test_wardens_know_no_secret_of_the_worker(
    zygote: Zygote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPCC_TEST_SECRET", "swordfish")
    async with scripted_guest(honest, launch=zygote.launch):
        assert environment(zygote.pid) == b""
        fds = [os.readlink(f.path) for f in os.scandir(f"/proc/{zygote.pid}/fd")]
        files = {name for name in fds if name.startswith("/")}
        assert not {n for n in files if n != "/dev/null" and not _is_stderr(n)}


def _is_stderr(name: str) -> bool:
    return name == os.readlink("/proc/self/fd/2")


def test_a_trial_says_whether_wardens_work_here(zygote: Zygote, tmp_path: Path) -> None:
    assert warden_trouble(zygote) == ""
    broken = Zygote(tmp_path / "absent.py")
    assert "zygote ended" in warden_trouble(broken) or "not answer" in warden_trouble(broken)
    broken.close()
