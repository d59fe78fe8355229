"""The store of prepared images: one preparation, checks, bounded size, no rest after crashes."""

import asyncio
import contextlib
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from hpcc.core import (
    CallerError,
    ImageDigest,
    ImageRef,
    InfrastructureError,
    IntegrityError,
    NotFoundError,
)
from hpcc.images.assembly.erofs import BUILDER_VERSION
from hpcc.images.oci.layout import OciLayout
from hpcc.images.oci.registry import OciRegistry
from hpcc.images.oci.source import FetchedImage, Progress
from hpcc.images.store import ImageStore
from hpcc.ports import SystemClock
from hpcc_testkit.guests.images import (
    PLAIN_LAYER,
    ZSTD_LAYER,
    Item,
    SmallImage,
    make_image,
    tar_bytes,
)
from hpcc_testkit.suite.pipes import gone

pytestmark = pytest.mark.skipif(shutil.which("mkfs.erofs") is None, reason="no erofs-utils")


def small(text: str = "1", **kwargs: object) -> SmallImage:
    return make_image([tar_bytes([Item("bin/cc", text=text)])], **kwargs)  # type: ignore[arg-type]  # passed on


def store_at(path: Path, **kwargs: object) -> ImageStore:
    return ImageStore(path, SystemClock(), **kwargs)  # type: ignore[arg-type]  # passed on


def ref_of(image: SmallImage) -> ImageRef:
    return ImageRef("localhost/t", image.digest)


class CountingSource:
    def __init__(self, layout: OciLayout) -> None:
        self.layout, self.count = layout, 0

    async def fetch(self, ref: ImageRef, blobs: Path, progress: Progress) -> FetchedImage:
        self.count += 1
        await asyncio.sleep(0.2)
        return await self.layout.fetch(ref, blobs, progress)


def leftovers(directory: Path) -> list[str]:
    found = [p for p in directory.rglob("*") if p.is_file() and p.parent.name != "locks"]
    return sorted(
        p.name for p in found if not p.name.endswith((".erofs", ".json")) or "work" in p.parts
    )


@pytest.mark.parametrize("compress", [PLAIN_LAYER, ZSTD_LAYER])
async def test_an_image_is_prepared_and_found_again(tmp_path: Path, compress: str) -> None:
    image = small(compress=compress, labels={"io.hpcc.toolchain": "x"})
    layout = OciLayout(image.write_layout(tmp_path / "l"))
    store = store_at(tmp_path / "s")
    stages = []
    made = await store.prepare(ref_of(image), layout, lambda stage, _d, _t: stages.append(stage))
    assert made.size_bytes % 4096 == 0
    assert made.digest == made.manifest_digest == image.digest
    assert made.env == (("PATH", "/bin"),)
    assert made.label("io.hpcc.toolchain") == "x"
    assert {"resolve", "build"} <= set(stages)
    again = store_at(tmp_path / "s")
    assert again.get(image.digest) == made
    assert again.list() == [made]
    assert again.find("localhost/t") == again.find(image.digest.hex[:12]) == made
    assert leftovers(tmp_path / "s") == []


async def test_many_callers_cause_one_build(tmp_path: Path) -> None:
    image = small()
    source = CountingSource(OciLayout(image.write_layout(tmp_path / "l")))
    stores = [store_at(tmp_path / "s") for _ in range(3)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(s.prepare(ref_of(image), source)) for s in (*stores, *stores)]
    assert source.count == 1
    assert len({task.result().sha256 for task in tasks}) == 1


async def test_an_index_keeps_both_digests(tmp_path: Path) -> None:
    image = small()
    size = len(image.blobs[image.manifest_digest])
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": image.manifest_digest,
        "size": size,
        "platform": {"os": "linux", "architecture": "amd64"},
    }
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    }
    pointer = image.put(json.dumps(index).encode(), "x")
    layout = OciLayout(image.write_layout(tmp_path / "l"))
    asked = ImageDigest(str(pointer["digest"]))
    made = await store_at(tmp_path / "s").prepare(ImageRef("localhost/t", asked), layout)
    assert made.digest == asked
    assert made.manifest_digest == image.digest


async def test_a_damaged_image_is_removed_and_made_again(tmp_path: Path) -> None:
    image = small()
    layout = OciLayout(image.write_layout(tmp_path / "l"))
    made = await store_at(tmp_path / "s").prepare(ref_of(image), layout)
    made.path.chmod(0o644)
    data = bytearray(made.path.read_bytes())
    data[2000] ^= 1
    made.path.write_bytes(data)
    store = store_at(tmp_path / "s")
    assert store.get(image.digest) is None
    assert not made.path.exists()
    assert (await store.prepare(ref_of(image), layout)).sha256 == made.sha256


async def test_damage_after_the_first_use_is_seen_by_stat(tmp_path: Path) -> None:
    image = small()
    layout = OciLayout(image.write_layout(tmp_path / "l"))
    store = store_at(tmp_path / "s")
    made = await store.prepare(ref_of(image), layout)
    made.path.chmod(0o644)
    os.truncate(made.path, 2048)
    assert store.get(image.digest) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"reference":5}', "\0"])
async def test_a_damaged_description_is_a_miss(tmp_path: Path, text: str) -> None:
    image = small()
    layout = OciLayout(image.write_layout(tmp_path / "l"))
    made = await store_at(tmp_path / "s").prepare(ref_of(image), layout)
    made.path.with_suffix(".json").write_text(text)
    store = store_at(tmp_path / "s")
    assert store.list() == []
    assert store.get(image.digest) is None
    assert (await store.prepare(ref_of(image), layout)).sha256 == made.sha256


