"""Decides whether a pod's service-account token proves that it is a worker of a pool.

Kubernetes signs such a token for one pod, one audience and some minutes. A cluster signs many: for
other pods, other namespaces, other services. So the checks are those of a login, and then:

1. The worker's name selects the pool, and the pool selects issuer and keys, not the token.
2. `sub` names the pool's namespace and service account.
3. The claim `kubernetes.io` names them too, and the pod, whose name is the worker's. So a pod
   enrols itself and no other.
4. The token is valid for two hours at most. A token without a pod, such as one that a person asked
   for, and one that never ends, is refused.

What must never happen: a pod of another service account, or of another cluster, becomes a worker.

Source: KEP-1205 (bound service account tokens), Kubernetes' "Managing Service Accounts".
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from hpcc.core import CallerError, HpccError, PolicyError
from hpcc.identity.oidc.http import ProviderHttp
from hpcc.identity.oidc.keys import MAX_JWKS_BYTES, KeyCache, ProviderKey, parse_keys
from hpcc.identity.oidc.verify import IdpTokenError, read_header, verified_claims
from hpcc.ports import Clock, ConflictError, ControlStore
from hpcc.rpc.base.errors import UnauthenticatedError, UnavailableError
from hpcc.scheduler.base.enrolled import (
    POD_SPACE,
    UsedPodToken,
    decode,
    encode,
    name_of_token,
)
from hpcc.scheduler.base.pools import PoolIdentity, WorkerPool
from hpcc.scheduler.base.refusals import token_replayed

_log: Final = logging.getLogger(__name__)
MAX_POD_TOKEN_SECONDS: Final = 7200.0
# Two answers within the ten seconds that a worker waits, as for a login.
_PROVIDER_SECONDS: Final = 4.0
_KUBERNETES: Final = "kubernetes.io"
# Notes on tokens that have ended are removed at most so often.
_SWEEP_SECONDS: Final = 60.0


class ForeignPodError(PolicyError):
    """A good token of the pool's cluster, of another pod than the worker that it is shown for."""

    default_reason = "enrol-foreign-name"


@dataclass(frozen=True, slots=True)
class ProvenPod:
    """A pod of a pool; its token is accepted until `expires_at`, in seconds since the epoch."""

    pool: str
    expires_at: float


class PoolKeys(Protocol):
    """The keys of a pool's issuer."""

    async def keys(self, kid: str | None) -> Sequence[ProviderKey]:
        """Return them; `kid` is the one that a token names.

        Raises:
            HpccError: there are none now.
        """
        ...


class PodTokens:
    """The pools whose pods may enrol, each with the keys of its issuer."""

    def __init__(self, pools: Sequence[WorkerPool], clock: Clock) -> None:
        self._clock = clock
        self._pools = [(p, p.enrol, _keys_of(p.enrol, clock)) for p in pools if p.enrol is not None]

    async def prove(self, token: str, worker_id: str) -> ProvenPod | None:
        """Return the pod that a token belongs to; None if no pool has a worker of this name.

        Raises:
            UnauthenticatedError: the token is not one of the pool's service account.
            ForeignPodError: it is another pod's.
            UnavailableError: the keys of the issuer cannot be had now.
        """
        found = next((row for row in self._pools if row[0].has(worker_id)), None)
        if found is None:
            return None
        pool, identity, issuer = found
        policy = identity.policy
        try:
            header = read_header(token, policy)
            keys = await issuer.keys(header.kid)
            claims, expires_at = verified_claims(token, policy, keys, self._clock)
        except IdpTokenError as error:
            is_over = error.reason == "idp-token-expired"
            text = "it has ended: the kubelet writes a new one" if is_over else str(error)
            raise UnauthenticatedError(
                f"the pod's token is refused: {text}", reason=error.reason
            ) from error
        except HpccError as error:
            # Who asks is not known yet: files and addresses are for the operator.
            _log.error("pool %s: keys of its cluster: %s", pool.name, error)
            raise UnavailableError(
                f"the keys of pool {pool.name}'s cluster cannot be had: the scheduler's log has"
                " the cause",
                reason=error.reason,
            ) from error
        _check_pod(claims, identity, worker_id)
        return ProvenPod(pool.name, expires_at)


