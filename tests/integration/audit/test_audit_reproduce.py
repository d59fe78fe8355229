"""Reproducing an audit row gives equal outputs, different outputs, or the name of what is missing.

Guests are fake here.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from hpcc.core import (
    Blob,
    Digest,
    ImageDigest,
    InfrastructureError,
    InputFile,
    InputPart,
    IntegrityError,
    Isolation,
    NotFoundError,
)
from hpcc.ports import AuditRow, Runtime, SystemClock
from hpcc.worker.execute.reproduce import Reproduction, Verdict, reproduce_row
from hpcc.worker.stores.retained import RetainedInputs
from hpcc_testkit.farm.audit_rows import made
from hpcc_testkit.farm.in_process import IMAGE, TENANT, FarmUnderTest, farm_under_test

SCRIPT = "cat dir/a.c > a.o; cat b.h >> a.o"


@pytest.fixture
async def farm(tmp_path: Path) -> AsyncGenerator[FarmUnderTest]:
    async with farm_under_test(tmp_path) as farm:
        yield farm


async def compiled(farm: FarmUnderTest, script: str = SCRIPT) -> tuple[list[Blob], AuditRow]:
    blobs = made(script)
    async with farm.serving(), farm.client() as client:
        await client.upload(blobs)
        await client.execute(blobs[-1].digest, ["a.o"])
    return blobs, farm.audit.rows[-1]


def lose(farm: FarmUnderTest, blob: Blob) -> None:
    """Remove a blob from the cache, from the retained blobs, and from the lists of sources."""
    found = list((farm.directory / "worker/store" / TENANT.value).glob(f"*/??/{blob.digest.hash}"))
    assert {file.parts[-3] for file in found} >= {"cas", "retained"}
    for file in found:
        file.unlink()


class Images:
    """The farm's images: one image, or no image any more."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    async def image(self, digest: ImageDigest) -> Path:
        if self._path is None:
            raise NotFoundError(f"no image {digest}")
        return self._path


async def again(
    farm: FarmUnderTest, row: AuditRow, *, has_image: bool = True, works: bool = True
) -> Reproduction:
    async def choose(isolation: Isolation, state: Path) -> Runtime:
        assert state.is_dir()  # noqa: ASYNC240 - a test
        if not works:
            raise InfrastructureError(f"no {isolation} here")
        return farm.runtime

    return await reproduce_row(
        farm.worker_config(),
        row,
        choose_runtime=choose,
        images=Images(farm.directory / "image" if has_image else None),
        progress=lambda _: None,
    )


async def test_a_row_is_reproduced_from_what_was_retained(farm: FarmUnderTest) -> None:
    _, row = await compiled(farm)
    result = await again(farm, row)
    assert (result.verdict, result.outputs) == (Verdict.REPRODUCED, 1), result


async def test_a_hit_is_reproduced_too(farm: FarmUnderTest) -> None:
    blobs, _ = await compiled(farm)
    async with farm.serving(), farm.client() as client:
        await client.execute(blobs[-1].digest, ["a.o"])
    row = farm.audit.rows[-1]
    assert row.cache_status == "hit"
    assert (await again(farm, row)).verdict is Verdict.REPRODUCED


async def test_other_bytes_are_found_and_named(farm: FarmUnderTest) -> None:
    _, row = await compiled(farm, "od -An -N8 -tx1 /dev/urandom > a.o")
    result = await again(farm, row)
    assert result.verdict is Verdict.DIFFERENT
    assert [f.name for f in result.findings] == ["a.o"]
    assert row.outputs[0][1] in result.findings[0].text


async def test_a_row_with_a_forged_output_digest_is_not_reproduced(farm: FarmUnderTest) -> None:
    _, row = await compiled(farm)
    forged = dataclasses.replace(row, outputs=(("a.o", str(Digest.of(b"evil"))),))
    assert (await again(farm, forged)).verdict is Verdict.DIFFERENT
    failed = dataclasses.replace(row, exit_code=1)
    assert [f.name for f in (await again(farm, failed)).findings] == ["exit code"]


async def test_the_cache_may_turn_over_and_what_is_retained_stays(farm: FarmUnderTest) -> None:
    farm.worker_fields["max_store_bytes"] = 4000
    blobs, row = await compiled(farm)
    async with farm.serving(), farm.client() as client:
        for number in range(8):
            await client.upload([Blob.of(bytes([number]) * 2000)])
    cas = farm.directory / "worker/store" / TENANT.value / "cas"
    left = {p.name for p in cas.glob("??/*")}
    assert not left & {b.digest.hash for b in blobs}
    assert (await again(farm, row)).verdict is Verdict.REPRODUCED


@pytest.mark.parametrize(
    ("which", "name"),
    [(0, "dir/a.c"), (1, "b.h"), (-2, "command"), (-1, "action")],
)
async def test_what_expired_is_named_with_its_digest(
    farm: FarmUnderTest, which: int, name: str
) -> None:
    blobs, row = await compiled(farm)
    lose(farm, blobs[which])
    result = await again(farm, row)
    assert result.verdict is Verdict.EXPIRED
    assert (result.findings[0].name, result.findings[0].text) == (name, str(blobs[which].digest))


