"""The agent's Windows machine with a stand-in for its stub: order, clean-up, hostile files."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest

from hpcc.agent.base.blobs import BlobCache
from hpcc.agent.base.ending import Output, OutputTreeError
from hpcc.agent.windows import tree
from hpcc.agent.windows.job import WindowsJob
from hpcc.agent.windows.machine import WindowsAgentConfig, WindowsMachine
from hpcc.agent.windows.main import listen, take_host
from hpcc.agent.windows.tree import clear, list_directories, open_outputs
from hpcc.core import Digest, ExecLimits
from hpcc.wire.link import NONCE_BYTES, TOKEN_BYTES, GuestLink, HostLink
from hpcc_testkit.guests.guest_contract import request

# What the stub does, as far as these tests go: its arguments up to "--", a program, a report.
_STUB = """
import sys
at = sys.argv.index("--")
report = sys.argv[sys.argv.index("--report") + 1]
code = 0
try:
    exec(sys.argv[at + 3])
except SystemExit as end:
    code = end.code
open(report, "x").write(f"done {code} 1 2 3")
"""


async def quiet(_: str, data: bytes) -> None:
    del data


def job(tmp_path: Path, program: str, **limits: float) -> WindowsJob:
    stub = tmp_path / "stub.py"
    stub.write_text(_STUB)
    values = {"wall_seconds": 60.0, "memory_bytes": 1 << 30, **limits}
    return WindowsJob(
        stub=[sys.executable, str(stub)], program=sys.executable, variables=dict(os.environ),
        request=request("x", "-c", program, limits=ExecLimits(**values)),
        cwd=str(tmp_path), report=str(tmp_path / "report"),
    )  # fmt: skip


async def test_a_job_ends_as_its_report_says_and_leaves_none(tmp_path: Path) -> None:
    ending = await job(tmp_path, "raise SystemExit(3)").run(quiet)
    assert (ending.status, ending.reason, ending.max_rss_bytes) == (3, "", 3)
    assert not (tmp_path / "report").exists()


async def test_a_job_that_writes_too_much_is_ended(tmp_path: Path) -> None:
    flood = "import sys\nwhile sys.stdout.write('x' * 9999): pass"
    ending = await job(tmp_path, flood, stdio_bytes=1000).run(quiet)
    assert ending.reason == "stdio-limit"


async def test_a_stub_that_keeps_no_deadline_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcc.agent.windows.job._LATE_SECONDS", 0.0)
    endless = job(tmp_path, "import time; time.sleep(600)", wall_seconds=0.01)
    ending = await endless.run(quiet)
    assert ending.reason == "deadline"


async def test_a_program_that_is_in_no_job_gives_the_guest_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcc.agent.windows.job._LATE_SECONDS", 0.0)
    monkeypatch.setattr("hpcc.agent.windows.job._END_SECONDS", 0.2)
    outlives = "import subprocess; subprocess.run(['sleep', '5'])"
    with pytest.raises(OSError, match="outlived"):
        await job(tmp_path, outlives, wall_seconds=1.0).run(quiet)


def machine(tmp_path: Path) -> WindowsMachine:
    (tmp_path / "work").mkdir()
    return WindowsMachine(
        WindowsAgentConfig(
            stub=("none",), variables={}, make_shared=os.mkdir, make_private=os.mkdir, directory=str(tmp_path / "work"),
            source=str(tmp_path / "src"), scratch=str(tmp_path / "out"), blob_budget_bytes=1,
            max_memory_bytes=1, max_pids=1,
        )
    )  # fmt: skip


async def test_each_exec_finds_an_empty_place_and_waits_for_the_one_before(tmp_path: Path) -> None:
    one = machine(tmp_path)
    blobs = BlobCache(str(tmp_path / "blobs"), 1)
    data = b"int x;"
    writer = blobs.receive(Digest.of(data))
    writer.write(data)
    writer.finish()
    seen: list[list[str]] = []

    async def exec_(number: int) -> None:
        req = request("cl", inputs=[("a/b.c", data)], outputs=("o/b.obj",), cwd="w")
        async with one.workplace(req, number) as place:
            await place.stage(blobs)
            seen.append(sorted(os.listdir(tmp_path / "src")))
            assert (tmp_path / "src/a/b.c").read_bytes() == data
            (tmp_path / "src/left").touch()
            (tmp_path / "out/left").touch()
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(exec_(number))
    assert seen == [["a", "o", "w"]] * 3
    assert not (tmp_path / "src").exists()
    assert os.listdir(tmp_path / "work") == []


async def test_a_place_that_stays_in_use_gives_the_guest_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "_BUSY_SECONDS", 0.0)
    one = machine(tmp_path)

    def in_use(*_: object) -> None:
        raise PermissionError("in use by another process")

    async def leave_something() -> None:
        async with one.workplace(request("cl"), 0):
            (tmp_path / "src").mkdir()
            monkeypatch.setattr(os, "rename", in_use)

    with pytest.raises(PermissionError):
        await leave_something()


async def test_a_tree_deeper_than_any_path_goes_and_links_are_not_followed(tmp_path: Path) -> None:
    root, grave, safe = tmp_path / "src", tmp_path / "grave", tmp_path / "safe"
    for directory in (root, grave, safe):
        directory.mkdir()
    (safe / "kept").touch()
    (root / "link").symlink_to(safe)
    at = os.open(root, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deep", dir_fd=at)
        below = os.open("deep", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    await clear(str(root), str(grave))
    assert not root.exists()
    assert os.listdir(grave) == []
    assert (safe / "kept").exists()


def test_outputs_that_lead_elsewhere_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    root = tmp_path / "src"
    (root / "d").mkdir(parents=True)
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "dir").symlink_to(tmp_path)
    os.link(tmp_path / "secret", root / "hard")
    os.mkfifo(root / "fifo")
    (root / "d/good").write_text("ok")
    found = open_outputs(str(root), ("link", "dir/secret", "hard", "fifo", "d", "absent", "d/good"))
    assert [(o.path, o.size_bytes) for o in found] == [("d/good", 2)]
    os.close(found[0].fd)
    assert list_directories(str(root), ("dir", "absent", "d/good")) == []
    (root / "d/link").symlink_to(tmp_path)
    with pytest.raises(OutputTreeError):
        list_directories(str(root), ("d",))


def test_a_listed_file_that_was_swapped_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/x").symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="plain"):
        tree.open_listed(str(tmp_path), Output("d/x", -1, 1, is_executable=False))


class Listener:
    """Yields connections in order, each with its origin."""

    def __init__(self, *peers: str) -> None:
        self.peers, self.closed = list(peers), 0

    def accept(self) -> tuple[Listener, tuple[str, str]]:
        return self, (self.peers.pop(0), "service")

    def close(self) -> None:
        self.closed += 1


def test_the_hosts_connection_is_taken_and_the_containers_own_are_not() -> None:
    loopback = "{E0E16197-DD56-4A10-9195-5EE7A155A838}"
    listener = Listener(
        loopback, loopback.lower().strip("{}"), "a42e7cda-d03f-480c-9cc2-a4de20abb878"
    )
    assert take_host(listener) is listener
    assert listener.closed == 3
    with pytest.raises(ConnectionError):
        take_host(Listener(*[loopback] * 16))


@pytest.mark.parametrize(
    ("refused", "bound"),
    [(set(), ["any"]), ({"any"}, ["any", "parent"]), ({"any", "parent"}, ["any", "parent"])],
)
def test_it_listens_for_anyone_or_else_for_the_parent(
    monkeypatch: pytest.MonkeyPatch, refused: set[str], bound: list[str]
) -> None:
    tried: list[str] = []

    class Socket(Listener):
        def bind(self, address: tuple[str, str]) -> None:
            tried.append(address[0])
            assert address[1] == "0000453f-facb-11e6-bd58-64006a7986d3"
            if address[0] in refused:
                raise PermissionError

        def listen(self, backlog: int) -> None:
            assert backlog == 1

    made: list[Socket] = []

    def new(family: int, kind: int, protocol: int) -> Socket:
        assert (family, protocol) == (34, 1)
        made.append(Socket())
        return made[-1]

    values = {
        "AF_HYPERV": 34, "HV_PROTOCOL_RAW": 1, "HV_GUID_WILDCARD": "any", "HV_GUID_PARENT": "parent",
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setattr(socket, name, value, raising=False)
    monkeypatch.setattr(socket, "socket", new)
    if "parent" in refused:
        with pytest.raises(PermissionError):
            listen(17727)
    else:
        assert listen(17727) is made[-1]  # type: ignore[comparison-overlap]  # stands in for one
    assert tried == bound
    assert [one.closed for one in made] == [int(peer in refused) for peer in bound]


def test_a_guest_without_a_token_takes_the_hosts_first() -> None:
    token, nonce = bytes(range(TOKEN_BYTES)), bytes(range(NONCE_BYTES))
    host, guest = HostLink(token, nonce), GuestLink(None)
    assert guest.feed(b"junk" + host.hello[:20]) is None
    answer = guest.feed(host.hello[20:] + b"PRI")
    assert answer is not None
    assert answer[1] == b"PRI"
    assert host.feed(answer[0] + b"rest") == b"rest"
    with pytest.raises(ValueError, match="token"):
        GuestLink(b"short")
