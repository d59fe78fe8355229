"""The helper and its callers: who gets ids, which, and that nobody else does. Real processes."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc.helper import __main__ as helper
from hpcc.wire.helper import FIRST_ID, MALFORMED, MAPPED, REFUSED, MapRequest, encode_request
from hpcc_testkit.guests.worker_helper import as_user, worker_helper

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may give ids"),
    pytest.mark.timeout(60),
]
USER, NUMBER = "nobody", 65_534
ASK = """
import os, socket, sys
place, request, kind = sys.argv[1], bytes.fromhex(sys.argv[2]), sys.argv[3]
if kind != "stays":
    os.unshare(os.CLONE_NEWUSER)
if kind == "deeper":
    with open("/proc/self/uid_map", "w") as file:
        file.write("0 65534 1")
    with open("/proc/self/setgroups", "w") as file:
        file.write("deny")
    with open("/proc/self/gid_map", "w") as file:
        file.write("0 65534 1")
    os.unshare(os.CLONE_NEWUSER)
def ask():
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(place)
    connection.send(request)
    return connection.recv(100)
answer = ask()
if kind == "again":
    answer = ask()
print(answer.hex())
if kind == "becomes":
    os.setgroups([])
    os.setresgid(int(sys.argv[4]), int(sys.argv[4]), int(sys.argv[4]))
    os.setresuid(int(sys.argv[4]), int(sys.argv[4]), int(sys.argv[4]))
print([line.split() for line in open("/proc/self/uid_map")])
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with worker_helper(USER) as place:
        yield place


def ask(
    place: Path, request: bytes, kind: str = "asks", *words: str, user: str = USER
) -> subprocess.CompletedProcess[str]:
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ASK, str(place), request.hex(), kind, *words],
        capture_output=True, text=True, check=False, timeout=30, cwd="/",
        **as_user(user),  # type: ignore[call-overload]  # a mapping
    )  # fmt: skip
    return done


def test_a_worker_gets_the_ids_and_its_own_as_roots(place: Path) -> None:
    done = ask(place, encode_request(MapRequest(FIRST_ID + 9, 3)))
    answer, maps = done.stdout.splitlines()
    assert answer == MAPPED.hex(), done.stderr
    first = str(FIRST_ID + 9)
    assert maps == str([["0", str(NUMBER), "1"], [first, first, "3"]])


@pytest.mark.parametrize(("number", "works"), [(0, True), (3, False), (-1, False)])
def test_a_process_may_become_these_ids_and_no_others(
    place: Path, number: int, works: bool
) -> None:
    request = encode_request(MapRequest(FIRST_ID + 9, 3))
    done = ask(place, request, "becomes", str(FIRST_ID + 9 + number))
    assert done.stdout.startswith(MAPPED.hex()), done.stderr
    assert (done.returncode == 0) is works
    assert ("Invalid argument" in done.stderr) is not works


@pytest.mark.parametrize(
    "request_",
    [
        b"x",
        b"hpccmap1" * 2,
        encode_request(MapRequest(FIRST_ID, 1)) + b"0",
        b"hpccmap1" + struct.pack("<II", 2**32 - FIRST_ID, 1),
        b"x" * 4096,
    ],
)
def test_a_malformed_request_gets_nothing_and_the_next_is_answered(
    place: Path, request_: bytes
) -> None:
    assert ask(place, request_).stdout.splitlines() == [MALFORMED.hex(), "[]"]
    assert ask(place, encode_request(MapRequest(FIRST_ID, 1))).stdout.startswith(MAPPED.hex())


@pytest.mark.parametrize("user", ["root", "daemon"])
def test_another_user_gets_nothing(place: Path, user: str) -> None:
    done = ask(place, encode_request(MapRequest(FIRST_ID, 1)), user=user)
    assert done.stdout.splitlines() == [REFUSED.hex(), "[]"], done.stderr


def test_a_namespace_that_has_ids_gets_no_others(place: Path) -> None:
    request = encode_request(MapRequest(FIRST_ID, 1))
    answer, maps = ask(place, request, "again").stdout.splitlines()
    assert answer == REFUSED.hex()
    first = str(FIRST_ID)
    assert maps == str([["0", str(NUMBER), "1"], [first, first, "1"]])


@pytest.mark.parametrize("kind", ["stays", "deeper"])
def test_only_a_new_namespace_directly_below_the_machines_gets_ids(place: Path, kind: str) -> None:
    request = encode_request(MapRequest(FIRST_ID, 1))
    done = ask(place, request, kind)
    assert done.stdout.splitlines()[0] == REFUSED.hex(), done.stderr
    assert str(FIRST_ID) not in done.stdout