async def test_an_expired_directory_and_image_are_named_together(farm: FarmUnderTest) -> None:
    blobs, row = await compiled(farm)
    root = next(b for b in blobs if str(b.digest) == row.input_root_digest)
    lose(farm, root)
    result = await again(farm, row, has_image=False)
    assert [f.name for f in result.findings] == ["the root directory", "image"]
    assert result.findings[1].text == IMAGE.digest.value


async def test_a_retained_input_that_was_changed_is_not_used(farm: FarmUnderTest) -> None:
    blobs, row = await compiled(farm)
    for directory in ("cas", "retained"):
        name = blobs[0].digest.hash
        path = farm.directory / "worker/store" / TENANT.value / directory / name[:2] / name
        path.write_bytes(b"int z;\n")
    result = await again(farm, row)
    assert [f.name for f in result.findings] == ["dir/a.c"]


async def test_another_isolation_than_the_rows_is_no_reproduction(farm: FarmUnderTest) -> None:
    _, row = await compiled(farm)
    strong = dataclasses.replace(row, isolation="firecracker/kvm")
    assert (await again(farm, strong)).verdict is Verdict.UNAVAILABLE
    assert (await again(farm, row, works=False)).verdict is Verdict.UNAVAILABLE


async def test_a_row_whose_action_has_another_tree_or_image_is_refused(farm: FarmUnderTest) -> None:
    _, row = await compiled(farm)
    with pytest.raises(IntegrityError):
        await again(farm, dataclasses.replace(row, input_root_digest=row.action_digest))
    with pytest.raises(IntegrityError):
        await again(farm, dataclasses.replace(row, image_digest="sha256:" + "ef" * 32))


async def test_a_row_without_a_result_is_not_compared(farm: FarmUnderTest) -> None:
    _, row = await compiled(farm)
    abandoned = dataclasses.replace(row, cache_status="abandoned", reason="cancelled")
    assert (await again(farm, abandoned)).verdict is Verdict.NOT_COMPARABLE


async def test_with_retention_off_nothing_is_kept(farm: FarmUnderTest) -> None:
    farm.worker_fields["retain_days"] = 0.0
    await compiled(farm)
    assert not (farm.directory / "worker/store" / TENANT.value / "retained").exists()


class Source:
    """A blob store that counts its reads."""

    def __init__(self, blobs: list[Blob]) -> None:
        self.blobs = {b.digest: b for b in blobs}
        self.reads = 0

    async def get(self, digest: Digest) -> Blob:
        self.reads += 1
        if digest not in self.blobs:
            raise NotFoundError("gone")
        return self.blobs[digest]

    async def put(self, blob: Blob) -> None:
        raise NotImplementedError

    async def find_missing(self, digests: object) -> frozenset[Digest]:
        raise NotImplementedError


async def test_retained_inputs_expire_by_their_age_and_use_prolongs_them(tmp_path: Path) -> None:
    from hpcc.reapi.action import parse_action

    blobs = made(SCRIPT)
    spec = parse_action(blobs[-1].data)
    files = tuple(InputFile(b.digest.hash, b.digest) for b in blobs[:-2])
    inputs = (InputPart(spec.input_root, files),)
    retained = RetainedInputs(tmp_path, max_bytes=1 << 20, keep_seconds=1000.0, clock=SystemClock())
    source = Source(blobs)
    await retained.keep(TENANT, source, blobs[-1].digest, spec, inputs)
    kept = sorted((tmp_path / TENANT.value / "retained").glob("??/*"))
    assert len(kept) == len(blobs)
    reads = source.reads
    await retained.keep(TENANT, source, blobs[-1].digest, spec, inputs)
    assert source.reads == reads, "nothing is read again"
    assert retained.remove_expired() == 0
    for file in kept:
        status = file.stat()
        os.utime(file, (status.st_mtime - 900, status.st_mtime - 900))
    fresh = RetainedInputs(tmp_path, max_bytes=1 << 20, keep_seconds=1000.0, clock=SystemClock())
    await fresh.keep(
        TENANT, source, blobs[-1].digest, spec, [InputPart(spec.input_root, files[1:])]
    )
    old = next(f for f in kept if f.name == blobs[0].digest.hash)
    os.utime(old, (old.stat().st_mtime - 200, old.stat().st_mtime - 200))
    assert fresh.remove_expired() == 1
    assert not old.exists()


async def test_inputs_that_cannot_be_retained_are_an_event_and_no_failure(
    farm: FarmUnderTest,
) -> None:
    directory = farm.directory / "worker/store" / TENANT.value
    directory.mkdir(parents=True)
    (directory / "retained").mkdir()
    for number in range(256):
        (directory / "retained" / f"{number:02x}").write_bytes(b"")  # no directory can be made
    _, row = await compiled(farm)
    assert row.cache_status == "executed"
    assert "inputs-not-retained" in farm.audit.names()
