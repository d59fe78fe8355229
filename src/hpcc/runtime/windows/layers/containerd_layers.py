"""Layers in containerd's content store and snapshots: the agent's on top of an image's chain.

This is the same on every operating system; only the content of a layer's tar differs. Everything is
tied to a lease until it is committed and pinned, so that a killed worker leaves nothing for long.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

from grpclib import Status

from hpcc._proto.containerd import (
    content_pb2,
    descriptor_pb2,
    diff_pb2,
    leases_pb2,
    mount_pb2,
    snapshots_pb2,
)
from hpcc._proto.containerd.content_grpc import ContentStub
from hpcc._proto.containerd.diff_grpc import DiffStub
from hpcc._proto.containerd.leases_grpc import LeasesStub
from hpcc._proto.containerd.snapshots_grpc import SnapshotsStub
from hpcc.core import CallerError, IntegrityError
from hpcc.runtime.containerd.client import Containerd, ContainerdError, RootMount, foreign
from hpcc.runtime.windows.layers.layer import WindowsLayer

_CALL_SECONDS: Final = 30.0
# Windows writes the layer's files and registry hives during the import.
_APPLY_SECONDS: Final = 300.0
_CHUNK_BYTES: Final = 1 << 20
_LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar"
_UNCOMPRESSED: Final = "containerd.io/uncompressed"
_EXPIRES: Final = "containerd.io/gc.expire"
_PINNED: Final = "containerd.io/gc.root"
_DIFF_ID: Final = "hpcc.agent-layer"
# A label of the Windows snapshotter (containerd plugins/snapshots/windows/windows.go).
_SCRATCH_BYTES: Final = "containerd.io/snapshot/windows/rootfs.sizebytes"
_LEASE: Final = "containerd-lease"


def chain_id(parent: str, diff_id: str) -> str:
    """Return the name of the snapshot with this layer on top of `parent`, a chain or "".

    Source: OCI image specification, config.md, "Layer ChainID".
    """
    if not parent:
        return diff_id
    return f"sha256:{hashlib.sha256(f'{parent} {diff_id}'.encode()).hexdigest()}"


class LayerStore:
    """The layers of one snapshotter. Every method raises `ContainerdError`."""

    def __init__(self, client: Containerd, snapshotter: str) -> None:
        self._snapshotter = snapshotter
        self._metadata = {"containerd-namespace": client.namespace}
        channel = client.channel
        self._content, self._diff = ContentStub(channel), DiffStub(channel)
        self._leases, self._snapshots = LeasesStub(channel), SnapshotsStub(channel)

    async def has(self, name: str) -> bool:
        """Return whether a snapshot of this name is committed."""
        request = snapshots_pb2.StatSnapshotRequest(snapshotter=self._snapshotter, key=name)
        try:
            async with foreign("stat snapshot"):
                answer = await self._snapshots.Stat(
                    request, timeout=_CALL_SECONDS, metadata=self._metadata
                )
        except ContainerdError as error:
            if error.status is Status.NOT_FOUND:
                return False
            raise
        return bool(answer.info.kind == snapshots_pb2.COMMITTED)

    async def add(self, layer: WindowsLayer, parent: str, *, now: str, expires: str) -> str:
        """Put a layer on top of a committed chain; returns the new chain's name, which is pinned.

        It does nothing if the chain exists. `now` and `expires` are RFC 3339 times. What a killed
        worker leaves half-done is collected at `expires`.

        Raises:
            CallerError: the tar does not have the digest in `diff_id`.
            IntegrityError: containerd applied something else.
        """
        if layer.diff_id != f"sha256:{hashlib.sha256(layer.tar).hexdigest()}":
            raise CallerError("the layer is not what its diff id says", reason="digest")
        name = chain_id(parent, layer.diff_id)
        if await self.has(name):
            return name
        async with self._leased(expires) as metadata:
            await self._write(layer, metadata)
            await self._apply(layer, parent, name, now, metadata)
        return name

    async def scratch(self, key: str, parent: str, size_bytes: int = 0) -> list[RootMount]:
        """Create a container's writable snapshot on top of a committed chain; returns its root.

        The container's record must already name `key`, because that keeps the snapshot from
        collection. With size 0 the snapshotter decides; on Windows it makes a disk that grows to 20
        GB.
        """
        request = snapshots_pb2.PrepareSnapshotRequest(
            snapshotter=self._snapshotter,
            key=key,
            parent=parent,
            labels={_SCRATCH_BYTES: str(size_bytes)} if size_bytes else None,
        )
        async with foreign("prepare scratch"):
            answer = await self._snapshots.Prepare(
                request, timeout=_APPLY_SECONDS, metadata=self._metadata
            )
        return [
            RootMount(kind=m.type, source=m.source, options=tuple(m.options), target=m.target)
            for m in answer.mounts
        ]

    async def remove(self, key: str) -> None:
        """Remove a snapshot; succeeds if it is already gone."""
        request = snapshots_pb2.RemoveSnapshotRequest(snapshotter=self._snapshotter, key=key)
        async with foreign("remove snapshot", Status.NOT_FOUND):
            await self._snapshots.Remove(request, timeout=_CALL_SECONDS, metadata=self._metadata)

    @asynccontextmanager
    async def _leased(self, expires: str) -> AsyncIterator[Mapping[str, str]]:
        """Hold a lease; yields the metadata for calls whose results the lease keeps."""
        lease = f"hpcc-{secrets.token_hex(8)}"
        request = leases_pb2.CreateRequest(id=lease, labels={_EXPIRES: expires})
        try:
            async with foreign("create lease"):
                await self._leases.Create(request, timeout=_CALL_SECONDS, metadata=self._metadata)
            yield {**self._metadata, _LEASE: lease}
        finally:
            await _to_the_end(self._delete_lease(lease))

    async def _delete_lease(self, lease: str) -> None:
        # The lease also expires by itself, so a failure here does not concern the layer.
        with suppress(ContainerdError):
            async with foreign("delete lease", Status.NOT_FOUND):
                await self._leases.Delete(
                    leases_pb2.DeleteRequest(id=lease),
                    timeout=_CALL_SECONDS,
                    metadata=self._metadata,
                )

    async def _write(self, layer: WindowsLayer, metadata: Mapping[str, str]) -> None:
        """Write the tar to the content store; containerd checks its digest and size."""
        async with foreign("write layer", Status.ALREADY_EXISTS):
            stream = self._content.Write.open(timeout=_APPLY_SECONDS, metadata=metadata)
            async with stream:
                ref = f"hpcc-layer-{secrets.token_hex(8)}"
                total = len(layer.tar)
                for offset in range(0, total, _CHUNK_BYTES):
                    await stream.send_message(
                        content_pb2.WriteContentRequest(
                            action=content_pb2.WRITE,
                            ref=ref,
                            total=total,
                            expected=layer.diff_id,
                            offset=offset,
                            data=layer.tar[offset : offset + _CHUNK_BYTES],
                        )
                    )
                    await stream.recv_message()
                commit = content_pb2.WriteContentRequest(
                    action=content_pb2.COMMIT,
                    ref=ref,
                    total=total,
                    expected=layer.diff_id,
                    offset=total,
                    labels={_UNCOMPRESSED: layer.diff_id},
                )
                await stream.send_message(commit, end=True)
                await stream.recv_message()

    async def _apply(
        self, layer: WindowsLayer, parent: str, name: str, now: str, metadata: Mapping[str, str]
    ) -> None:
        # The Windows snapshotter makes no scratch disk for a key that contains "extract".
        key = f"extract-{secrets.token_hex(8)} {name}"
        try:
            mounts = await self._prepare(key, parent, metadata)
            applied = await self._apply_to(layer, mounts, metadata)
            if applied != layer.diff_id:
                raise IntegrityError(
                    f"containerd applied {applied[:80]} instead of {layer.diff_id}",
                    reason="layer-digest",
                )
            await self._commit(key, name, {_PINNED: now, _DIFF_ID: layer.diff_id}, metadata)
        finally:
            await _to_the_end(self._discard(key))

    async def _prepare(
        self, key: str, parent: str, metadata: Mapping[str, str]
    ) -> list[mount_pb2.Mount]:
        request = snapshots_pb2.PrepareSnapshotRequest(
            snapshotter=self._snapshotter, key=key, parent=parent
        )
        async with foreign("prepare snapshot"):
            answer = await self._snapshots.Prepare(
                request, timeout=_CALL_SECONDS, metadata=metadata
            )
        return list(answer.mounts)

    async def _apply_to(
        self, layer: WindowsLayer, mounts: list[mount_pb2.Mount], metadata: Mapping[str, str]
    ) -> str:
        descriptor = descriptor_pb2.Descriptor(
            media_type=_LAYER_TYPE, digest=layer.diff_id, size=len(layer.tar)
        )
        request = diff_pb2.ApplyRequest(diff=descriptor, mounts=mounts)
        async with foreign("apply layer"):
            answer = await self._diff.Apply(request, timeout=_APPLY_SECONDS, metadata=metadata)
        return str(answer.applied.digest)

    async def _commit(
        self, key: str, name: str, labels: Mapping[str, str], metadata: Mapping[str, str]
    ) -> None:
        request = snapshots_pb2.CommitSnapshotRequest(
            snapshotter=self._snapshotter, key=key, name=name, labels=dict(labels)
        )
        # Another worker may have been faster. Its snapshot has the same name and so the same
        # content.
        async with foreign("commit snapshot", Status.ALREADY_EXISTS):
            await self._snapshots.Commit(request, timeout=_APPLY_SECONDS, metadata=metadata)

    async def _discard(self, key: str) -> None:
        """Remove what was not committed. What cannot be removed now is collected with the lease."""
        with suppress(ContainerdError):
            await self.remove(key)


async def _to_the_end(call: Coroutine[None, None, None]) -> None:
    """Run a cleanup to its end, even if this call is cancelled meanwhile."""
    task = asyncio.get_running_loop().create_task(call)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
