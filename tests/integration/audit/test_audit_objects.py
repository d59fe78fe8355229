"""Sealed segments reach a real S3 server complete and once, under its object lock if it has one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest

from hpcc.audit.base.canonical import AuditDamagedError
from hpcc.audit.base.segments import seals
from hpcc.audit.base.spool_limits import SpoolLimits
from hpcc.audit.roots import check_roots
from hpcc.audit.verify import verify_trail
from hpcc.cli.main import main
from hpcc.core import CallerError
from hpcc.ports import SystemClock
from hpcc.worker.audit.objects import (
    ObjectSinkConfig,
    SegmentUploader,
    read_credential,
    sealed_head_or_none,
)
from hpcc_testkit.farm.audit_rows import SMALL, opened, row, written
from hpcc_testkit.services.s3_servers import (
    ADMIN,
    S3Server,
    radosgw,
    radosgw_missing_or_none,
    seaweedfs,
    seaweedfs_missing_or_none,
)

SECONDS = 120.0
LOCKED = "audit-locked"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module", params=["seaweedfs", "radosgw"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[S3Server]:
    missing, run = {
        "seaweedfs": (seaweedfs_missing_or_none(), seaweedfs),
        "radosgw": (radosgw_missing_or_none(), radosgw),
    }[request.param]
    if missing:
        pytest.skip(missing)
    with run(tmp_path_factory.mktemp("s3") / "data", tenants=()) as server:
        server.make_bucket("audit")
        server.make_bucket(LOCKED, object_lock=True)
        yield server


def config(server: S3Server, bucket: str = "audit", **changes: object) -> ObjectSinkConfig:
    values: dict[str, object] = {
        "endpoint": server.endpoint,
        "bucket": bucket,
        "prefix": "farm one/audit",
        "access_key_id": ADMIN.access_key_id,
        "secret_access_key": ADMIN.secret_access_key,
        **changes,
    }
    return ObjectSinkConfig(**values)  # type: ignore[arg-type]  # built by name just above


@asynccontextmanager
async def uploading(
    directory: Path, target: ObjectSinkConfig, worker: str = "w1"
) -> AsyncGenerator[SegmentUploader]:
    uploader = SegmentUploader(directory, worker, target, SystemClock())
    task = asyncio.Task(uploader.run())
    try:
        yield uploader
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - of what a task does
            await asyncio.sleep(0.05)


def sealed(directory: Path) -> list[Path]:
    return sorted(p for p in directory.glob("sealed-*") if p.suffix in {".hpcc", ".seal"})


def stored(
    server: S3Server, bucket: str, worker: str, name: str, method: str = "GET"
) -> httpx.Response:
    return server.request(method, f"/{bucket}/farm%20one/audit/{worker}/{name}")


async def test_each_sealed_segment_and_its_seal_are_in_the_bucket(
    server: S3Server, tmp_path: Path
) -> None:
    await written(tmp_path, 20)
    async with (
        opened(tmp_path, limits=SMALL) as log,
        uploading(tmp_path, config(server), "w-copy") as uploader,
    ):
        await until(lambda: uploader.acknowledged >= 16)
        await log.append(row(20))
        await log.seal()
        await until(lambda: uploader.acknowledged == 21)
    files = sealed(tmp_path)
    assert len(files) >= 8
    for file in files:
        assert stored(server, "audit", "w-copy", file.name).content == file.read_bytes()


async def test_a_copy_of_the_bucket_is_compared_with_the_root_that_the_worker_signed(
    server: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trail, copy = tmp_path / "trail", tmp_path / "copy"
    await written(trail, 20)
    async with opened(trail, limits=SMALL) as log:
        for number in range(2):
            await log.append(row(20 + number))
            await log.seal()
            async with uploading(trail, config(server), "w-root") as uploader:
                await until(lambda: uploader.headed == 21 + number)  # noqa: B023 - awaited here
    copy.mkdir()
    for file in [*sealed(trail), trail / "tree.head"]:
        (copy / file.name).write_bytes(stored(server, "audit", "w-root", file.name).content)
    roots = check_roots(copy)
    assert (roots.leaves, roots.behind, roots.removed) == (23, 0, 0)
    assert main(["audit", "verify", "--roots", "--directory", str(copy)]) == 0
    assert roots.root in capsys.readouterr().out
    last = max(copy.glob("*.hpcc"))
    last.write_bytes(last.read_bytes()[:-9] + bytes(9))
    with pytest.raises(AuditDamagedError):
        check_roots(copy)


async def test_the_head_that_goes_to_the_bucket_covers_what_is_there_and_no_more(
    tmp_path: Path,
) -> None:
    await written(tmp_path, 8)
    async with opened(tmp_path, limits=SMALL) as log:
        await log.seal()
    *earlier, last = seals(tmp_path)
    head = (tmp_path / "tree.head").read_bytes()
    assert sealed_head_or_none(tmp_path, last) == head
    # The seal of the head is not in the bucket yet.
    assert sealed_head_or_none(tmp_path, earlier[-1]) is None
    (tmp_path / "tree.head").write_bytes(head.replace(b"chain", b"chaim"))
    with pytest.raises(AuditDamagedError):
        sealed_head_or_none(tmp_path, last)
    (tmp_path / "tree.head").unlink()
    assert sealed_head_or_none(tmp_path, last) is None


async def test_a_copy_is_under_a_lock_and_cannot_be_removed(
    server: S3Server, tmp_path: Path
) -> None:
    await written(tmp_path, 8)
    target = config(server, LOCKED, lock_days=2.0)
    if server.kind == "radosgw":
        # With SQLite it has no object lock, and says so: a copy without it is not made.
        async with uploading(tmp_path, target, "w-lock") as uploader:
            await asyncio.sleep(1.0)
            assert uploader.acknowledged == 0
        return
    async with uploading(tmp_path, target, "w-lock") as uploader:
        await until(lambda: uploader.acknowledged >= 4)
    name = sealed(tmp_path)[0].name
    head = stored(server, LOCKED, "w-lock", name, "HEAD")
    assert head.headers["x-amz-object-lock-mode"] == "COMPLIANCE"
    version = head.headers["x-amz-version-id"]
    gone = server.request("DELETE", f"/{LOCKED}/farm%20one/audit/w-lock/{name}?versionId={version}")
    assert gone.status_code == httpx.codes.FORBIDDEN, gone.text


async def test_a_seal_that_somebody_else_put_there_is_not_taken_for_a_copy(
    server: S3Server, tmp_path: Path
) -> None:
    await written(tmp_path, 8)
    segment, seal = (tmp_path / f"sealed-{0:020d}{ending}" for ending in (".hpcc", ".seal"))
    forged = bytes(seal.stat().st_size)
    put = server.request("PUT", f"/audit/farm%20one/audit/w-forged/{seal.name}", body=forged)
    assert put.status_code == httpx.codes.OK
    async with uploading(tmp_path, config(server), "w-forged") as uploader:
        await until(lambda: uploader.acknowledged >= 4)
    for file in (segment, seal):
        assert stored(server, "audit", "w-forged", file.name).content == file.read_bytes()


async def test_a_bucket_that_refuses_holds_the_spool_and_a_copy_is_not_made_twice(
    server: S3Server, tmp_path: Path
) -> None:
    await written(tmp_path, 20)
    wrong = config(server, secret_access_key="wrong")
    limits = SpoolLimits(segment_bytes=6000, max_bytes=600_000, keep_seconds=1e-6)
    async with opened(tmp_path, limits=limits) as log:
        async with uploading(tmp_path, wrong, "w-wrong") as uploader:
            log.hold_for(lambda: uploader.acknowledged)
            await asyncio.sleep(1.0)
            assert uploader.acknowledged == 0
        assert await log.retire() == 0
        async with uploading(tmp_path, config(server), "w-wrong") as uploader:
            log.hold_for(lambda: uploader.acknowledged)
            await until(lambda: uploader.acknowledged >= 16)
            assert await log.retire() > 0
        # After a restart what is there is not sent again.
        seal = sealed(tmp_path)[-1]
        before = stored(server, "audit", "w-wrong", seal.name, "HEAD").headers
        async with uploading(tmp_path, config(server), "w-wrong") as uploader:
            await until(lambda: uploader.acknowledged >= 16)
        after = stored(server, "audit", "w-wrong", seal.name, "HEAD").headers
        assert after["last-modified"] == before["last-modified"]
    verify_trail(tmp_path)


def test_a_credential_that_others_can_read_or_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "credential"
    file.write_text(json.dumps({"access_key_id": "a", "secret_access_key": "b"}))
    file.chmod(0o644)
    with pytest.raises(CallerError, match="chmod 600"):
        read_credential(file)
    file.chmod(0o600)
    assert read_credential(file) == ("a", "b")
    for junk in ("[]", "{}", "nonsense", '{"access_key_id": 1, "secret_access_key": "b"}'):
        file.write_text(junk)
        with pytest.raises(CallerError):
            read_credential(file)
    with pytest.raises(CallerError):
        read_credential(tmp_path / "absent")


async def test_a_bucket_that_answers_without_end_costs_no_memory(tmp_path: Path) -> None:
    """Each answer has a body that never ends; the reader uses only its first line."""
    most = 64 << 20
    sent = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = [n for n in head.lower().split("\r\n") if n.startswith("content-length:")]
        await reader.readexactly(int(length[0].split(":")[1]) if length else 0)
        status = "200 OK" if head.startswith("PUT") else "404 Not Found"
        writer.write(f"HTTP/1.1 {status}\r\n\r\n".encode())
        with suppress(ConnectionError):
            while sent < most and head.startswith("PUT"):
                writer.write(bytes(1 << 16))
                await writer.drain()
                sent += 1 << 16
        writer.close()

    await written(tmp_path, 8)
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as bucket:
        port = bucket.sockets[0].getsockname()[1]
        target = ObjectSinkConfig(
            endpoint=f"http://127.0.0.1:{port}",
            bucket="audit",
            access_key_id="a",
            secret_access_key="b",
        )
        async with uploading(tmp_path, target) as uploader:
            await until(lambda: uploader.acknowledged >= 4)
    assert sent < most
