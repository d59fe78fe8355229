"""BuildGrid, another REAPI service, as a store for workers."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from hpcc.core import Blob, Digest, InfrastructureError, NotFoundError
from hpcc.rpc.reapi.client import ReapiClient
from hpcc.rpc.reapi.foreign_service import (
    ServiceActionCache,
    ServiceBlobStore,
    ServiceConfig,
    connect_service,
)
from hpcc_testkit.cache.store_contract import BLOB, ActionCacheContract, BlobStoreContract
from hpcc_testkit.services.buildgrid_server import INSTANCE, BuildGrid, buildgrid, missing_or_none

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuildGrid]:
    if missing := missing_or_none():
        pytest.skip(missing)
    with buildgrid(tmp_path_factory.mktemp("buildgrid")) as running:
        yield running


@pytest.fixture
async def client(service: BuildGrid) -> AsyncIterator[ReapiClient]:
    config = ServiceConfig(endpoint=service.endpoint, instance=INSTANCE)
    async with connect_service(config) as client:
        yield client


class TestBlobs(BlobStoreContract):
    @pytest.fixture
    def store(self, client: ReapiClient) -> ServiceBlobStore:
        return ServiceBlobStore(client)

    async def test_a_right_hash_with_a_wrong_size_is_absent_and_harms_nothing(
        self, store: ServiceBlobStore
    ) -> None:
        # It goes by the hash alone when it says what it lacks, as buildbox-casd does; what it hands
        # out is checked here, and the blob stays good.
        await store.put(BLOB)
        for size in (BLOB.digest.size_bytes - 1, BLOB.digest.size_bytes + 1):
            with pytest.raises((NotFoundError, InfrastructureError)):
                await store.get(Digest(BLOB.digest.hash, size))
        assert await store.get(BLOB.digest) == BLOB


class TestResults(ActionCacheContract):
    @pytest.fixture
    def cache(self, client: ReapiClient) -> ServiceActionCache:
        return ServiceActionCache(client, f"ac/{uuid.uuid4().hex}")


async def test_it_says_what_it_can_do(client: ReapiClient) -> None:
    said = await client.capabilities()
    assert said.has_sha256
    assert said.lowest_api <= (2, 0) <= said.highest_api
    assert not said.can_execute


async def test_a_large_blob_and_a_large_result_go_through(client: ReapiClient) -> None:
    blob = Blob.of(os.urandom(9 << 20))
    store = ServiceBlobStore(client)
    await store.put(blob)
    assert await store.get(blob.digest) == blob
    cache = ServiceActionCache(client, "ac/large")
    await cache.put(Digest.of(b"large"), blob.data)
    assert await cache.get(Digest.of(b"large")) == blob.data


async def test_an_entry_of_ours_is_not_the_result_of_the_action_for_others(
    client: ReapiClient,
) -> None:
    action = Digest.of(b"an action of both")
    await ServiceActionCache(client, "ac").put(action, b"entry")
    with pytest.raises(NotFoundError):
        await client.action_result(action, ())


async def test_an_instance_that_it_does_not_have_is_an_error(service: BuildGrid) -> None:
    config = ServiceConfig(endpoint=service.endpoint, instance="somebody-else")
    async with connect_service(config) as client:
        with pytest.raises(InfrastructureError):
            await ServiceBlobStore(client).put(BLOB)
