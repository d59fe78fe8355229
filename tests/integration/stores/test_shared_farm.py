"""Workers share a tenant's results over real S3; while it is down, builds go on without hits."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from hpcc.core import Blob, Digest, InputFile, TenantId
from hpcc.reapi.action import ActionSpec, encode_action
from hpcc.reapi.command import CommandSpec, encode_command
from hpcc.reapi.result import ResultRecord
from hpcc.reapi.tree import build_tree
from hpcc.rpc.reapi.client import ReapiClient
from hpcc_testkit.farm.in_process import IMAGE, FarmUnderTest, farm_under_test
from hpcc_testkit.hostile.rooted_farm import EVIL, GOOD, scheduling
from hpcc_testkit.services.buildbox import casd
from hpcc_testkit.services.buildbox import missing_or_none as casd_missing_or_none
from hpcc_testkit.services.s3_servers import (
    ADMIN,
    BUCKET,
    S3Server,
    radosgw,
    radosgw_missing_or_none,
)
from hpcc_testkit.services.scraped import scrape
from hpcc_testkit.services.tcp_proxy import tcp_proxy

pytestmark = pytest.mark.timeout(300)

TENANT = TenantId("acme")


def stores(directory: Path, server: S3Server, endpoint: str = "", **more: Any) -> dict[str, Any]:
    """Write each tenant's credential as an operator does; return the `stores` section."""
    for tenant, key in server.keys.items():
        file = directory / f"{tenant}.json"
        file.touch(mode=0o600)
        file.write_text(
            json.dumps(
                {
                    "access_key_id": key.access_key_id,
                    "secret_access_key": key.secret_access_key,
                }
            )
        )
    return {
        "kind": "s3",
        "endpoint": endpoint or server.endpoint,
        "bucket": BUCKET if server.kind == "seaweedfs" else "{tenant}",
        "credentials": f"{directory}/{{tenant}}.json",
        "call_seconds": 30.0,
        "patience_seconds": 60.0,
        **more,
    }


async def build(client: ReapiClient, text: str) -> tuple[ResultRecord, bool, bytes]:
    """Compile as a daemon does; return the result, whether it was cached, and the object."""
    source = Blob.of(text.encode())
    tree = build_tree([InputFile("a.c", source.digest)], [])
    command = encode_command(
        CommandSpec(
            argv=("sh", "-c", "cat a.c a.c > a.o; echo warned >&2"),
            env=(("PATH", "/usr/bin:/bin"),),
            cwd="",
            outputs=("a.o",),
            image=IMAGE,
        )
    )
    action = encode_action(
        ActionSpec(command=Digest.of(command), input_root=tree.root, image=IMAGE, salt=b"t")
    )
    blobs = [source, Blob.of(command), Blob.of(action), *map(Blob.of, tree.directories.values())]
    missing = await client.find_missing([b.digest for b in blobs])
    await client.upload([b for b in blobs if b.digest in missing])
    record, is_cached = await client.execute(Digest.of(action), ("a.o",))
    (output,) = record.outputs
    data = (await client.download([output.digest]))[output.digest].data
    assert data == source.data * 2
    return record, is_cached, data


def another_worker(farm: FarmUnderTest, name: str) -> None:
    """Make the next worker start with empty directories."""
    base = farm.directory / name
    farm.worker_fields |= {
        "worker_id": name,
        "store": base / "store",
        "keys": base / "keys",
        "state": base / "state",
    }


def events(farm: FarmUnderTest) -> list[tuple[str, dict[str, str]]]:
    return [(e.name, dict(e.fields)) for e in farm.audit.events if e.name.startswith("store-")]


async def test_two_workers_share_hits_over_s3(server: S3Server, tmp_path: Path) -> None:
    async with farm_under_test(tmp_path, stores=stores(tmp_path, server)) as farm:
        async with farm.serving(), farm.client() as client:
            made, is_cached, data = await build(client, f"int one_{server.kind};")
            assert not is_cached
        booted = farm.runtime.booted
        another_worker(farm, "w2")
        async with farm.serving(), farm.client() as client:
            shared, is_cached, same = await build(client, f"int one_{server.kind};")
        assert is_cached
        assert farm.runtime.booted == booted  # nothing ran
        assert (same, shared.stderr, shared.worker) == (data, made.stderr, "w1")
        assert [row.cache_status for row in farm.audit.rows] == ["executed", "hit"]
        assert not events(farm)


