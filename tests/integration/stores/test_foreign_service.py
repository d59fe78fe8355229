"""buildbox-casd, another REAPI service, as a store for workers: its answers and its failures."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcc.core import Blob, CallerError, Digest, InfrastructureError, NotFoundError
from hpcc.reapi.foreign import encode_entry_result, parse_foreign_result
from hpcc.rpc.reapi.client import ReapiClient
from hpcc.rpc.reapi.foreign_service import (
    ServiceActionCache,
    ServiceBlobStore,
    ServiceConfig,
    connect_service,
)
from hpcc_testkit.cache.store_contract import BLOB, ActionCacheContract, BlobStoreContract
from hpcc_testkit.services.buildbox import Casd, casd, missing_or_none

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Casd]:
    if missing := missing_or_none():
        pytest.skip(missing)
    with casd(tmp_path_factory.mktemp("casd")) as running:
        yield running


@pytest.fixture
async def client(service: Casd) -> AsyncIterator[ReapiClient]:
    async with connect_service(ServiceConfig(endpoint=service.endpoint)) as client:
        yield client


class TestBlobs(BlobStoreContract):
    @pytest.fixture
    def store(self, client: ReapiClient) -> ServiceBlobStore:
        return ServiceBlobStore(client)

    async def test_a_right_hash_with_a_wrong_size_is_absent_and_harms_nothing(
        self, store: ServiceBlobStore
    ) -> None:
        # This service goes by the hash alone, says that it has it, and then takes its own good blob
        # for damaged and drops it. No wrong byte comes of that, and a put mends it.
        await store.put(BLOB)
        for size in (BLOB.digest.size_bytes - 1, BLOB.digest.size_bytes + 1):
            with pytest.raises((NotFoundError, InfrastructureError)):
                await store.get(Digest(BLOB.digest.hash, size))
        await store.put(BLOB)
        assert await store.get(BLOB.digest) == BLOB


class TestResults(ActionCacheContract):
    @pytest.fixture
    def cache(self, client: ReapiClient) -> ServiceActionCache:
        return ServiceActionCache(client, f"ac/{uuid.uuid4().hex}")


async def test_it_says_what_it_can_do(client: ReapiClient) -> None:
    said = await client.capabilities()
    assert said.has_sha256
    assert said.lowest_api <= (2, 1) <= said.highest_api


async def test_a_large_blob_and_a_large_result_go_through(client: ReapiClient) -> None:
    blob = Blob.of(os.urandom(9 << 20))
    store = ServiceBlobStore(client)
    await store.put(blob)
    assert await store.get(blob.digest) == blob
    cache = ServiceActionCache(client, "ac/large")
    await cache.put(Digest.of(b"large"), blob.data)
    assert await cache.get(Digest.of(b"large")) == blob.data


async def test_results_of_two_trust_domains_do_not_meet(client: ReapiClient) -> None:
    action = Digest.of(b"both")
    await ServiceActionCache(client, "ac/process_runc/tenant").put(action, b"weak")
    with pytest.raises(NotFoundError):
        await ServiceActionCache(client, "ac/qemu_kvm/principal").get(action)


async def test_an_entry_of_ours_is_not_the_result_of_the_action_for_others(
    client: ReapiClient,
) -> None:
    action = Digest.of(b"an action of both")
    await ServiceActionCache(client, "ac").put(action, b"entry")
    with pytest.raises(NotFoundError):
        await client.action_result(action, ())


async def test_a_service_that_dies_is_an_error_in_time(tmp_path: Path) -> None:
    if missing := missing_or_none():
        pytest.skip(missing)
    with casd(tmp_path) as service:
        config = ServiceConfig(endpoint=service.endpoint, call_seconds=5.0, transfer_seconds=5.0)
        async with connect_service(config) as client:
            store = ServiceBlobStore(client)
            await store.put(BLOB)
            service.kill()
            for attempt in (
                store.get(BLOB.digest),
                store.put(Blob.of(os.urandom(6 << 20))),
                store.find_missing([BLOB.digest]),
                ServiceActionCache(client, "ac").get(Digest.of(b"x")),
                ServiceActionCache(client, "ac").put(Digest.of(b"x"), b"y"),
            ):
                with pytest.raises(InfrastructureError) as caught:
                    await attempt
                assert caught.value.reason in {"store-reapi", "store-timeout"}


async def test_an_instance_that_it_does_not_have_is_an_error(service: Casd) -> None:
    config = ServiceConfig(endpoint=service.endpoint, instance="somebody-else")
    async with connect_service(config) as client:
        with pytest.raises(InfrastructureError):
            await ServiceBlobStore(client).put(BLOB)


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoint": "grpc://build.example.com:80"},
        {"endpoint": "https://build.example.com"},
        {"endpoint": "build.example.com:443"},
        {"endpoint": "grpcs://token@build.example.com"},
        {"endpoint": "grpcs://build.example.com:99999"},
        {"instance": "main/blobs"},
        {"instance": "a//b"},
        {"instance": "../main"},
        {"instance": "x" * 300},
        {"token": "two words"},
        {"token": "line\nbreak"},
    ],
)
def test_a_service_that_would_see_a_secret_in_the_clear_or_another_name_is_refused(
    wrong: dict[str, Any],
) -> None:
    with pytest.raises(CallerError):
        ServiceConfig(**{"endpoint": "grpcs://build.example.com"} | wrong)


def test_a_foreign_result_that_breaks_a_limit_is_refused() -> None:
    huge = Digest("0" * 64, 1 << 39)
    for data in (b"nonsense", encode_entry_result(b"", huge), b"x" * (80 << 20)):
        with pytest.raises(CallerError):
            parse_foreign_result(data)
