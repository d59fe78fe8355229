"""Signed claims: a worker's signature over what one execution gave, checked before it counts.

A claim is checked by its worker's listed key whenever it counts, so that a revoked key takes its
claims with it, and every shared result that rests on them.
"""

from __future__ import annotations

from collections.abc import Iterable

from cryptography.exceptions import InvalidSignature

from hpcc.identity.result_keys import ResultKeys
from hpcc.reapi.claims import ClaimScope, ResultClaim, claim_bytes


async def good_claims(
    claims: Iterable[ResultClaim], scope: ClaimScope, keys: ResultKeys
) -> tuple[ResultClaim, ...]:
    """Return the claims with a valid signature of a key that is listed for the tenant.

    Raises:
        InfrastructureError: a key is not cached, and the scheduler does not answer.
    """
    found = list[ResultClaim]()
    for claim in claims:
        key = await keys.key(scope.tenant, claim.key_id)
        if key is None:
            continue
        try:
            key.verify(claim.signature, claim_bytes(claim, scope))
        except InvalidSignature:
            continue
        found.append(claim)
    return tuple(found)