async def test_two_workers_share_hits_over_another_reapi_service(tmp_path: Path) -> None:
    if missing := casd_missing_or_none():
        pytest.skip(missing)
    with casd(tmp_path / "casd") as service:
        section = {"kind": "reapi", "endpoint": service.endpoint, "instance": ""}
        patient = {"call_seconds": 30.0, "patience_seconds": 60.0}
        stores = {"tenants": {"acme": section | patient}}
        async with farm_under_test(tmp_path / "farm", stores=stores) as farm:
            async with farm.serving(), farm.client() as client:
                await build(client, "int one;")
            booted = farm.runtime.booted
            another_worker(farm, "w2")
            async with farm.serving(), farm.client() as client:
                _, is_cached, _ = await build(client, "int one;")
                assert is_cached
                assert farm.runtime.booted == booted
                assert not events(farm)
                await asyncio.to_thread(service.kill)
                for unit in range(4):
                    await build(client, f"int without_{unit};")
                assert events(farm)[0][0] == "store-degraded"


async def test_what_is_kept_in_s3_is_below_the_tenants_prefix_and_compressed(
    server: S3Server, tmp_path: Path
) -> None:
    text = "int same; " * 10_000
    section = stores(tmp_path, server)
    async with (
        farm_under_test(tmp_path, stores=section) as farm,
        farm.serving(),
        farm.client() as client,
    ):
        await build(client, text)
    bucket = BUCKET if server.kind == "seaweedfs" else "acme"
    digest = Digest.of(text.encode() * 2)
    path = f"/{bucket}/acme/cas/{digest.hash[:2]}/{digest.hash}-{digest.size_bytes}"
    kept = server.request("GET", path, key=server.keys["acme"]).content
    assert kept[:1] == b"\1"
    assert len(kept) < digest.size_bytes / 10
    assert server.request("GET", path, key=server.keys["globex"]).status_code == 403


async def test_a_damaged_object_is_made_again_and_told(server: S3Server, tmp_path: Path) -> None:
    text = f"int damaged_{server.kind};"
    section = stores(tmp_path, server)
    async with farm_under_test(tmp_path, stores=section) as farm:
        async with farm.serving(), farm.client() as client:
            await build(client, text)
        digest = Digest.of(text.encode() * 2)
        bucket = BUCKET if server.kind == "seaweedfs" else "acme"
        path = f"/{bucket}/acme/cas/{digest.hash[:2]}/{digest.hash}-{digest.size_bytes}"
        lie = b"\0" + b"x" * digest.size_bytes
        assert server.request("PUT", path, key=server.keys["acme"], body=lie).status_code == 200
        another_worker(farm, "w2")
        async with farm.serving(), farm.client() as client:
            _, is_cached, _ = await build(client, text)
            assert not is_cached
        assert events(farm) == [("store-damaged", {"what": "blob", "reason": "digest-mismatch"})]
        another_worker(farm, "w3")
        async with farm.serving(), farm.client() as client:
            _, is_cached, _ = await build(client, text)
        assert is_cached  # the second worker's put healed it


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[S3Server]:
    if missing := radosgw_missing_or_none():
        pytest.skip(missing)
    with radosgw(tmp_path / "s3", tenants=("acme",)) as server:
        yield server


def wait_published(server: S3Server) -> None:
    """Wait until a result is in S3, because that write follows the answer."""
    key = server.keys["acme"]
    deadline = time.monotonic() + 60
    while b"<Key>" not in server.request("GET", "/acme?prefix=acme/ac/", key=key).content:
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def test_a_build_goes_on_when_s3_dies_and_shares_again_when_it_is_back(
    own_server: S3Server, tmp_path: Path
) -> None:
    section = stores(tmp_path, own_server, breaker_seconds=0.2)
    is_open = "hpcc_store_breaker_open"
    async with farm_under_test(tmp_path / "farm", admin="127.0.0.1:0", stores=section) as farm:
        async with farm.serving() as worker, farm.client() as client:
            await build(client, "int before;")
            await asyncio.to_thread(wait_published, own_server)
            own_server.kill()
            for unit in range(6):
                _, is_cached, _ = await build(client, f"int during_{unit};")
                assert not is_cached
            _, is_cached, _ = await build(client, "int during_0;")
            assert is_cached  # from the worker's own disk
            assert events(farm)[0][0] == "store-degraded"
            during = await asyncio.to_thread(scrape, worker.admin)
            assert during.value(is_open, tenant="acme") == 1
            assert during.total("hpcc_store_failures_total") > 0
            await asyncio.to_thread(own_server.restart)
            # A call that began before the store was back may fail after it, which opens it again.
            unit, after = 0, during
            while after.value(is_open, tenant="acme") or (
                "store-recovered" not in {name for name, _ in events(farm)}
            ):
                unit += 1
                await build(client, f"int after_{unit};")
                await asyncio.sleep(0.1)
                after = await asyncio.to_thread(scrape, worker.admin)
            await build(client, "int shared_again;")
            after = await asyncio.to_thread(scrape, worker.admin)
            calls = after.value("hpcc_store_calls_total", operation="put")
            assert 0 < after.value("hpcc_store_call_seconds_count", operation="put") <= calls
            assert after.value("hpcc_store_bytes", tenant="acme") > 0
        another_worker(farm, "w2")
        async with farm.serving(), farm.client() as client:
            for text in ("int before;", "int shared_again;"):
                _, is_cached, _ = await build(client, text)
                assert is_cached