def test_who_says_nothing_or_goes_costs_the_next_one_no_answer(place: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.connect(str(place))
        for _ in range(20):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as gone:
                gone.connect(str(place))
        done = ask(place, encode_request(MapRequest(FIRST_ID, 1)))
    assert done.stdout.startswith(MAPPED.hex()), done.stderr


def test_a_process_that_took_over_a_callers_number_gets_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[str] = []
    monkeypatch.setattr(helper, "_write", lambda _, name, text: written.append(name + text))
    peer = helper.Peer(os.getpid(), NUMBER, NUMBER, ())  # this process is root's
    with pytest.raises(PermissionError, match="any more"):
        helper.write_maps(MapRequest(FIRST_ID, 1), peer, NUMBER)
    assert written == []


@pytest.mark.parametrize(("uid", "gid"), [(NUMBER, NUMBER), (0, 0)])
def test_a_caller_of_another_user_is_refused_by_its_number(
    monkeypatch: pytest.MonkeyPatch, uid: int, gid: int
) -> None:
    written: list[str] = []
    monkeypatch.setattr(helper, "_write", lambda _, name, text: written.append(name + text))
    peer = helper.Peer(os.getpid(), uid, gid, ())  # whose process is the worker's meanwhile
    with pytest.raises(PermissionError, match=r"not a worker's process$"):
        helper.write_maps(MapRequest(FIRST_ID, 1), peer, 0)
    assert written == []


@pytest.mark.parametrize(
    ("mode", "groups", "line"),
    [
        (0o660, (NUMBER, 104), "104 104 1\n"),
        (0o666, (104,), "104 104 1\n"),
        (0o600, (104,), ""),
        (0o660, (105,), ""),
    ],
)
def test_the_group_of_the_device_is_mapped_for_its_members_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: int, groups: tuple[int, ...], line: str
) -> None:
    device = tmp_path / "kvm"
    device.touch()
    os.chown(device, -1, 104)
    device.chmod(mode)
    monkeypatch.setattr(helper, "_KVM", device)
    texts: dict[str, str] = {}
    monkeypatch.setattr(helper, "_write", lambda _, name, text: texts.update({name: text}))
    peer = helper.Peer(os.getpid(), 0, NUMBER, groups)
    helper.write_maps(MapRequest(FIRST_ID, 1), peer, 0)
    assert texts["gid_map"] == f"0 {NUMBER} 1\n{FIRST_ID} {FIRST_ID} 1\n{line}"
    assert texts["uid_map"] == f"0 0 1\n{FIRST_ID} {FIRST_ID} 1\n"


def test_the_groups_of_a_caller_are_the_kernels() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        peer = helper.peer_of(ours)
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.geteuid(), os.getegid())
    assert peer.groups == tuple(os.getgroups())


@pytest.mark.parametrize("argv", [["helper"], ["helper", "no-such-user-x"], ["helper", "root"]])
def test_it_serves_no_user_that_has_rights_already(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert helper.main(argv) == 2
    assert capsys.readouterr().err


def test_it_has_two_rights_and_the_worker_none_over_it(place: Path) -> None:
    (pid,) = [
        entry.name
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _listens_at(entry, place)
    ]
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0b11000000
    assert status["Uid"].split() == ["0", str(NUMBER), "0", str(NUMBER)]
    done = subprocess.run(
        ["kill", "-KILL", pid], capture_output=True, text=True, check=False,
        **as_user(USER),  # type: ignore[call-overload]  # a mapping
    )  # fmt: skip
    assert "not permitted" in done.stderr
    done = subprocess.run(
        ["cat", f"/proc/{pid}/environ"], capture_output=True, text=True, check=False,
        **as_user(USER),  # type: ignore[call-overload]  # a mapping
    )  # fmt: skip
    assert "denied" in done.stderr


def _listens_at(process: Path, place: Path) -> bool:
    sockets = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    (inode,) = [words[6] for words in sockets if words[7:] == [str(place)]]
    try:
        links = [os.readlink(fd) for fd in (process / "fd").iterdir()]
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"socket:[{inode}]" in links and any(b"hpcc.helper" in word for word in words)


def test_a_caller_that_has_gone_ends_nothing(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        thread = threading.Thread(target=helper.serve_one, args=(listener, NUMBER))
        thread.start()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
            caller.connect(str(tmp_path / "s"))
        thread.join(30)
        assert not thread.is_alive()
