"""The errors of those who get no guest."""

from __future__ import annotations

from typing import Final

from hpcc.core import HpccError, InfrastructureError
from hpcc.rpc.base.errors import BusyError
from hpcc.worker.pool.decisions import Refusal

# A compile is short and a boot is not: after this time one of them has probably ended.
_RETRY_SECONDS: Final = 2.0


def refusal(why: Refusal, failure: HpccError | None) -> HpccError:
    """Return the error of a refusal; `failure` is that of a boot."""
    match why:
        case Refusal.QUEUE_FULL:
            return BusyError("too many compiles wait here", retry_after_seconds=_RETRY_SECONDS)
        case Refusal.DRAINING:
            return InfrastructureError("worker stops", reason="draining")
        case Refusal.BOOT_FAILED:
            return failure or InfrastructureError("no guest could be started", reason="guest-boot")