@pytest.mark.parametrize("damage", [{"size_bytes": float("inf")}, {"created_at": 10**400}])
async def test_a_number_that_nothing_holds_is_a_damaged_description(
    tmp_path: Path, damage: dict[str, object]
) -> None:
    image = small()
    layout = OciLayout(image.write_layout(tmp_path / "l"))
    made = await store_at(tmp_path / "s").prepare(ref_of(image), layout)
    file = made.path.with_suffix(".json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **damage}))
    assert store_at(tmp_path / "s").list() == []


async def test_the_least_recently_used_image_goes_first(tmp_path: Path) -> None:
    images = [small(str(i)) for i in range(3)]
    directory = tmp_path / "s"
    made = []
    for i, image in enumerate(images):
        store = store_at(directory)
        layout = OciLayout(image.write_layout(tmp_path / f"l{i}"))
        made.append(await store.prepare(ref_of(image), layout))
        os.utime(made[-1].path.with_suffix(".json"), (1000 + i, 1000 + i))
        store.close()
    store = store_at(directory, max_bytes=made[0].size_bytes + made[1].size_bytes)
    assert store.get(images[0].digest) is not None  # now the newest use
    store.evict()
    assert {i.digest for i in store.list()} == {images[0].digest, images[2].digest}


async def test_an_image_in_use_by_another_store_is_never_evicted_or_removed(tmp_path: Path) -> None:
    image = small()
    layout = OciLayout(image.write_layout(tmp_path / "l"))
    user = store_at(tmp_path / "s")
    made = await user.prepare(ref_of(image), layout)
    other = store_at(tmp_path / "s", max_bytes=1)
    other.evict()
    assert made.path.exists()
    with pytest.raises(CallerError) as caught:
        other.remove(image.digest)
    assert caught.value.reason == "image-in-use"
    user.close()
    other.remove(image.digest)
    assert not made.path.exists()
    with pytest.raises(NotFoundError):
        other.remove(image.digest)


async def test_a_lying_layout_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    image = small()
    path = image.write_layout(tmp_path / "l")
    blob = path / "blobs/sha256" / image.layer_digests[0].removeprefix("sha256:")
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    with pytest.raises(IntegrityError) as caught:
        await store_at(tmp_path / "s").prepare(ref_of(image), OciLayout(path))
    assert caught.value.reason == "digest-mismatch"
    assert leftovers(tmp_path / "s") == []


async def test_a_layout_whose_blob_is_a_symlink_is_refused(tmp_path: Path) -> None:
    image = small()
    path = image.write_layout(tmp_path / "l")
    blob = path / "blobs/sha256" / image.layer_digests[0].removeprefix("sha256:")
    blob.rename(tmp_path / "elsewhere")
    blob.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError) as caught:
        await store_at(tmp_path / "s").prepare(ref_of(image), OciLayout(path))
    assert caught.value.reason == "blob-not-a-file"


async def test_a_directory_that_is_no_layout_says_so(tmp_path: Path) -> None:
    with pytest.raises(CallerError, match="not an OCI image layout"):
        await store_at(tmp_path / "s").prepare(ref_of(small()), OciLayout(tmp_path))


async def test_an_absent_digest_in_a_layout_is_not_found(tmp_path: Path) -> None:
    layout = OciLayout(small().write_layout(tmp_path / "l"))
    with pytest.raises(NotFoundError):
        await store_at(tmp_path / "s").prepare(ref_of(small("other")), layout)


async def test_a_directory_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    image = small()
    layout = OciLayout(image.write_layout(tmp_path / "l"))
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "work").write_text("in the way")
    with pytest.raises(InfrastructureError):
        await store_at(tmp_path / "s").prepare(ref_of(image), layout)


def test_a_local_image_that_is_gone_is_not_asked_of_a_registry(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="build-debian"):
        store_at(tmp_path).source_for(ref_of(small()), OciRegistry())


@pytest.mark.timeout(120)
async def test_kill_9_at_any_moment_leaves_a_store_that_works(tmp_path: Path) -> None:
    items = [Item(f"f{i}", text=str(i) * 300) for i in range(3000)]
    image = make_image([tar_bytes(items)])
    path = image.write_layout(tmp_path / "l")
    script = (
        "import asyncio, sys; from pathlib import Path\n"
        "from hpcc.core import ImageRef; from hpcc.ports import SystemClock\n"
        "from hpcc.images.oci.layout import OciLayout; from hpcc.images.store import ImageStore\n"
        "ref = ImageRef.parse(sys.argv[3])\n"
        "store = ImageStore(Path(sys.argv[1]), SystemClock())\n"
        "print('go', flush=True)\n"
        "asyncio.run(store.prepare(ref, OciLayout(Path(sys.argv[2]))))\n"
    )
    directory = tmp_path / "s"
    for delay_seconds in (0.02, 0.25, 0.5, 0.8):
        argv = [sys.executable, "-c", script, str(directory), str(path), str(ref_of(image))]
        process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        await process.stdout.readline()
        await asyncio.sleep(delay_seconds)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await gone(process)
    store = store_at(directory)
    made = await store.prepare(ref_of(image), OciLayout(path))
    assert store.list() == [made]
    assert leftovers(directory) == []


async def test_what_another_version_or_a_crash_left_is_swept(tmp_path: Path) -> None:
    image = small()
    layout = OciLayout(image.write_layout(tmp_path / "l"))
    store = store_at(tmp_path / "s")
    made = await store.prepare(ref_of(image), layout)
    names = [
        f"{'1' * 64}.v{BUILDER_VERSION}.erofs",
        f"{'2' * 64}.v999.erofs",
        f"{'3' * 64}.v1.json.new",
    ]
    for name in names:
        (made.path.parent / name).write_text("x")
    store.evict()
    assert sorted(p.name for p in made.path.parent.iterdir()) == sorted(
        [made.path.name, made.path.with_suffix(".json").name]
    )
