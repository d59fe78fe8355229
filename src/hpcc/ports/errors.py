"""Errors of the runtime port."""

from __future__ import annotations

from hpcc.core import InfrastructureError


class GuestBootError(InfrastructureError):
    """The guest could not be started, or its agent did not answer in time."""

    default_reason = "guest-boot"


class GuestLostError(InfrastructureError):
    """The guest died or broke the protocol during a compile."""

    default_reason = "guest-lost"
