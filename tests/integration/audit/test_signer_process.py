"""The process that signs a trail: real processes, killed at each step, on both sides."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from hpcc.audit.base.canonical import AuditDamagedError, Record
from hpcc.audit.base.segments import Placed, spool_path
from hpcc.audit.base.trail import walk
from hpcc.audit.base.trail_signer import SignerError
from hpcc.audit.log import SpoolAuditLog
from hpcc.audit.signer.messages import MessageKind, encode_records, message
from hpcc.audit.signer.place import SIGNER_UID, signer_directory
from hpcc.audit.signer.process import SignerProcess, _Line
from hpcc.audit.verify import verify_trail
from hpcc.core import CallerError, InfrastructureError
from hpcc.identity.keys import load_or_create_signing_key
from hpcc_testkit.farm.audit_rows import SMALL, opened, row
from hpcc_testkit.signer.failing import PROGRAM as FAILING
from hpcc_testkit.signer.failing import fail_at
from hpcc_testkit.signer.records import chain
from hpcc_testkit.signer.writer import PROGRAM as WRITER
from hpcc_testkit.suite.sampling import every_nth

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform == "win32", reason="on Windows the key is in the worker"),
]
# All steps of a run of two groups and a seal, and some more: a step that is not reached tests nothing.
SIGNER_STEPS = 26
WRITER_STEPS = 121


def key_path(base: Path) -> Path:
    (base / "keys").mkdir(mode=0o700, exist_ok=True)
    return base / "keys" / "audit-signing.key"


@asynccontextmanager
async def signed(base: Path, program: Path | None = None) -> AsyncGenerator[SpoolAuditLog]:
    """Open the trail of a directory with a signer."""
    chosen = {} if program is None else {"program": program}
    async with opened(
        base / "trail", key=SignerProcess(key_path(base), "w1", **chosen), limits=SMALL,
        mark=base / "keys" / "mark",
    ) as log:  # fmt: skip
        yield log


def signer_of(log: SpoolAuditLog) -> SignerProcess:
    assert isinstance(log.signer, SignerProcess)
    return log.signer


def records(base: Path) -> list[Record]:
    return [item.record for item in walk(base / "trail") if isinstance(item, Placed)]


def rows(base: Path) -> list[str]:
    return [str(r.body["row_id"]) for r in records(base) if r.kind == "row"]


def events(base: Path) -> list[str]:
    return [str(r.body["name"]) for r in records(base) if r.kind == "event"]


def process_file(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def numbers(*of: int) -> list[str]:
    return [f"row_id-{number}" for number in of]


async def test_a_trail_is_signed_by_a_process(tmp_path: Path) -> None:
    async with signed(tmp_path) as log:
        for number in range(7):
            await log.append(row(number))
        await log.seal()
        pid = signer_of(log).pid
        assert process_file(pid, "comm") == "hpcc-signer\n"
        anchor, tree = log.signed_anchor(), log.signed_tree(None)
        assert anchor is not None
        assert tree is not None
        assert anchor.count == log.anchor[0] == 9
    assert not is_running(pid)
    verified = verify_trail(tmp_path / "trail")
    assert (verified.count, verified.signed, verified.unsigned) == (9, 9, 0)
    assert events(tmp_path) == ["audit-signing", "audit-signer"]
    async with signed(tmp_path) as log:
        await log.append(row(7))
    assert rows(tmp_path) == numbers(*range(8))
    assert events(tmp_path) == ["audit-signing", "audit-signer"]


async def test_the_signer_has_its_own_uid_and_files(tmp_path: Path) -> None:
    async with signed(tmp_path) as log:
        signer = signer_of(log)
        status = process_file(signer.pid, "status")
        uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
        expected = SIGNER_UID if os.geteuid() == 0 else os.geteuid()
        assert uids == [str(expected)] * 4
        assert signer.separation == ("own-uid" if os.geteuid() == 0 else "same-uid")
        assert "NoNewPrivs:\t1" in status
        if os.geteuid() == 0:
            assert "CapEff:\t0000000000000000" in status
            assert "Groups:\t \n" in status
        directory = signer_directory(key_path(tmp_path))
        for path in (directory, *directory.iterdir()):
            assert path.stat().st_uid == expected
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
        # A crash leaves no copy of its memory, and it can open nothing more.
        limits = process_file(signer.pid, "limits").splitlines()
        for name in ("Max core file size", "Max open files"):
            assert next(line for line in limits if line.startswith(name)).split()[-3:-1] == [
                "0",
                "0",
            ]


@pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root"
)  # another user reads as the worker would
def test_another_user_of_the_machine_cannot_read_the_key(tmp_path: Path) -> None:
    async def made() -> Path:
        async with signed(tmp_path):
            return signer_directory(key_path(tmp_path)) / "key"

    path = asyncio.run(made())
    # From inside, so that the directories above stay closed: other tests compile below them.
    path.parent.chmod(0o755)
    argv, home = ["cat", path.name], path.parent
    said = subprocess.run(argv, user=1234, cwd=home, capture_output=True, check=False)
    assert b"Permission denied" in said.stderr


@pytest.mark.parametrize("step", every_nth(range(1, SIGNER_STEPS + 1), 6))
async def test_a_signer_killed_at_any_step_loses_nothing(tmp_path: Path, step: int) -> None:
    async with signed(tmp_path) as log:
        await log.append(row(0))
    fail_at(signer_directory(key_path(tmp_path)), "kill", step)
    tried = 0
    while True:
        tried += 1
        try:
            async with signed(tmp_path, FAILING) as log:
                await log.append(row(1))
                await asyncio.gather(log.append(row(2)), log.append(row(3)))
                await log.seal()
                await log.append(row(4))
                restarts = signer_of(log).restarts
            break
        except InfrastructureError:  # it died before the trail was open: a start is not repeated
            assert tried == 1
    is_killed = restarts + tried - 1
    assert is_killed <= 1
    verified = verify_trail(tmp_path / "trail")
    assert verified.signed == verified.count
    assert rows(tmp_path) == numbers(0, 1, 2, 3, 4)
    if not is_killed:
        assert step > 20


@pytest.mark.parametrize("step", every_nth(range(1, WRITER_STEPS + 1), 12))
async def test_a_writer_killed_at_any_step_loses_nothing(tmp_path: Path, step: int) -> None:
    key_path(tmp_path)
    arguments = [sys.executable, str(WRITER), str(tmp_path), str(step), "6"]
    process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    durable = said.decode().split("done")[0].split()
    assert process.returncode == (0 if b"done" in said else -signal.SIGKILL)
    async with signed(tmp_path) as log:
        await log.append(row(99))
        await log.seal()
        count = log.anchor[0]
    found = rows(tmp_path)
    # What was durable is there, in order, once; a record more may have been signed before the end.
    assert found[: len(durable)] == numbers(*map(int, durable))
    assert found == [*numbers(*range(len(found) - 1)), "row_id-99"]
    assert len(found) - 1 - len(durable) <= 2
    verified = verify_trail(tmp_path / "trail")
    assert verified.signed == verified.count == count


async def test_a_signer_that_was_closed_is_not_started_again(tmp_path: Path) -> None:
    async with signed(tmp_path) as log:
        signer = signer_of(log)
    assert not signer.revive()
    assert signer.pid == 0


async def test_a_signer_that_was_started_meanwhile_is_asked_again(tmp_path: Path) -> None:
    async with signed(tmp_path) as log:
        await log.append(row(0))
        signer, revive = signer_of(log), signer_of(log).revive

        def revived_by_another_thread() -> bool:
            revive()
            return False

        setattr(signer, "revive", revived_by_another_thread)  # noqa: B010 - as a test would patch it
        os.kill(signer.pid, signal.SIGKILL)
        await log.append(row(1))
        assert signer.restarts == 1


async def test_a_worker_that_is_asked_to_end_keeps_its_signer(tmp_path: Path) -> None:
    async with signed(tmp_path) as log:
        signer = signer_of(log)
        for number in (signal.SIGTERM, signal.SIGINT):  # of a service manager, to the whole group
            os.kill(signer.pid, number)
        await log.append(row(0))
        assert signer.restarts == 0


def test_a_late_answer_is_not_that_of_the_next_request() -> None:
    ours, theirs = socket.socketpair()
    line = _Line(0.01)
    line.connect(ours)
    with pytest.raises(TimeoutError):
        line.ask(message(MessageKind.STATE))
    with suppress(OSError):
        theirs.sendall(message(MessageKind.DONE, b"late"))
    with pytest.raises(EOFError):
        line.ask(message(MessageKind.STATE))
    theirs.close()


def test_an_exchange_that_fails_does_not_end_the_next_connection() -> None:
    line, (ours, theirs), (newer, other) = _Line(60), socket.socketpair(), socket.socketpair()
    line.connect(ours)
    failed: list[Exception] = []

    def ask() -> None:
        try:
            line.ask(message(MessageKind.STATE))
        except (OSError, EOFError) as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    theirs.recv(1)  # the request is sent
    line.connect(newer)
    theirs.close()
    thread.join()
    assert failed
    other.sendall(message(MessageKind.DONE, b"new"))
    assert line.ask(message(MessageKind.STATE)) == (MessageKind.DONE, b"new")
    line.hang_up()
    other.close()


async def test_a_heartbeat_waits_for_no_signer_that_starts(tmp_path: Path) -> None:
    async with signed(tmp_path) as log:
        await log.append(row(0))
        signer = signer_of(log)
        signer._heads.hang_up()
        with signer._life:  # as another thread has it that starts a process
            assert await asyncio.to_thread(log.signed_anchor) is None
        assert signer.restarts == 0


async def test_a_signer_that_ends_while_idle_is_started_again(tmp_path: Path) -> None:
    async with signed(tmp_path) as log:
        await log.append(row(0))
        os.kill(signer_of(log).pid, signal.SIGKILL)
        async with asyncio.timeout(120):
            while "audit-signer-restarted" not in events(tmp_path):  # noqa: ASYNC110 - of another task
                await asyncio.sleep(0.05)
        assert signer_of(log).restarts == 1
        assert log.signed_anchor() is not None
        log.require_room()


async def test_without_a_signer_there_is_no_new_work(tmp_path: Path) -> None:
    async with signed(tmp_path) as log:
        await log.append(row(0))
        key = signer_directory(key_path(tmp_path)) / "key"
        key.rename(key.with_name("away"))
        os.kill(signer_of(log).pid, signal.SIGKILL)
        with pytest.raises(InfrastructureError, match="is missing"):
            await log.append(row(1))
        with pytest.raises(
            SignerError, match=r"nothing signs the audit trail: .*key is missing"
        ) as no:
            log.require_room()
        assert no.value.reason == "audit-signer"
        assert log.signed_anchor() is None
        assert log.signed_tree(None) is None
        key.with_name("away").rename(key)
        async with asyncio.timeout(120):
            while signer_of(log).trouble:  # noqa: ASYNC110 - of another task
                await asyncio.sleep(0.05)
        log.require_room()
        await log.append(row(2))
    # Row 1 has its number: it was written before row 2.
    assert rows(tmp_path) == numbers(0, 1, 2)
    verify_trail(tmp_path / "trail")


async def test_records_that_wait_for_no_signer_start_it_once(tmp_path: Path) -> None:
    async with signed(tmp_path) as log:
        signer = signer_of(log)
        key = signer_directory(key_path(tmp_path)) / "key"
        key.rename(key.with_name("away"))
        os.kill(signer.pid, signal.SIGKILL)
        with pytest.raises(InfrastructureError, match="is missing"):
            await log.append(row(0))
        starts = signer._starts
        waiting = [log.append(row(number)) for number in range(1, 31)]
        failed = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(error, SignerError) for error in failed)
        # One for the group; the watch may start it as well.
        assert signer._starts - starts < 10
        key.with_name("away").rename(key)
        await log.append(row(31))
    assert rows(tmp_path) == numbers(0, 31)
    verify_trail(tmp_path / "trail")


async def test_a_full_disk_of_the_signer_loses_no_number(tmp_path: Path) -> None:
    async with signed(tmp_path) as log:
        await log.append(row(0))
    fail_at(signer_directory(key_path(tmp_path)), "full", 1, 14)
    async with signed(tmp_path, FAILING) as log:
        failed = 0
        async with asyncio.timeout(120):
            for number in range(1, 20):
                try:
                    await log.append(row(number))
                except InfrastructureError as error:
                    assert "No space left" in str(error)
                    failed += 1
        assert failed
        assert signer_of(log).restarts == 0
    # The first row that failed was written as it was; the others that failed got no number.
    found = rows(tmp_path)
    assert found[:2] == numbers(0, 1)
    assert found[2:] == numbers(*range(failed + 1, 20))
    verify_trail(tmp_path / "trail")


async def test_a_group_that_the_disk_refused_is_written_as_it_was(tmp_path: Path) -> None:
    refuse = False

    def fault(step: str) -> None:
        if refuse and step == "sync":
            raise OSError(28, "No space left on device")

    signer = SignerProcess(key_path(tmp_path), "w1")
    async with opened(tmp_path / "trail", key=signer, fault=fault) as log:
        await log.append(row(0))
        refuse = True
        with pytest.raises(InfrastructureError, match="No space"):
            await log.append(row(1))
        with pytest.raises(InfrastructureError, match="No space"):
            await log.append(row(2))
        refuse = False
        await log.append(row(3))
    assert rows(tmp_path) == numbers(0, 1, 3)
    verify_trail(tmp_path / "trail")


async def test_a_record_that_was_signed_is_written_at_the_next_start(tmp_path: Path) -> None:
    def fault(step: str) -> None:
        if refuse and step == "write":
            raise OSError(5, "Input/output error")

    refuse = False
    signer = SignerProcess(key_path(tmp_path), "w1")
    async with opened(tmp_path / "trail", key=signer, fault=fault) as log:
        await log.append(row(0))
        refuse = True
        with pytest.raises(InfrastructureError, match="Input/output"):
            await log.append(row(1))
    assert rows(tmp_path) == numbers(0)
    async with signed(tmp_path) as log:
        pass
    assert rows(tmp_path) == numbers(0, 1)
    verify_trail(tmp_path / "trail")


async def test_a_cut_trail_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    async with signed(tmp_path) as log:
        for number in range(2):
            await log.append(row(number))
    path = spool_path(tmp_path / "trail")
    whole = path.read_bytes()
    last = 5 + struct.unpack(">I", b"\0" + whole[1:4])[0]
    (second,) = struct.unpack(">I", b"\0" + whole[last + 1 : last + 4])
    # Two records less than were signed: the last group can be missing, and no more.
    path.write_bytes(whole[: last + second + 5])
    with pytest.raises(
        AuditDamagedError, match="the end of the trail is missing: it has 2 records"
    ):
        async with signed(tmp_path):
            pass
    path.write_bytes(whole)
    async with signed(tmp_path):
        pass


async def test_an_earlier_state_of_the_signer_is_refused(tmp_path: Path) -> None:
    async with signed(tmp_path) as log:
        await log.append(row(0))
    directory = signer_directory(key_path(tmp_path))
    kept = {path: path.read_bytes() for path in directory.iterdir()}
    async with signed(tmp_path) as log:
        for number in (1, 2, 3):
            await log.append(row(number))
    for path, data in kept.items():
        path.write_bytes(data)
    with pytest.raises(AuditDamagedError, match="its files are of an earlier time"):
        async with signed(tmp_path):
            pass


async def test_another_trail_is_refused(tmp_path: Path) -> None:
    async with signed(tmp_path) as log:
        await log.append(row(0))
    (tmp_path / "trail").rename(tmp_path / "kept")
    with pytest.raises(AuditDamagedError, match="it has 0 records"):
        async with signed(tmp_path):
            pass


async def test_an_earlier_trail_goes_on_and_its_key_moves_once(tmp_path: Path) -> None:
    path = key_path(tmp_path)
    key = load_or_create_signing_key(path)
    pem = path.read_bytes()
    async with opened(
        tmp_path / "trail", key=key, limits=SMALL, mark=tmp_path / "keys/mark"
    ) as log:
        for number in range(9):
            await log.append(row(number))
    async with signed(tmp_path) as log:
        await log.append(row(9))
    moved = signer_directory(path) / "key"
    assert moved.read_bytes() == pem
    assert path.read_bytes().startswith(b"moved to audit-signing.signer/key")
    assert rows(tmp_path) == numbers(*range(10))
    verified = verify_trail(tmp_path / "trail")
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    assert verified.keys == (raw.hex(),)
    # An earlier version makes no other key.
    with pytest.raises(CallerError, match="is not a private key"):
        load_or_create_signing_key(path)
    # To go back, the key is moved back. Then this version takes it again.
    os.chown(moved, os.geteuid(), os.getegid())
    moved.rename(path)
    key = load_or_create_signing_key(path)
    async with opened(
        tmp_path / "trail", key=key, limits=SMALL, mark=tmp_path / "keys/mark"
    ) as log:
        await log.append(row(10))
    async with signed(tmp_path) as log:
        await log.append(row(11))
    assert rows(tmp_path) == numbers(*range(12))
    assert events(tmp_path).count("audit-signer") == 2
    verify_trail(tmp_path / "trail")


async def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = key_path(tmp_path)
    load_or_create_signing_key(path)
    path.chmod(0o640)
    with pytest.raises(CallerError, match="others can read"):
        async with signed(tmp_path):
            pass
    path.chmod(0o600)
    async with signed(tmp_path) as log:
        await log.append(row(0))
    directory = signer_directory(path)
    (directory / "key").chmod(0o640)
    with pytest.raises(InfrastructureError, match="others can read"):
        async with signed(tmp_path):
            pass
    (directory / "key").chmod(0o600)
    directory.chmod(0o755)
    with pytest.raises(CallerError, match="others may use"):
        async with signed(tmp_path):
            pass


async def test_two_keys_are_refused(tmp_path: Path) -> None:
    async with signed(tmp_path) as log:
        await log.append(row(0))
    path = key_path(tmp_path)
    assert path.read_bytes().startswith(b"moved to")
    path.unlink()
    load_or_create_signing_key(path)
    with pytest.raises(CallerError, match="are both a key"):
        async with signed(tmp_path):
            pass


async def test_a_signer_without_its_key_makes_no_other_one(tmp_path: Path) -> None:
    async with signed(tmp_path) as log:
        await log.append(row(0))
    (signer_directory(key_path(tmp_path)) / "key").unlink()
    with pytest.raises(InfrastructureError, match="key is missing"):
        async with signed(tmp_path):
            pass


async def test_another_workers_trail_is_not_signed(tmp_path: Path) -> None:
    async with signed(tmp_path) as log:
        await log.append(row(0))
    signer = SignerProcess(key_path(tmp_path), "w2")
    with pytest.raises(InfrastructureError, match="signs the trail of 'w1', not of 'w2'"):
        async with opened(tmp_path / "other", worker="w2", key=signer):
            pass


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff\xff\xff\xff\3", struct.pack(">IB", 16 << 20, MessageKind.HEAD), b"\0\0\0\0\xc8",
        message(MessageKind.RECORDS, b"\xff\xff"), message(MessageKind.SEAL, b"x"), message(MessageKind.DONE),
    ],
)  # fmt: skip
@pytest.mark.parametrize("line", ["_control", "_heads"])
async def test_a_hostile_message_ends_the_process_and_signs_nothing(
    tmp_path: Path, sent: bytes, line: str
) -> None:
    async with signed(tmp_path) as log:
        await log.append(row(0))
        signer = signer_of(log)
        raw = getattr(signer, line)._socket
        assert isinstance(raw, socket.socket)
        raw.sendall(sent)
        said = await asyncio.to_thread(raw.recv, 65536)
        assert not said or said[4] == MessageKind.REFUSED
        raw.close()
        await log.append(row(1))
        assert signer.restarts <= 1
    assert rows(tmp_path) == numbers(0, 1)
    verify_trail(tmp_path / "trail")


async def test_another_record_under_a_signed_number_stops_the_trail(tmp_path: Path) -> None:
    async with signed(tmp_path) as log:
        await log.append(row(0))
        signer = signer_of(log)
        (other,) = chain(1, base=50)
        with pytest.raises(Exception, match="record 0 was signed with other bytes"):
            await asyncio.to_thread(signer.sign_records, [other])
        with pytest.raises(SignerError, match="was signed with other bytes"):
            log.require_room()
        raw = signer._control._socket
        assert raw is not None
        raw.sendall(message(MessageKind.RECORDS, encode_records([other])))
        assert (await asyncio.to_thread(raw.recv, 4096))[4] == MessageKind.REFUSED


async def test_a_second_worker_gets_no_signer(tmp_path: Path) -> None:
    async with signed(tmp_path) as log:
        await log.append(row(0))
        with pytest.raises(InfrastructureError) as refused:
            async with signed(tmp_path):
                pass
        assert refused.value.reason == "audit-locked"
        await log.append(row(1))
        assert signer_of(log).restarts == 0
