"""Finds out which compilers the offered images have, from stored answers or by asking a guest.

The first time, the guest boots before the worker is registered, when no other guest takes memory.
It runs no compile and ends with its answers. An image that does not answer every question is
offered nevertheless. Its compilers are then unknown to the scheduler, so clients compare nothing
and refuse nothing. The worker asks such an image again while it serves: after a pause that doubles,
with a longer deadline, and only while the pool has room for one more guest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from hpcc.core import GuestReuse, HpccError, ImageDigest, ImageToolchains, Toolchain
from hpcc.images.survey import Survey, SurveyLog
from hpcc.images.toolchains import probe_guest
from hpcc.ports import Clock, GuestSpec, Runtime
from hpcc.worker.pool.pool import GuestShape, ImageProvider

_log: Final = logging.getLogger(__name__)
# For one image after its boot, and for all images: a hostile image must not delay the others.
_PROBE_SECONDS: Final = 180.0
_ALL_SECONDS: Final = 600.0
# Between two attempts at the images that did not answer: doubled after each, up to an hour.
_FIRST_PAUSE_SECONDS: Final = 60.0
_MAX_PAUSE_SECONDS: Final = 3600.0
# A machine that was too slow for the deadlines can be as loaded the next time.
_MAX_PATIENCE: Final = 4.0
# How long a probe can hold memory after the pool needs it for a compile.
_LOOK_SECONDS: Final = 0.5


class ToolchainBook(Protocol):
    """Stores the answers of probes beside the images."""

    async def known(self, image: ImageDigest) -> tuple[Toolchain, ...] | None:
        """Return the compilers of an image that answered completely, else None."""
        ...

    async def keep(self, image: ImageDigest, survey: Survey) -> None:
        """Store a survey. `known` may return it only if it is complete."""
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
        self._unknown: list[ImageDigest] = []

    async def learn(
        self, images: Iterable[ImageDigest], progress: Callable[[str], None]
    ) -> tuple[ImageToolchains, ...]:
        """Return the known compilers of these images; images without an answer are asked first."""
        deadline = self._clock.monotonic() + _ALL_SECONDS
        found: list[ImageToolchains] = []
        for image in images:
            compilers = await self._book.known(image)
            if compilers is None and self._clock.monotonic() < deadline:
                progress("asking the image for its compilers")
                compilers = await self._asked(image, 1.0)
            if compilers is None:
                self._unknown.append(image)
            else:
                found.append(ImageToolchains(image, compilers))
        return tuple(found)

    async def learn_rest(
        self, has_room: Callable[[], bool], tell: Callable[[ImageToolchains], None]
    ) -> None:
        """Ask the other images again until all of them have answered, and pass on each answer."""
        pause, patience = _FIRST_PAUSE_SECONDS, 2.0
        while self._unknown:
            await self._clock.sleep(pause)
            if not has_room():
                continue
            for image in tuple(self._unknown):
                compilers = await self._asked_beside(image, patience, has_room)
                if compilers is not None:
                    self._unknown.remove(image)
                    tell(ImageToolchains(image, compilers))
            pause = min(2 * pause, _MAX_PAUSE_SECONDS)
            patience = min(2 * patience, _MAX_PATIENCE)

    async def _asked_beside(
        self, image: ImageDigest, patience: float, has_room: Callable[[], bool]
    ) -> tuple[Toolchain, ...] | None:
        """Ask while the pool works; a compile that needs the guest's memory ends the attempt."""
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(self._asked(image, patience), name="image probe")
            while not asking.done() and has_room():
                await asyncio.wait({asking}, timeout=_LOOK_SECONDS)
            asking.cancel()
        if asking.cancelled():
            _log.info("compilers of image %s: a compile needed the memory", image)
            return None
        return asking.result()

    async def _asked(self, image: ImageDigest, patience: float) -> tuple[Toolchain, ...] | None:
        """Return the compilers of an image that answered every question, () if it has none."""
        log = SurveyLog()
        seconds = (_PROBE_SECONDS + self._shape.boot_timeout_seconds) * patience
        try:
            async with asyncio.timeout(seconds):
                await self._ask(image, log, patience)
        except (HpccError, TimeoutError, OSError) as error:
            # A full disk or table of descriptors passes, and then the image is asked again.
            log.stop(str(error) or "no answer in time")
        survey = log.survey
        try:
            await self._book.keep(image, survey)
        except OSError as error:
            _log.warning("compilers of image %s cannot be kept: %s", image, error)
        if not survey.is_complete:
            _log.warning("compilers of image %s are not known: %s", image, survey.trouble)
            return None
        if not survey.compilers:
            _log.warning("image %s has no compiler that answers", image)
        return survey.compilers

    async def _ask(self, image: ImageDigest, log: SurveyLog, patience: float) -> None:
        spec = GuestSpec(
            image=image,
            image_path=await self._images.image(image),
            memory_mib=self._shape.memory_of(image),
            vcpus=self._vcpus,
            boot_timeout_seconds=self._shape.boot_timeout_seconds,
            is_passing=True,
            has_mitigations=self._shape.mitigations.are_on(GuestReuse.EXEC),
        )
        async with self._runtime.guest(spec) as guest:
            await probe_guest(guest, log, patience=patience)
