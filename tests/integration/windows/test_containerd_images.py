"""Images in a real containerd: looked up by digest, pulled, and read."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from hpcc.core import ImageDigest, ImageRef, IntegrityError, NotFoundError
from hpcc.runtime.containerd.client import Containerd, ContainerdError, unix_connector
from hpcc.runtime.windows.layers.containerd_images import ImageBook
from hpcc.runtime.windows.layers.images import HostBuild
from hpcc_testkit.guests.containerd_daemon import ContainerdDaemon, containerd_daemon
from hpcc_testkit.guests.images import SmallImage, make_image, tar_bytes

pytestmark = pytest.mark.timeout(120)
HOST = HostBuild(build=20348, is_hyperv=True)
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"


@pytest.fixture(scope="module")
def daemon() -> Iterator[ContainerdDaemon]:
    with containerd_daemon() as daemon:
        yield daemon


@pytest_asyncio.fixture
async def client(daemon: ContainerdDaemon) -> AsyncIterator[Containerd]:
    client = Containerd(unix_connector(daemon.socket))
    await client.ensure_namespace()
    try:
        yield client
    finally:
        client.close()


def windows_image() -> tuple[SmallImage, tuple[str, ...]]:
    """Make an index with an image for each of two builds; return also the older one's layers."""
    image = make_image([tar_bytes([])])
    manifest = json.loads(image.blobs[image.manifest_digest])
    config = json.loads(image.blobs[manifest["config"]["digest"]])
    entries = []
    for version in ("10.0.17763.1", "10.0.20348.2700", "10.0.26100.1"):
        config |= {"os": "windows", "os.version": version}
        manifest["config"] = image.put(json.dumps(config).encode(), CONFIG)
        entry = image.put(json.dumps(manifest).encode(), MANIFEST)
        platform = {"os": "windows", "architecture": "amd64", "os.version": version}
        entries.append(entry | {"platform": platform})
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    image.manifest_digest = str(image.put(json.dumps(index).encode(), INDEX)["digest"])
    return image, tuple(config["rootfs"]["diff_ids"])


def bring_in(daemon: ContainerdDaemon, image: SmallImage, directory: Path) -> None:
    """Import the image into containerd without unpacking it: this host is not Windows."""
    layout = image.write_layout(directory / "layout")
    pointer = (layout / "index.json").read_text()
    (layout / "index.json").write_text(pointer.replace(MANIFEST, INDEX))
    archive = str(directory / "image.tar")
    done = subprocess.run(
        ["tar", "-C", str(layout), "-cf", archive, "blobs", "index.json", "oci-layout"],
        check=False,
    )  # fmt: skip
    assert done.returncode == 0
    done = subprocess.run(
        ["ctr", "--address", str(daemon.socket), "--namespace", "hpcc", "images", "import",
         "--no-unpack", "--all-platforms", "--base-name", "t", archive],
        check=False, capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


async def test_an_image_is_found_by_its_digest_and_read(
    daemon: ContainerdDaemon, client: Containerd, tmp_path: Path
) -> None:
    image, layers = windows_image()
    book = ImageBook(client, "native")
    assert not await book.has(image.digest)
    await asyncio.to_thread(bring_in, daemon, image, tmp_path)
    assert await book.has(image.digest)
    assert await book.layers(image.digest, HOST) == layers
    with pytest.raises(NotFoundError, match="nothing for windows/amd64"):
        await book.layers(image.digest, HostBuild(build=14393, is_hyperv=True))
    with pytest.raises(NotFoundError, match="containerd has no image"):
        await book.layers(ImageDigest("sha256:" + "1" * 64), HOST)


async def test_what_is_pulled_is_asked_for_by_its_digest(client: Containerd) -> None:
    """No registry runs there: containerd accepts the request and reports the address it tried."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        where = f"127.0.0.1:{taken.getsockname()[1]}/windows/servercore"
        digest = "sha256:" + "0" * 64
        with pytest.raises(ContainerdError, match=f"/v2/windows/servercore/manifests/{digest}"):
            await ImageBook(client, "native").pull(ImageRef.parse(f"{where}@{digest}"))


async def test_content_that_is_not_there_or_too_large_is_refused(client: Containerd) -> None:
    book = ImageBook(client, "native")
    with pytest.raises(ContainerdError, match="NOT_FOUND"):
        await book.read("sha256:" + "2" * 64)
    with pytest.raises((ContainerdError, IntegrityError)):
        await book.read("junk")
