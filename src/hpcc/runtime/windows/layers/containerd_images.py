"""Images in containerd: looked up and pulled by digest, and read."""

from __future__ import annotations

import hashlib
from typing import Final

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from hpcc._proto.containerd import (
    content_pb2,
    images_pb2,
    imagestore_pb2,
    platform_pb2,
    registry_pb2,
    transfer_pb2,
)
from hpcc._proto.containerd.content_grpc import ContentStub
from hpcc._proto.containerd.images_grpc import ImagesStub
from hpcc._proto.containerd.transfer_grpc import TransferStub
from hpcc.core import ImageDigest, ImageRef, IntegrityError, NotFoundError
from hpcc.runtime.containerd.client import Containerd, foreign
from hpcc.runtime.windows.layers.images import (
    MAX_DOCUMENT_BYTES,
    HostBuild,
    config_of_manifest,
    layers_of_config,
    manifest_of_index,
)

_CALL_SECONDS: Final = 30.0
# Images have gigabytes, and Windows writes every file of them.
_PULL_SECONDS: Final = 3600.0


class ImageBook:
    """The images of one containerd. Every method raises `ContainerdError`."""

    def __init__(self, client: Containerd, snapshotter: str) -> None:
        self._snapshotter = snapshotter
        self._metadata = {"containerd-namespace": client.namespace}
        channel = client.channel
        self._images, self._content = ImagesStub(channel), ContentStub(channel)
        self._transfer = TransferStub(channel)

    async def has(self, image: ImageDigest) -> bool:
        """Return whether containerd has an image of this digest, under any name."""
        request = images_pb2.ListImagesRequest(filters=[f'target.digest=="{image}"'])
        async with foreign("list images"):
            answer = await self._images.List(
                request, timeout=_CALL_SECONDS, metadata=self._metadata
            )
        # containerd applies the filter; the digests are checked here all the same.
        return any(found.target.digest == str(image) for found in answer.images)

    async def pull(
        self, image: ImageRef, *, system: str = "windows", architecture: str = "amd64"
    ) -> None:
        """Make containerd fetch an image by its digest, check every digest and unpack it.

        Takes an hour at most.

        Raises:
            ContainerdError: the registry has no image of this digest, or cannot be reached.
        """
        platform = platform_pb2.Platform(os=system, architecture=architecture)
        request = transfer_pb2.TransferRequest(
            source=_any(registry_pb2.OCIRegistry(reference=str(image))),
            destination=_any(
                imagestore_pb2.ImageStore(
                    name=str(image),
                    platforms=[platform],
                    unpacks=[
                        imagestore_pb2.UnpackConfiguration(
                            platform=platform, snapshotter=self._snapshotter
                        )
                    ],
                )
            ),
        )
        async with foreign("pull"):
            await self._transfer.Transfer(request, timeout=_PULL_SECONDS, metadata=self._metadata)

    async def layers(self, image: ImageDigest, host: HostBuild) -> tuple[str, ...]:
        """Return the digests of an image's unpacked layers, the lowest first.

        Raises:
            NotFoundError: containerd lacks the image, or it is not for this host.
            IntegrityError: its documents are malformed or do not have their digests.
        """
        if not await self.has(image):
            raise NotFoundError(
                f"containerd has no image {image}; try: ctr -n hpcc images pull NAME@{image}",
                reason="no-image",
            )
        data = await self.read(str(image))
        if (manifest := manifest_of_index(data, host)) is not None:
            data = await self.read(manifest.digest)
        return layers_of_config(await self.read(config_of_manifest(data).digest), host)

    async def read(self, digest: str) -> bytes:
        """Return a small document of the content store whose digest was checked.

        Raises:
            IntegrityError: it is too large for a document, or has another digest.
        """
        request = content_pb2.ReadContentRequest(digest=digest, size=MAX_DOCUMENT_BYTES + 1)
        data = bytearray()
        async with (
            foreign("read content"),
            self._content.Read.open(timeout=_CALL_SECONDS, metadata=self._metadata) as stream,
        ):
            await stream.send_message(request, end=True)
            async for answer in stream:
                data += answer.data
                if len(data) > MAX_DOCUMENT_BYTES:
                    break
        if len(data) > MAX_DOCUMENT_BYTES or f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            raise IntegrityError(f"containerd's content is not {digest}", reason="image-digest")
        return bytes(data)


def _any(message: Message) -> AnyMessage:
    """Pack a message under its bare type name, which containerd compares as it is."""
    return AnyMessage(type_url=message.DESCRIPTOR.full_name, value=message.SerializeToString())
