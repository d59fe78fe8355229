"""Checks route tokens: who calls this worker, before a byte of the call's message is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hpcc.core import InfrastructureError, PolicyError
from hpcc.identity.proof import check_proof
from hpcc.identity.token import RouteClaims, TokenError, TokenVerifier
from hpcc.rpc.base.method import Call
from hpcc.rpc.reapi.session import Client
from hpcc.worker.execute.announced import announced
from hpcc.worker.execute.explaining import ExplainingSession
from hpcc.worker.execute.session import SessionDeps
from hpcc.worker.explain.limit import QuestionLimit


class WorkerAuthorizer:
    """The worker's `Authorizer`: accepts tokens of its schedulers, for the tenant they name."""

    def __init__(self, deps: SessionDeps, refresh_keys: Callable[[], Awaitable[bool]]) -> None:
        """`refresh_keys` asks the schedulers for their keys and returns whether one answered."""
        self._deps, self._refresh_keys = deps, refresh_keys
        self._verifier: TokenVerifier | None = None
        self._questions = QuestionLimit()

    def admit(self, keys: Mapping[str, bytes], *, issuer: str, audience: str) -> None:
        """Trust only these token keys from now on (key id to 32 bytes of Ed25519)."""
        public = {kid: Ed25519PublicKey.from_public_bytes(raw) for kid, raw in keys.items()}
        self._verifier = TokenVerifier(
            keys=public, issuer=issuer, audience=audience, clock=self._deps.clock
        )

    async def judge(self, call: Call) -> RouteClaims:
        """Return what the caller's token says. Refusals are recorded.

        Raises:
            TokenError: token or proof of possession is invalid.
            InfrastructureError: the worker has no token keys yet.
        """
        try:
            claims = await self._verify(call.credential)
            if claims.client_key:
                check_proof(
                    call.proof,
                    key=claims.client_key,
                    token=call.credential,
                    method=call.method,
                    now=self._deps.clock.now(),
                )
        except TokenError as error:
            await self._deps.refusal("token-refused", "", ("reason", error.reason))
            raise
        return claims

    async def session(self, client: Client) -> ExplainingSession:
        """Return a session with the rights of the caller's token. Refusals are recorded.

        Raises:
            PolicyError: the instance is another tenant's, the token does not allow the cache,
                or it requires a stronger isolation.
        """
        claims = client.known
        if not isinstance(claims, RouteClaims):
            raise TokenError("nobody has judged this caller", reason="token-malformed")
        if client.instance != claims.tenant.value:
            await self._deps.refusal("foreign-instance", claims.tenant.value)
            raise PolicyError("instance name is not the token's tenant", reason="foreign-tenant")
        if "cache" not in claims.rights:
            raise PolicyError("the token gives no right to the cache", reason="rights")
        if self._deps.isolation.rank < claims.minimum_isolation.rank:
            await self._deps.refusal("isolation-too-weak", claims.tenant.value)
            raise PolicyError("this worker isolates less than required", reason="isolation")
        self._deps.quotas.note(claims)
        self._deps.admitted(claims)
        return ExplainingSession(self._deps, claims, announced(client, claims), self._questions)

    async def _verify(self, token: str) -> RouteClaims:
        """Check a token; if its key is unknown, fetch the schedulers' keys and check once more."""
        if self._verifier is None:
            raise InfrastructureError("the worker is not registered yet", reason="not-ready")
        try:
            return self._verifier.verify(token)
        except TokenError as error:
            if error.reason != "token-unknown-key" or not await self._refresh_keys():
                raise
        return self._verifier.verify(token)

    async def refused(self, client: Client, what: str) -> None:
        """Record that the server refused this call before a session existed."""
        await self._deps.refusal(f"refused-{what}", client.instance[:63])
