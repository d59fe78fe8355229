"""The store contract on two real S3 servers, and what their policies and TLS refuse."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcc.core import Blob, CallerError, Digest, InfrastructureError, NotFoundError
from hpcc.store.bucket.object_blobs import ObjectActionCache, ObjectBlobStore
from hpcc.store.bucket.s3 import S3Config, S3Objects
from hpcc.store.held import Held, HeldObjects
from hpcc.store.objects import Objects, PrefixObjects
from hpcc.store.zstd import ZstdObjects
from hpcc_testkit.cache.store_contract import BIG, BLOB, ActionCacheContract, BlobStoreContract
from hpcc_testkit.services.s3_servers import BUCKET, S3Server, radosgw, seaweedfs
from hpcc_testkit.services.server_certificate import make_server_files

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def objects(server: S3Server, s3_of: Any) -> ZstdObjects:
    return ZstdObjects(PrefixObjects(s3_of(server), f"acme/{uuid.uuid4().hex}"))


class TestBlobs(BlobStoreContract):
    @pytest.fixture
    def store(self, objects: ZstdObjects) -> ObjectBlobStore:
        return ObjectBlobStore(objects)


class TestResults(ActionCacheContract):
    @pytest.fixture
    def cache(self, objects: ZstdObjects) -> ObjectActionCache:
        return ObjectActionCache(objects, "ac/qemu_tcg/exec")


async def test_two_workers_put_the_same_blob_at_once(objects: ZstdObjects) -> None:
    # radosgw ignores If-None-Match: what the second one replaces must be equal, and is.
    stores = [ObjectBlobStore(objects) for _ in range(8)]
    async with asyncio.TaskGroup() as group:
        for store in stores:
            group.create_task(store.put(BIG))
    assert await stores[0].get(BIG.digest) == BIG


async def test_a_later_result_replaces_an_earlier_one(objects: ZstdObjects) -> None:
    first, second = (ObjectActionCache(objects, "ac/qemu_tcg/exec") for _ in range(2))
    action = Digest.of(b"both ran it")
    await first.put(action, b"one")
    await second.put(action, b"two")
    assert await first.get(action) == b"two"


async def test_many_blobs_at_once(objects: ZstdObjects) -> None:
    store = ObjectBlobStore(objects)
    blobs = [Blob.of(b"header %d" % i * 100) for i in range(300)]
    async with asyncio.TaskGroup() as group:
        for blob in blobs:
            group.create_task(store.put(blob))
    absent = Digest.of(b"absent")
    assert await store.find_missing([*(b.digest for b in blobs), absent]) == {absent}


async def test_another_tenants_prefix_is_refused_by_the_servers_policy(
    server: S3Server, s3_of: Any
) -> None:
    bucket = BUCKET if server.kind == "seaweedfs" else "acme"
    acme = ObjectBlobStore(PrefixObjects(s3_of(server), "acme"))
    thief = s3_of(server, "globex", bucket=bucket)
    stolen = ObjectBlobStore(PrefixObjects(thief, "acme"))
    await acme.put(BLOB)
    for attack in (
        stolen.get(BLOB.digest),
        stolen.put(BLOB),
        stolen.find_missing([BLOB.digest]),
        stolen.get(Digest.of(b"absent")),
    ):
        with pytest.raises(InfrastructureError) as caught:
            await attack
        assert caught.value.reason == "store-denied"
    assert await acme.get(BLOB.digest) == BLOB


async def test_a_wrong_secret_is_denied_and_told_without_it(server: S3Server, s3_of: Any) -> None:
    secret = "wrong-secret-of-a-test"
    store = ObjectBlobStore(PrefixObjects(s3_of(server, secret_access_key=secret), "acme"))
    for attempt in (store.put(BLOB), store.get(BLOB.digest), store.find_missing([BLOB.digest])):
        with pytest.raises(InfrastructureError) as caught:
            await attempt
        assert caught.value.reason == "store-denied"
        assert secret not in f"{caught.value!r} {caught.value.__cause__!r}"


async def test_a_rotated_credential_is_read_after_a_refusal(server: S3Server, s3_of: Any) -> None:
    secrets = ["the old one", server.keys["acme"].secret_access_key]

    async def opened() -> Objects:
        return PrefixObjects(s3_of(server, secret_access_key=secrets.pop(0)), "acme")

    held = Held(opened, idle_seconds=600)
    store = ObjectBlobStore(HeldObjects(held))
    with pytest.raises(InfrastructureError):
        await store.put(BLOB)
    await store.put(BLOB)
    assert not secrets
    held.let_go()
    assert not held.is_held


@pytest.fixture(scope="module", params=["seaweedfs", "radosgw"])
def tls_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[S3Server]:
    directory = tmp_path_factory.mktemp("tls")
    files = make_server_files(directory)
    start = seaweedfs if request.param == "seaweedfs" else radosgw
    with start(directory / "data", tls=files) as running:
        yield running


async def test_a_ca_of_the_operator_is_trusted_and_no_other(
    tls_server: S3Server, s3_of: Any, tmp_path: Path
) -> None:
    assert tls_server.ca_file is not None
    ca_pem = tls_server.ca_file.read_bytes()
    store = ObjectBlobStore(PrefixObjects(s3_of(tls_server, ca_pem=ca_pem), "acme"))
    await store.put(BLOB)
    assert await store.get(BLOB.digest) == BLOB

    other = make_server_files(tmp_path).ca.read_bytes()
    for pem in (b"", other):
        stranger = ObjectBlobStore(PrefixObjects(s3_of(tls_server, ca_pem=pem), "acme"))
        with pytest.raises(InfrastructureError):
            await stranger.get(BLOB.digest)


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoint": "http://s3.example.com"},
        {"endpoint": "http://10.0.0.1:9000"},
        {"endpoint": "ftp://127.0.0.1"},
        {"endpoint": "https://user:word@127.0.0.1"},
        {"endpoint": "https://127.0.0.1/?x"},
        {"endpoint": "127.0.0.1"},
        {"bucket": "../other"},
        {"bucket": ""},
        {"region": "us east"},
        {"secret_access_key": ""},
        {"ca_pem": b"no certificate"},
    ],
)
def test_a_configuration_that_would_leak_or_never_work_is_refused(wrong: dict[str, Any]) -> None:
    good: dict[str, Any] = {
        "endpoint": "https://127.0.0.1",
        "bucket": "hpcc",
        "access_key_id": "id",
        "secret_access_key": "secret",
    }
    with pytest.raises(CallerError) as caught:
        S3Objects(S3Config(**good | wrong))
    assert "secret" not in str(caught.value)


async def test_a_key_that_leaves_the_prefix_is_refused(server: S3Server, s3_of: Any) -> None:
    for key in ("../globex/cas/x", "cas//x", "/cas/x", "cas/..", "cas/%2e%2e/x", "cas/x?acl", ""):
        for objects in (PrefixObjects(s3_of(server), "acme"), s3_of(server)):
            with pytest.raises(CallerError):
                await objects.get(key, 10)
            with pytest.raises(CallerError):
                await objects.put(key, b"")


async def test_an_object_that_is_absent_is_not_found(server: S3Server, s3_of: Any) -> None:
    with pytest.raises(NotFoundError):
        await s3_of(server).get("acme/absent", 10)
    assert not await s3_of(server).has("acme/absent")
