"""Images for tests: hostile layers, small layouts, and a registry that can lie.

`tar_bytes` makes layers, `make_image` an image of them, and `LyingRegistry` serves images.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import zstandard

from hpcc.core import Digest, ImageDigest
from hpcc.images.oci.blobfile import LayerFile

REG, SYM, HARD = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
DIR, CHR, BLK, FIFO = tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE
GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
PLAIN_LAYER = "application/vnd.oci.image.layer.v1.tar"
ZSTD_LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True, slots=True)
class Item:
    """One tar member to write; `text` is a file's content or a link's target."""

    name: str
    kind: bytes = REG
    text: str = ""
    mode: int = 0o644


def tar_bytes(items: Sequence[Item], *, form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return an archive with exactly these members, also hostile ones."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for item in items:
            info = tarfile.TarInfo(item.name)
            info.type, info.mode = item.kind, item.mode
            data = item.text.encode("utf-8", "surrogateescape")
            if item.kind == REG:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            else:
                info.linkname = item.text
                archive.addfile(info)
    return out.getvalue()


def read_clean_tar(data: bytes) -> dict[str, str]:
    """Return the members of a clean tar by path, each as a short description."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for info in archive:
            if info.isreg():
                content = archive.extractfile(info)
                assert content is not None
                text = content.read().decode("utf-8", "surrogateescape")
                found[info.name] = f"file {info.mode:o} {text}"
            elif info.issym():
                found[info.name] = f"symlink {info.linkname}"
            elif info.islnk():
                found[info.name] = f"hardlink {info.linkname}"
            else:
                found[info.name] = f"dir {info.mode:o}"
    return found


@dataclass
class SmallImage:
    """Blobs of one image in memory, by `sha256:…`."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifest_digest: str = ""
    layer_digests: list[str] = field(default_factory=list)

    @property
    def digest(self) -> ImageDigest:
        return ImageDigest(self.manifest_digest)

    def put(self, data: bytes, media_type: str) -> dict[str, object]:
        name = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[name] = data
        return {"mediaType": media_type, "digest": name, "size": len(data)}

    def write_layout(self, path: Path, *, name: str = "t:1") -> Path:
        """Write an OCI layout directory."""
        blobs = path / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        for digest, data in self.blobs.items():
            (blobs / digest.removeprefix("sha256:")).write_bytes(data)
        pointer = {
            "mediaType": MANIFEST,
            "digest": self.manifest_digest,
            "size": len(self.blobs[self.manifest_digest]),
            "annotations": {"org.opencontainers.image.ref.name": name},
        }
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [pointer]}
        (path / "index.json").write_text(json.dumps(index))
        (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        return path


def make_image(
    layers: Sequence[bytes],
    *,
    architecture: str = "amd64",
    compress: str = GZIP_LAYER,
    labels: Mapping[str, str] | None = None,
) -> SmallImage:
    """Return an image of these layer tars."""
    image = SmallImage()
    descriptors = []
    for layer in layers:
        packed = _packed(layer, compress)
        descriptors.append(image.put(packed, compress))
        image.layer_digests.append(str(descriptors[-1]["digest"]))
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Labels": dict(labels or {})},
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in layers],
        },
    }
    pointer = image.put(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json")
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": pointer,
        "layers": descriptors,
    }
    image.manifest_digest = str(image.put(json.dumps(manifest).encode(), MANIFEST)["digest"])
    return image


def _packed(layer: bytes, media_type: str) -> bytes:
    if media_type == GZIP_LAYER:
        return gzip.compress(layer, 1, mtime=0)
    return zstandard.ZstdCompressor().compress(layer) if media_type == ZSTD_LAYER else layer


def layer_files(directory: Path, layers: Sequence[bytes]) -> list[LayerFile]:
    """Write blobs unchanged, under their true digests."""
    files = []
    for data in layers:
        digest = Digest.of(data)
        (directory / digest.hash).write_bytes(data)
        files.append(LayerFile(directory / digest.hash, digest))
    return files


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that the test registry saw."""

    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """A registry's answer. `length` overrides Content-Length; `is_endless` never stops."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    is_endless: bool = False


@dataclass
class LyingRegistry:
    """A registry on loopback whose answers a test chooses.

    `respond` may return an Answer for a request, or None for the honest answer. With
    `is_stalling` the connection stays open after a body that is shorter than its length.
    """

    image: SmallImage
    name: str = "t"
    tags: dict[str, str] = field(default_factory=dict)
    respond: Callable[[Asked], Answer | None] = lambda _asked: None
    port: int = 0
    is_stalling: bool = False
    asked: list[Asked] = field(default_factory=list)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def repository(self) -> str:
        return f"127.0.0.1:{self.port}/{self.name}"

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[LyingRegistry]:
        """Listen on a free port until the block ends."""
        server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self
            server.close()
            for writer in list(self._writers):
                writer.close()

    def _honest(self, path: str) -> Answer:
        for kind in ("manifests", "blobs"):
            prefix = f"/v2/{self.name}/{kind}/"
            if path.startswith(prefix):
                name = path.removeprefix(prefix)
                data = self.image.blobs.get(self.tags.get(name, name))
                if data is not None:
                    return Answer(body=data)
        return Answer(404, b"{}")

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode("latin-1").split("\r\n")
                pairs = [line.partition(": ") for line in lines[1:] if ": " in line]
                headers = {key.lower(): value for key, _, value in pairs}
                asked = Asked(lines[0].split(" ")[1], headers)
                self.asked.append(asked)
                await self._send(writer, self.respond(asked) or self._honest(asked.path))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _send(self, writer: asyncio.StreamWriter, answer: Answer) -> None:
        length = len(answer.body) if answer.length is None else answer.length
        head = [f"HTTP/1.1 {answer.status} X"]
        if not answer.is_endless:
            head.append(f"Content-Length: {length}")
        head += [f"{key}: {value}" for key, value in answer.headers.items()]
        writer.write("\r\n".join([*head, "", ""]).encode())
        writer.write(answer.body)
        while answer.is_endless:
            writer.write(bytes(1 << 16))
            await writer.drain()
        await writer.drain()
        if length != len(answer.body) and not self.is_stalling:
            writer.close()
