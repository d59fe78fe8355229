"""What a worker's authorizer believes of a token that it accepted before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.core import GuestReuse, ImageDigest, Isolation, TenantId
from hpcc.identity.token import RouteClaims, TokenError, TokenSigner
from hpcc.rpc.base.method import Call
from hpcc.rpc.reapi.session import client_of
from hpcc.worker.execute.authorizer import WorkerAuthorizer
from hpcc.worker.execute.session import SessionDeps, WorkerSession

NOW = 1_900_000_000.0
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
NEXT_KEY = Ed25519PrivateKey.from_private_bytes(b"n" * 32)
TENANT = TenantId("acme")
CLAIMS = RouteClaims(
    issuer="scheduler-1",
    subject="ann",
    tenant=TENANT,
    audience="worker-key",
    image=ImageDigest("sha256:" + "ab" * 32),
    minimum_isolation=Isolation.QEMU_TCG,
    generation=7,
    rights=frozenset({"cache", "execute"}),
    not_before=NOW,
    expires_at=NOW + 300,
    token_id="t1",
)


class Deps:
    """As much of the sessions' dependencies as an authorizer uses before a session exists."""

    isolation, reuse = Isolation.QEMU_TCG, GuestReuse.TENANT

    def __init__(self) -> None:
        self.clock = self.quotas = self.runner = self
        self.refusals: list[tuple[tuple[str, str], ...]] = []

    def now(self) -> float:
        return NOW

    def note(self, claims: RouteClaims) -> None: ...

    def admitted(self, claims: RouteClaims) -> None: ...

    def heard(self, domain: object, client: object) -> None: ...

    async def refusal(self, name: str, tenant: str, *fields: tuple[str, str]) -> None:
        self.refusals.append(fields)


def raw(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


async def test_a_token_that_was_accepted_is_refused_once_its_key_is_withdrawn() -> None:
    asked = 0

    async def refresh() -> bool:
        nonlocal asked
        asked += 1
        return True

    deps = Deps()
    authorizer = WorkerAuthorizer(cast("SessionDeps", cast("Any", deps)), refresh)
    call = Call(TokenSigner(KEY, kid="k1").sign(CLAIMS), b"", method="/m")

    async def session() -> WorkerSession:
        judged = replace(call, known=await authorizer.judge(call))
        return await authorizer.session(client_of(judged, TENANT.value))

    both = {"k1": raw(KEY), "k2": raw(NEXT_KEY)}
    authorizer.admit(both, issuer="scheduler-1", audience="worker-key")
    for _ in range(2):
        assert (await session()).tenant == TENANT
    assert not asked

    authorizer.admit({"k2": raw(NEXT_KEY)}, issuer="scheduler-1", audience="worker-key")
    with pytest.raises(TokenError):
        await session()
    assert asked == 1
    assert deps.refusals == [(("reason", "token-unknown-key"),)]
    # Another key under the same name is another key.
    authorizer.admit({"k1": raw(NEXT_KEY)}, issuer="scheduler-1", audience="worker-key")
    with pytest.raises(TokenError) as caught:
        await session()
    assert caught.value.reason == "token-signature"


async def test_a_call_that_nobody_judged_gets_no_session() -> None:
    async def refresh() -> bool:
        return False

    authorizer = WorkerAuthorizer(cast("SessionDeps", cast("Any", Deps())), refresh)
    call = Call(TokenSigner(KEY, kid="k1").sign(CLAIMS), b"", method="/m")
    with pytest.raises(TokenError):
        await authorizer.session(client_of(call, TENANT.value))
