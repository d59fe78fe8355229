"""Addresses of pages that other pages link. It imports no page: local pages need no farm."""

from __future__ import annotations

from hpcc.core import CallerError, Digest


def address_of(action: str) -> str:
    """Return where below the root the page of an action is; "" if it is not a digest."""
    try:
        digest = Digest.parse(action)
    except CallerError:
        return ""
    return f"object/{digest.hash}-{digest.size_bytes}"
