"""When a worker serves: registered, with guests that start, images, and a trail with room.

A worker that fails one of these stays alive, because its running compiles may end well: only a
hanging event loop is a reason to restart it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Final, Protocol

from hpcc.audit.metered import AuditMetrics
from hpcc.core import ImageDigest, InfrastructureError, NotFoundError
from hpcc.obs.health.health import Health
from hpcc.obs.health.watched import DiskRoom, Watched
from hpcc.ports import AuditLog, Clock
from hpcc.worker.base.config import WorkerConfig
from hpcc.worker.pool.pool import GuestPool, ImageProvider

# A certificate is renewed at half of its time. This much is left of one that was not.
_LEAST_CERTIFICATE_SECONDS: Final = 60.0
_IMAGES_SECONDS: Final = 60.0


class PeerLink(Protocol):
    """A worker's link to its scheduler, or to the engine whose bot it is."""

    # Why the peer did not answer last; "" if it did.
    trouble: str

    @property
    def is_up(self) -> bool:
        """Whether the peer hears the worker."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSources:
    """The parts of a worker that its health is read from.

    `certificate_ends_at` is None for a bot, which no scheduler has enrolled. Such a worker's
    `peer` is "engine". `is_draining` is None for what the pool says.
    """

    link: Callable[[], PeerLink | None]
    certificate_ends_at: Callable[[], float] | None
    pool: GuestPool
    places: int
    images: ImageProvider
    audit: AuditLog
    audit_metrics: AuditMetrics
    peer: str = "scheduler"
    is_draining: Callable[[], bool] | None = None


def watch_worker(
    health: Health, config: WorkerConfig, parts: WorkerSources, clock: Clock
) -> dict[str, Coroutine[None, None, None]]:
    """Name the conditions of a worker; return the tasks that keep them current."""
    pool = parts.pool
    written = (config.store, config.audit, config.state, config.keys)
    disk = Watched("the disk", DiskRoom(written).look, clock)
    images = Watched(
        "the image store",
        _Images(parts.images, config.image_digests).look,
        clock,
        pause_seconds=_IMAGES_SECONDS,
    )

    def peer() -> str:
        link = parts.link()
        if link is None:
            return "this worker is not registered"
        way = "session with the engine" if parts.peer == "engine" else "stream to a scheduler"
        return "" if link.is_up else f"no {way}: {link.trouble or 'it begins'}"

    def certificate() -> str:
        ends_at = parts.certificate_ends_at
        left = ends_at() - clock.now() if ends_at is not None else _LEAST_CERTIFICATE_SECONDS
        if left >= _LEAST_CERTIFICATE_SECONDS:
            return ""
        return "the worker's certificate has ended or is about to: `hpcc worker enrol`"

    def audit() -> str:
        try:
            parts.audit.require_room()
        except InfrastructureError as error:
            # The other reason is of one tenant.
            return (
                str(error)
                if error.reason in {"audit-full", "audit-signer"}
                else parts.audit_metrics.trouble
            )
        return parts.audit_metrics.trouble

    def draining() -> str:
        asked = parts.is_draining
        is_draining = asked() if asked is not None else pool.core.is_draining
        return "it takes no new compiles" if is_draining else ""

    health.add(parts.peer, peer)
    if parts.certificate_ends_at is not None:
        health.add("certificate", certificate)
    health.add("audit", audit)
    health.add("disk", disk.reason)
    health.add("images", images.reason)
    health.add("draining", draining)
    # Other images may boot well.
    health.add("guests", lambda: pool.boot_trouble, is_fault=False)
    health.summary = lambda: (
        f"places: {pool.running} of {parts.places} busy; waiting: {pool.queued}; "
        f"guests: {len(pool.core.guests)}"
    )
    return {"disk": disk.run(), "images": images.run()}


class _Images:
    """Whether one of the offered images is prepared here.

    The provider keeps an image that was asked for, so one that was found is not asked for again.
    """

    def __init__(self, provider: ImageProvider, digests: tuple[str, ...]) -> None:
        self._provider, self._digests = provider, digests
        self._is_found = not digests

    async def look(self) -> str:
        missing = ""
        for digest in () if self._is_found else self._digests:
            try:
                await self._provider.image(ImageDigest(digest))
            except NotFoundError as error:
                missing = missing or str(error)
            else:
                self._is_found = True
                return ""
        return missing
