"""Which compilers the offered images have: from memory, or asked in a guest of its own, once.

The guest serves nobody and ends with its answer. It is booted before the worker is registered, when
no other guest takes memory. An image that does not answer is offered all the same: nobody
compares with it then, and it is asked again when the worker starts anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from hpcc.core import HpccError, ImageDigest, ImageToolchains, Toolchain
from hpcc.images.toolchains import probe_guest
from hpcc.ports import Clock, GuestSpec, Runtime
from hpcc.worker.pool.pool import GuestShape, ImageProvider

_log: Final = logging.getLogger(__name__)
# Of one image after its boot, and of all of them: a hostile one must not keep the others away.
_PROBE_SECONDS: Final = 180.0
_ALL_SECONDS: Final = 600.0


class ToolchainBook(Protocol):
    """Where the answers of probes are kept, beside the images."""

    async def known(self, image: ImageDigest) -> tuple[Toolchain, ...] | None:
        """Return what was found; None: the image was not asked yet."""
        ...

    async def keep(self, image: ImageDigest, found: tuple[Toolchain, ...]) -> None:
        """Keep an answer; one that cannot be kept is asked for again."""
        ...


class Prober:
    """Asks images for their compilers."""

    def __init__(
        self,
        runtime: Runtime,
        images: ImageProvider,
        book: ToolchainBook,
        shape: GuestShape,
        *,
        vcpus: int,
        clock: Clock,
    ) -> None:
        self._runtime, self._images, self._book = runtime, images, book
        self._shape, self._vcpus, self._clock = shape, vcpus, clock

    async def learn(
        self, images: Iterable[ImageDigest], progress: Callable[[str], None]
    ) -> tuple[ImageToolchains, ...]:
        """Return what is known of these images, having asked those that nobody has asked."""
        deadline = self._clock.monotonic() + _ALL_SECONDS
        found: list[ImageToolchains] = []
        for image in images:
            compilers = await self._book.known(image)
            if compilers is None and self._clock.monotonic() < deadline:
                progress("asking the image for its compilers")
                compilers = await self._asked(image)
            if compilers is not None:
                found.append(ImageToolchains(image, compilers))
        return tuple(found)

    async def _asked(self, image: ImageDigest) -> tuple[Toolchain, ...] | None:
        seconds = _PROBE_SECONDS + self._shape.boot_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                compilers = await self._ask(image)
        except (HpccError, TimeoutError) as error:
            why = str(error) or "no answer in time"
            _log.warning("compilers of image %s are not known: %s", image, why)
            return None
        if not compilers:
            _log.warning("image %s has no compiler that answers", image)
        await self._book.keep(image, compilers)
        return compilers

    async def _ask(self, image: ImageDigest) -> tuple[Toolchain, ...]:
        spec = GuestSpec(
            image=image,
            image_path=await self._images.image(image),
            memory_mib=self._shape.memory_mib,
            vcpus=self._vcpus,
            boot_timeout_seconds=self._shape.boot_timeout_seconds,
            is_passing=True,
        )
        async with self._runtime.guest(spec) as guest:
            return await probe_guest(guest)