class UsedPods:
    """Which tokens of pods were used, and for which key, until they end."""

    def __init__(self, store: ControlStore, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._swept_at = float("-inf")

    async def use(self, token: str, key_id: str, expires_at: float, name: str) -> None:
        """Note that a token was used. The same key may show it again, after a lost answer.

        Raises:
            UnauthenticatedError: it was used for another key: two parties have it.
            ControlStoreError: the store does not answer.
        """
        await self._sweep()
        # Without the signature: who has one good signature can write others of the same content,
        # and one signature has several spellings.
        entry_name = name_of_token(token.rpartition(".")[0])
        used = UsedPodToken(key_id=key_id, expires_at=expires_at)
        try:
            await self._store.put(POD_SPACE, entry_name, encode(used), expect=0)
        except ConflictError as error:
            entry = await self._store.entry_or_none(POD_SPACE, entry_name)
            if entry is None or decode(UsedPodToken, entry).key_id != key_id:
                raise token_replayed(name) from error

    async def _sweep(self) -> None:
        if self._clock.monotonic() - self._swept_at < _SWEEP_SECONDS:
            return
        for entry in await self._store.entries(POD_SPACE):
            if decode(UsedPodToken, entry).expires_at <= self._clock.now():
                await self._store.delete(POD_SPACE, entry.key)
        self._swept_at = self._clock.monotonic()


def _check_pod(claims: Mapping[str, object], identity: PoolIdentity, worker_id: str) -> None:
    """Check what a login does not have.

    Raises:
        UnauthenticatedError: the token lives too long, or is not a pod's of the service account.
        ForeignPodError: it is another pod's.
    """
    issued_at, ends_at = claims["iat"], claims["exp"]
    assert isinstance(issued_at, int | float)
    assert isinstance(ends_at, int | float)
    if ends_at - issued_at > MAX_POD_TOKEN_SECONDS:
        raise UnauthenticatedError(
            f"the pod's token is valid for more than {MAX_POD_TOKEN_SECONDS:.0f} seconds: set"
            " expirationSeconds",
            reason="idp-token-lifetime",
        )
    bound = claims.get(_KUBERNETES)
    account, pod = (_name_in(bound, key) for key in ("serviceaccount", "pod"))
    namespace = bound.get("namespace") if isinstance(bound, dict) else None
    if namespace != identity.namespace or account != identity.service_account or not pod:
        raise UnauthenticatedError(
            "the token is not bound to a pod of the pool's service account: mount a projected one",
            reason="idp-token-claim",
        )
    if pod != worker_id:
        raise ForeignPodError("the token is another pod's: worker_id must be the pod's name")


def _name_in(bound: object, key: str) -> str:
    inner = bound.get(key) if isinstance(bound, dict) else None
    name = inner.get("name") if isinstance(inner, dict) else None
    return name if isinstance(name, str) else ""


def _keys_of(identity: PoolIdentity, clock: Clock) -> PoolKeys:
    if identity.keys_file:
        return _FileKeys(Path(identity.keys_file))
    http = ProviderHttp(ca_file=identity.ca_file, total_seconds=_PROVIDER_SECONDS)
    return KeyCache(identity.issuer, http, clock)


class _FileKeys:
    """The keys in a file, which is read again when it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, ...] = ()
        self._keys: tuple[ProviderKey, ...] = ()

    async def keys(self, kid: str | None) -> Sequence[ProviderKey]:
        """Return the keys in the file.

        Raises:
            HpccError: it cannot be read, or is not a key set.
        """
        del kid
        return await asyncio.to_thread(self._read)

    def _read(self) -> Sequence[ProviderKey]:
        try:
            # What a ConfigMap mounts is a link to what is there now.
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
                if stamp == self._stamp:
                    return self._keys
                raw = file.read(MAX_JWKS_BYTES + 1)
        except OSError as error:
            raise CallerError(f"cannot read {self._path}: {error.strerror}") from error
        try:
            body = json.loads(raw) if len(raw) <= MAX_JWKS_BYTES else None
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise CallerError(f"{self._path} is not a key set (kubectl get --raw /openid/v1/jwks)")
        self._keys, self._stamp = parse_keys(body), stamp
        return self._keys
