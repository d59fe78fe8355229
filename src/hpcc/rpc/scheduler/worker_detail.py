"""What a scheduler shows to operators of one worker: its images, and who has places there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hpcc._proto import observe_pb2 as pb
from hpcc.core import TenantId
from hpcc.obs.text import one_line
from hpcc.rpc.base.errors import UnavailableError
from hpcc.rpc.scheduler.schedulers import Schedulers

MAX_IMAGES: Final = 100
MAX_COMPILERS: Final = 16
MAX_PLACES: Final = 256
_MAX_TEXT_CHARS: Final = 128


@dataclass(frozen=True, slots=True)
class WorkerImage:
    """An image that a worker offers; `compilers` as `gcc 14.2.0`, empty if it did not say them."""

    digest: str
    compilers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantPlaces:
    """The places at one worker of a tenant whose limits count on the whole farm.

    `held` is what counts: a worker that was granted less holds what it had for a moment.
    """

    tenant: str
    wanted: int
    granted: int
    held: int
    principals: int


@dataclass(frozen=True, slots=True)
class WorkerDetail:
    """The first images by digest, and the first tenants by name."""

    images: tuple[WorkerImage, ...] = ()
    places: tuple[TenantPlaces, ...] = ()


async def ask_worker(
    schedulers: Schedulers, session: str, tenant: TenantId, worker_id: str
) -> WorkerDetail:
    """Ask a scheduler for one worker.

    Raises:
        HpccError: the worker is not registered, the caller is not an operator, or nobody answers.
    """
    answer = await schedulers.call(
        "ObserveService/Worker",
        pb.WorkerRequest(tenant=tenant.value, worker_id=worker_id),
        pb.WorkerResponse,
        session,
    )
    compilers = (len(i.compilers) for i in answer.images)
    if (
        len(answer.images) > MAX_IMAGES
        or len(answer.places) > MAX_PLACES
        or max(compilers, default=0) > MAX_COMPILERS
    ):
        raise UnavailableError("a scheduler shows too much at once", reason="bad-status")
    return WorkerDetail(
        images=tuple(
            WorkerImage(_text(i.digest), tuple(map(_text, i.compilers))) for i in answer.images
        ),
        places=tuple(
            TenantPlaces(
                tenant=_text(p.tenant), wanted=p.wanted, granted=p.granted, held=p.held,
                principals=p.principals,
            )
            for p in answer.places
        ),
    )  # fmt: skip


def worker_message(detail: WorkerDetail) -> pb.WorkerResponse:
    """Build the answer."""
    return pb.WorkerResponse(
        images=[
            pb.WorkerImage(digest=i.digest, compilers=i.compilers) for i in detail.images
        ],
        places=[
            pb.TenantPlaces(
                tenant=p.tenant, wanted=p.wanted, granted=p.granted, held=p.held,
                principals=p.principals,
            )
            for p in detail.places
        ],
    )  # fmt: skip


def _text(text: str) -> str:
    return one_line(text[:_MAX_TEXT_CHARS])