async def test_a_build_goes_on_when_s3_stalls(own_server: S3Server, tmp_path: Path) -> None:
    async with tcp_proxy("127.0.0.1", urlsplit(own_server.endpoint).port or 0) as proxy:
        section = stores(
            tmp_path,
            own_server,
            f"http://127.0.0.1:{proxy.port}",
            call_seconds=1.0,
            breaker_seconds=600.0,
        )
        async with farm_under_test(tmp_path / "farm", stores=section) as farm:
            async with farm.serving(), farm.client() as client:
                proxy.stall()
                for unit in range(4):
                    await build(client, f"int unit_{unit};")
                seen = proxy.connections
                await build(client, "int nobody_asks;")
                assert proxy.connections == seen
            assert events(farm) == [("store-degraded", {"reason": "store-timeout"})]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "store-config"),
        ("not json", "store-config"),
        ('{"access_key_id": "key-acme", "secret_access_key": "wrong"}', "store-denied"),
    ],
)
async def test_a_credential_that_is_no_good_costs_no_build(
    server: S3Server, tmp_path: Path, content: str | None, reason: str
) -> None:
    section = stores(tmp_path, server)
    file = tmp_path / "acme.json"
    if content is None:
        file.chmod(0o644)
    else:
        file.write_text(content)
    async with (
        farm_under_test(tmp_path / "farm", stores=section) as farm,
        farm.serving(),
        farm.client() as client,
    ):
        await build(client, "int wrong;")
    assert events(farm)[0] == ("store-degraded", {"reason": reason})
    assert "wrong" not in str(events(farm))


@asynccontextmanager
async def two_workers(farm: FarmUnderTest) -> AsyncGenerator[None]:
    """Run the workers w1 and w2, each with a separate disk and key."""
    async with farm.serving():
        another_worker(farm, "w2")
        async with farm.serving():
            yield


def stored(server: S3Server, kind: str) -> int:
    """Return how many of a tenant's entries of this kind are in the store."""
    is_seaweed = server.kind == "seaweedfs"
    bucket, key = (BUCKET, ADMIN) if is_seaweed else ("acme", server.keys["acme"])
    path = f"/{bucket}?list-type=2&prefix=acme%2Fac%2F&max-keys=1000"
    listing = server.request("GET", path, key=key).text
    return len([k for k in re.findall(r"<Key>([^<]+)</Key>", listing) if f"/{kind}/" in k])


async def until_stored(server: S3Server, kind: str, count: int) -> None:
    """Wait until the store has so many entries of a kind, because writes follow the answers."""
    async with asyncio.timeout(60):
        while await asyncio.to_thread(stored, server, kind) < count:  # noqa: ASYNC110 - of a server
            await asyncio.sleep(0.05)


async def test_ann_at_one_worker_and_bob_at_another_agree_and_carol_hits(
    server: S3Server, tmp_path: Path
) -> None:
    async with scheduling(tmp_path, stores=stores(tmp_path, server)) as farm:
        farm.uses = {"ann": "w1", "mallory": "w2", "bob": "w2", "carol": "w1"}
        async with two_workers(farm.farm):
            claims, shared = stored(server, "claims"), stored(server, "shared")
            for name in farm.uses:
                await farm.warm(name)
            await farm.root("mallory")
            # The first compile of each guest serves everybody. An action's first claim has an index.
            await until_stored(server, "shared", shared + 4)
            await until_stored(server, "claims", claims + 2)
            assert await farm.build("ann") == (GOOD, False)
            await until_stored(server, "claims", claims + 4)
            assert await farm.build("mallory") == (EVIL, False)
            await until_stored(server, "claims", claims + 5)
            assert await farm.build("bob") == (GOOD, False)
            await until_stored(server, "shared", shared + 5)
            assert await farm.build("carol") == (GOOD, True)
        assert farm.labels() == ["agreed(2)"]
        rows = [r for r in farm.farm.audit.rows if r.cache_status == "executed"]
        assert [r.worker for r in rows[-3:]] == ["w1", "w2", "w2"]
