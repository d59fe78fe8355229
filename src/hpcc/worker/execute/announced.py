"""What a client says about the compiles that it will send, cut to what its token allows."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from hpcc.identity.token import RouteClaims
from hpcc.rpc.reapi.session import Client

# Calls that come after a miss: a compile follows when its inputs are here.
_BEFORE_A_COMPILE: Final = ("/FindMissingBlobs", "/BatchUpdateBlobs", "/Write")


def announced(client: Client, claims: RouteClaims) -> Client:
    """Return the client with as many expected compiles as its token lets run at once."""
    limits = [claims.quotas.concurrent_execs, claims.share.in_flight if claims.share else 0]
    allowed = min([client.expected, *(x for x in limits if x)])
    return replace(client, expected=allowed if "execute" in claims.rights else 0)


def comes_soon(client: Client) -> bool:
    """Return whether this call shows that the expected compiles have to run here."""
    return bool(client.expected) and client.method.endswith(_BEFORE_A_COMPILE)
