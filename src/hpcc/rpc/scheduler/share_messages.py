"""Converts asks for places and their grants between message and value."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final

from hpcc._proto import scheduler_pb2 as pb
from hpcc.core import CallerError, TenantId
from hpcc.rpc.scheduler.api import MAX_ASKS, MAX_SLOTS, ShareAsk, ShareGrants

_PRINCIPAL: Final = re.compile(r"[^\x00-\x1f\x7f]{1,128}")
# What a worker accepts from a scheduler.
_MIN_SECONDS, _MAX_SECONDS = 0.1, 300.0


def ask_message(worker_id: str, asks: Sequence[ShareAsk]) -> pb.LeaseSharesRequest:
    """Build the message of a request."""
    return pb.LeaseSharesRequest(
        worker_id=worker_id,
        asks=[
            pb.ShareAsk(tenant=a.tenant.value, principal=a.principal, wanted=a.wanted, held=a.held)
            for a in asks[:MAX_ASKS]
        ],
    )


def asks_of(request: pb.LeaseSharesRequest) -> tuple[ShareAsk, ...]:
    """Parse the asks of a request.

    Raises:
        CallerError: there are too many, or a field is malformed.
    """
    if len(request.asks) > MAX_ASKS:
        raise CallerError(f"a worker asks for at most {MAX_ASKS} principals at once")
    if not all(_PRINCIPAL.fullmatch(a.principal) for a in request.asks):
        raise CallerError("principal must be 1 to 128 printable characters")
    return tuple(
        ShareAsk(TenantId(a.tenant), a.principal, min(a.wanted, MAX_SLOTS), min(a.held, MAX_SLOTS))
        for a in request.asks
    )


def grants_message(grants: ShareGrants) -> pb.LeaseSharesResponse:
    """Build the message of an answer."""
    return pb.LeaseSharesResponse(
        grants=[
            pb.ShareGrant(tenant=tenant.value, principal=principal, places=places)
            for (tenant, principal), places in grants.places.items()
        ],
        seconds=grants.seconds,
        renew_seconds=grants.renew_seconds,
    )


def grants_of(answer: pb.LeaseSharesResponse) -> ShareGrants:
    """Parse an answer. Times outside the range are replaced by the nearest bound.

    Raises:
        CallerError: a tenant's name is malformed.
    """
    places = {(TenantId(g.tenant), g.principal): min(g.places, MAX_SLOTS) for g in answer.grants}
    return ShareGrants(places, _seconds(answer.seconds), _seconds(answer.renew_seconds))


def _seconds(number: float) -> float:
    return min(max(number, _MIN_SECONDS), _MAX_SECONDS) if math.isfinite(number) else _MIN_SECONDS
