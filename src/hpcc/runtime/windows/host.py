"""What both Windows runtimes need from the host: containerd, chains with the agent, cleanup.

Not yet run on Windows.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from hpcc.core import ImageDigest, ImageRef, InfrastructureError, NotFoundError
from hpcc.ports import Clock
from hpcc.runtime.containerd.client import Connect, Containerd, ContainerdError
from hpcc.runtime.host.threads import in_thread
from hpcc.runtime.windows.layers.containerd_images import ImageBook
from hpcc.runtime.windows.layers.containerd_layers import LayerStore, chain_id
from hpcc.runtime.windows.layers.images import HostBuild
from hpcc.runtime.windows.layers.layer import WindowsLayer
from hpcc.runtime.windows.spec import SHIM_OWNER, check_containerd, check_shim

_WORKER: Final = "hpcc.worker"
_BOOT: Final = "hpcc.boot"
_LEASE_HOURS: Final = 1
_SHIM_SECONDS: Final = 20.0
_MAX_SHIM_BYTES: Final = 256 << 20
_SHIM_PLACES: Final = ("containerd/bin", "containerd")
_MAX_BUILD: Final = 1 << 20
WindowsBackend = Literal["hyperv", "process"]


def host_build() -> int:
    """Return this system's build of Windows.

    Raises:
        InfrastructureError: this is not Windows.
    """
    version = getattr(sys, "getwindowsversion", None)
    if version is None:
        raise InfrastructureError(
            'runtime = "hyperv" is for Windows Server, which this is not; try: runtime = "auto"',
            reason="not-windows",
        )
    return int(version().build) % _MAX_BUILD


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowsRuntimeConfig:
    """How Windows guests are run.

    `worker` is the owner of these containers, and `boot` names this start of it. Containers of
    other starts of the same worker are swept; those of other workers are never touched. `shim` is
    the shim's path, None if it was not found. With `scratch_bytes` 0 Windows chooses the size of a
    guest's disk.
    """

    worker: str
    boot: str
    connect: Connect
    layer: WindowsLayer
    build: int
    is_hyperv: bool
    shim: Path | None = None
    snapshotter: str = "windows"
    scratch_bytes: int = 0
    pulled: tuple[ImageRef, ...] = ()
    probe_image: ImageDigest | None = None

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels of this worker's containers."""
        return {_WORKER: self.worker, _BOOT: self.boot}


@dataclass(frozen=True, slots=True)
class WindowsTools:
    """The programs that run containers here; `shim_digest` is `sha256:…`, or "" without a shim."""

    version: str
    shim_digest: str


class WindowsHost:
    """One containerd on Windows, for the guests of one worker."""

    def __init__(self, config: WindowsRuntimeConfig, clock: Clock) -> None:
        self.config: Final = config
        self._clock = clock
        self._tools: WindowsTools | None = None
        self._agent_on: set[str] = set()
        self._adding = asyncio.Lock()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Containerd]:
        """Yield a client that is closed with the block."""
        client = Containerd(self.config.connect)
        try:
            yield client
        finally:
            client.close()

    async def tools(self) -> WindowsTools:
        """Return the programs that run containers, checked once.

        Raises:
            InfrastructureError: containerd does not answer, or it or its shim is too old.
        """
        if self._tools is None:
            async with self.client() as client:
                version = await client.version()
            check_containerd(version)
            shim, digest = "?", ""
            if self.config.shim is not None:
                shim = check_shim(await shim_says(self.config.shim)) or "?"
                digest = await in_thread(lambda: _digest_of(self.config.shim))
            self._tools = WindowsTools(f"runhcs {shim}, containerd {version}", digest)
        return self._tools

    async def chain(self, client: Containerd, image: ImageDigest) -> str:
        """Return the snapshot that an image's guests start from: its layers, then the agent's.

        Raises:
            NotFoundError: containerd lacks the image for this host, or has not unpacked it.
            IntegrityError: the image is malformed, or containerd applied another layer.
            ContainerdError: containerd failed.
        """
        config = self.config
        host = HostBuild(build=config.build, is_hyperv=config.is_hyperv)
        top = ""
        for diff_id in await ImageBook(client, config.snapshotter).layers(image, host):
            top = chain_id(top, diff_id)
        layers = LayerStore(client, config.snapshotter)
        if not await layers.has(top):
            raise NotFoundError(
                f"image {image} is not unpacked for snapshotter {config.snapshotter!r}; try:"
                f" ctr -n hpcc images pull --snapshotter {config.snapshotter} NAME@{image}",
                reason="no-image",
            )
        name = chain_id(top, config.layer.diff_id)
        # One at a time: the first caller adds the layer, the others find it.
        async with self._adding:
            if name not in self._agent_on or not await layers.has(name):
                now = dt.datetime.fromtimestamp(self._clock.now(), dt.UTC)
                expires = now + dt.timedelta(hours=_LEASE_HOURS)
                await layers.add(
                    config.layer, top, now=now.isoformat(), expires=expires.isoformat()
                )
                self._agent_on.add(name)
        return name

    async def pull(self) -> None:
        """Make containerd fetch the configured images that it lacks.

        Raises:
            ContainerdError: a registry lacks an image or cannot be reached.
        """
        async with self.client() as client:
            await client.ensure_namespace()
            book = ImageBook(client, self.config.snapshotter)
            for image in self.config.pulled:
                if not await book.has(image.digest):
                    await book.pull(image)

    async def sweep(self) -> tuple[int, frozenset[str]]:
        """Remove the containers of earlier starts of this worker.

        Returns how many were removed, and the ids of all containers that remain. One that cannot be
        removed now is left to the next sweep.

        Raises:
            ContainerdError: containerd does not answer.
        """
        count, staying = 0, set()
        async with self.client() as client:
            await client.ensure_namespace()
            layers = LayerStore(client, self.config.snapshotter)
            for container in await client.containers():
                labels = container.labels
                is_left = labels.get(_WORKER) == self.config.worker
                if not is_left or labels.get(_BOOT) == self.config.boot:
                    staying.add(container.container_id)
                    continue
                try:
                    await client.remove(container.container_id)
                    await layers.remove(container.container_id)
                    count += 1
                except ContainerdError:
                    staying.add(container.container_id)
        return count, frozenset(staying)


async def shim_says(shim: Path) -> str:
    """Return what the shim prints for `--version`.

    Raises:
        InfrastructureError: it cannot be run.
    """
    try:
        async with asyncio.timeout(_SHIM_SECONDS):
            process = await asyncio.create_subprocess_exec(
                str(shim), "--version", stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            try:
                out, _ = await process.communicate()
            finally:
                if process.returncode is None:
                    with suppress(ProcessLookupError):
                        process.kill()
                    await process.wait()
    except (OSError, TimeoutError) as error:
        raise InfrastructureError(f"{shim} does not run: {error}", reason="shim") from error
    return out.decode("utf-8", "replace")


def find_shim(program_files: str) -> Path | None:
    """Return the path of containerd's shim: in the install directory or on PATH; else None."""
    for place in _SHIM_PLACES:
        path = Path(program_files, place, SHIM_OWNER)
        if program_files and path.is_file():
            return path
    found = shutil.which(SHIM_OWNER)
    return Path(found) if found else None


def _digest_of(path: Path | None) -> str:
    assert path is not None
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
