"""Decides which machines may be workers: tokens, certificates, revocation.

A machine shows a one-time token that an operator made, or the token of its pod (`pod_tokens`).
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from hpcc.control.mirror import Mirror
from hpcc.core import CallerError, HpccError, IntegrityError, NotFoundError, PolicyError
from hpcc.core.memo import LruMemo
from hpcc.identity.key_ring import Sealer
from hpcc.identity.worker_ca import (
    WorkerCa,
    WorkerCertificateError,
    WorkerPass,
    WorkerPublicKey,
    read_request,
    worker_key_id,
)
from hpcc.ports import Clock, ConflictError, ControlStore, ControlStoreError, Entry
from hpcc.rpc.base.errors import UnauthenticatedError
from hpcc.rpc.scheduler.enrolment import WorkerGrant
from hpcc.scheduler.base.enrolled import (
    CA_KEY,
    CA_PURPOSE,
    CA_SPACE,
    WORKER_SPACE,
    EnrolledWorker,
    decode,
    encode,
)
from hpcc.scheduler.base.one_time_tokens import TOKEN_BEGINNING, OneTimeTokens
from hpcc.scheduler.base.pod_tokens import PodTokens, UsedPods
from hpcc.scheduler.base.pools import WorkerPool
from hpcc.scheduler.base.refusals import WORKER_ID, event, printable_name, worker_refused

_log: Final = logging.getLogger(__name__)
MAX_WORKERS: Final = 16_384
# At every scheduler a revocation is in force after this time at the latest.
_LOOK_SECONDS: Final = 5.0
_MAX_PASSES: Final = 16_384


class Enrolment:
    """Tokens and workers in the control store, and workers in memory while it is unreachable."""

    def __init__(
        self,
        store: ControlStore,
        sealer: Sealer,
        clock: Clock,
        *,
        certificate_seconds: float,
        pools: Sequence[WorkerPool] = (),
    ) -> None:
        self._pods = PodTokens(pools, clock)
        self._store, self._sealer, self._clock = store, sealer, clock
        self._seconds = certificate_seconds
        self._ca: WorkerCa | None = None
        self._mirror = Mirror(store, WORKER_SPACE, clock, self._take)
        self._workers: dict[str, EnrolledWorker] = {}
        # Versions of the entries that were decoded, so that only changed ones are decoded again.
        self._versions: dict[str, int] = {}
        self._tokens, self._used_pods = OneTimeTokens(store, clock), UsedPods(store, clock)
        # Certificates whose signature by the CA was checked, by their bytes.
        self._passes: LruMemo[bytes, WorkerPass] = LruMemo(_MAX_PASSES)

    @property
    def ca(self) -> WorkerCa:
        assert self._ca is not None, "load comes first"
        return self._ca

    async def load(self) -> None:
        """Read the CA and the workers; the first scheduler of a farm makes the CA.

        Raises:
            ControlStoreError: the store does not answer.
            IntegrityError: the CA is damaged, or sealed with another key.
        """
        entry = await self._store.entry_or_none(CA_SPACE, CA_KEY)
        if entry is None:
            ca = WorkerCa.new(self._clock.now())
            sealed = self._sealer.seal(CA_PURPOSE, ca.key_der)
            value = {
                "certificate": ca.certificate_pem.decode(),
                "sealed": base64.b64encode(sealed).decode(),
            }
            try:
                entry = await self._store.put(
                    CA_SPACE, CA_KEY, json.dumps(value, sort_keys=True).encode(), expect=0
                )
            except ConflictError:
                _log.info("another scheduler made the worker CA first")
                entry = await self._store.entry_or_none(CA_SPACE, CA_KEY)
        self._ca = self._opened(entry)
        await self._mirror.read()

    def _opened(self, entry: Entry | None) -> WorkerCa:
        try:
            value = json.loads(entry.value if entry is not None else b"")
            key = self._sealer.unseal(CA_PURPOSE, base64.b64decode(value["sealed"]))
            return WorkerCa.load(key, value["certificate"].encode())
        except (
            ValueError, KeyError, TypeError, AttributeError, RecursionError, CallerError,
        ) as error:  # fmt: skip
            raise IntegrityError(
                "the worker CA in the control store is damaged", reason="worker-ca"
            ) from error

    async def run(self) -> None:
        """Keep the enrolled and revoked workers current, until cancelled.

        By polling: one reading takes time by the number of workers, so a reading for each of many
        workers that enrol at the same time would cost too much.
        """
        while True:
            await self._clock.sleep(_LOOK_SECONDS)
            try:
                await self._look()
            except ControlStoreError as error:
                _log.warning("the list of enrolled workers is not updated: %s", error)

    async def _look(self) -> None:
        await self._mirror.read()
        # Also without a difference: a worker that was enrolled and forgotten between two readings
        # is in neither of them, but was noted when it spoke.
        self._take()

    # For the operator.

    async def new_token(self, worker_id: str, valid_seconds: float) -> str:
        """Make a token that enrols one worker, once; see `OneTimeTokens.new`."""
        return await self._tokens.new(worker_id, valid_seconds)

    async def workers(self) -> dict[str, EnrolledWorker]:
        """Return all workers that were ever enrolled, by id."""
        await self._look()
        return dict(sorted(self._workers.items()))

    async def revoke(self, worker_id: str) -> None:
        """Refuse a worker from now on. A token that names it can enrol it again with another key.

        Raises:
            NotFoundError: there is no such worker.
            ControlStoreError: the store does not answer.
        """
        for _ in range(5):
            entry = await self._store.entry_or_none(WORKER_SPACE, worker_id)
            if entry is None:
                raise NotFoundError(f"no worker {worker_id} was ever enrolled")
            worker = decode(EnrolledWorker, entry)
            revoked = replace(worker, revoked_at=worker.revoked_at or self._clock.now())
            try:
                await self._store.put(
                    WORKER_SPACE, worker_id, encode(revoked), expect=entry.version
                )
            except ConflictError:
                continue
            return
        raise ControlStoreError("the worker's entry keeps changing: try again")

    async def forget(self, worker_id: str) -> None:
        """Remove a revoked worker. Its certificates stay refused, and its name is free again.

        Raises:
            NotFoundError: there is no such worker.
            CallerError: it is not revoked.
            ControlStoreError: the store does not answer.
        """
        entry = await self._store.entry_or_none(WORKER_SPACE, worker_id)
        if entry is None:
            raise NotFoundError(f"no worker {worker_id} was ever enrolled")
        if not decode(EnrolledWorker, entry).revoked_at:
            raise CallerError(
                f"worker {worker_id} is enrolled: `hpcc scheduler revoke-worker` comes first",
                reason="worker-enrolled",
            )
        await self._store.delete(WORKER_SPACE, worker_id)

    # For workers.

    async def enrol(self, token: str, request: bytes, worker_id: str) -> WorkerGrant:
        """Use up a token and sign a certificate.

        Raises:
            UnauthenticatedError: the token is unknown, used or expired, or another pod's.
            PolicyError: it is for another worker, or a worker of that name is enrolled.
            CallerError: the request is invalid; the token stays unused.
            ControlStoreError: the store does not answer; the token may be used up nevertheless.
        """
        if not token.startswith(TOKEN_BEGINNING):
            return await self._enrol_pod(token, request, worker_id)
        entry, known = await self._tokens.fresh(token, worker_id)
        if not WORKER_ID.fullmatch(worker_id):
            raise CallerError("a worker id is 1 to 128 of a-z, 0-9, '.' and '-'")
        if known.worker_id not in {"", worker_id}:
            raise worker_refused("enrol-foreign-name", worker_id, "the token is for another worker")
        public = read_request(request)
        before = await self._store.entry_or_none(WORKER_SPACE, worker_id)
        if before is not None and not known.worker_id:
            raise worker_refused(
                "enrol-name-taken",
                worker_id,
                "a worker of that name is enrolled: a token that names it may replace it",
            )
        if before is None and len(self._workers) >= MAX_WORKERS:
            raise CallerError(f"more than {MAX_WORKERS} workers", reason="too-many-workers")
        key_id, now = worker_key_id(public), self._clock.now()
        if before is not None and decode(EnrolledWorker, before).key_id == key_id:
            raise CallerError("enrolling again needs a new key", reason="enrol-old-key")
        await self._tokens.use(entry, known, worker_id)
        worker = EnrolledWorker(key_id=key_id, enrolled_at=now, expires_at=now + self._seconds)
        return await self._granted(worker_id, worker, public, before)

    async def _granted(
        self,
        worker_id: str,
        worker: EnrolledWorker,
        public: WorkerPublicKey,
        before: Entry | None,
    ) -> WorkerGrant:
        await self._keep(worker_id, worker, before.version if before else 0)
        _log.warning("worker %s is enrolled with key %s", worker_id, worker.key_id)
        return WorkerGrant(
            worker_id=worker_id,
            certificate_pem=self.ca.issue(public, worker_id, worker.enrolled_at, self._seconds),
            expires_at=worker.expires_at,
        )

    async def _enrol_pod(self, token: str, request: bytes, worker_id: str) -> WorkerGrant:
        """Sign a certificate for a pod of a pool; it may replace itself, with another key."""
        name = printable_name(worker_id)
        try:
            pod = await self._pods.prove(token, worker_id)
        except PolicyError as error:
            raise worker_refused(error.reason, name, str(error)) from error
        if pod is None:
            raise worker_refused(
                "enrol-token-unknown", name, "not an enrolment token, and no pool has this name"
            )
        public = read_request(request)
        key_id, now = worker_key_id(public), self._clock.now()
        before = await self._store.entry_or_none(WORKER_SPACE, worker_id)
        if before is not None:
            _check_replaced(decode(EnrolledWorker, before), pod.pool, worker_id)
        elif len(self._workers) >= MAX_WORKERS:
            raise CallerError(f"more than {MAX_WORKERS} workers", reason="too-many-workers")
        await self._used_pods.use(token, key_id, pod.expires_at, name)
        worker = EnrolledWorker(
            key_id=key_id, enrolled_at=now, expires_at=now + self._seconds, pool=pod.pool
        )
        return await self._granted(worker_id, worker, public, before)

    async def _keep(self, worker_id: str, worker: EnrolledWorker, version: int) -> None:
        try:
            await self._store.put(WORKER_SPACE, worker_id, encode(worker), expect=version)
        except ConflictError as error:
            raise worker_refused(
                "enrol-name-taken", worker_id, "another worker of that name enrolled first"
            ) from error
        self._workers[worker_id] = worker

    async def admit(self, certificate: bytes, worker_id: str | None) -> str:
        """Return the worker that a certificate belongs to; `worker_id` is the claimed name.

        Raises:
            UnauthenticatedError: the certificate is absent, of another CA, expired, revoked or
                replaced.
            PolicyError: it belongs to another worker than claimed.
            ControlStoreError: the worker is not known here, and the store does not answer.
        """
        found = self._pass(certificate)
        name = found.worker_id
        if found.expires_at <= self._clock.now():
            raise worker_refused("worker-certificate-expired", name, "the certificate has ended")
        worker = self._workers.get(name)
        if worker is None or worker.key_id != found.key_id:
            # It may have enrolled a moment ago at another scheduler.
            entry = await self._store.entry_or_none(WORKER_SPACE, name)
            worker = decode(EnrolledWorker, entry) if entry is not None else None
            if worker is not None:
                self._workers[name] = worker
        if worker is None or worker.key_id != found.key_id or worker.revoked_at:
            raise worker_refused(
                "worker-revoked", name, "the certificate is no longer valid: enrol again"
            )
        if worker_id not in {None, name}:
            event("foreign-worker", name)
            raise PolicyError("a worker cannot act for another", reason="foreign-worker")
        return name

    def is_revoked(self, worker_id: str) -> bool:
        """Return whether a worker was revoked, as far as this scheduler knows."""
        worker = self._workers.get(worker_id)
        return worker is not None and worker.revoked_at > 0

    async def renew(self, certificate: bytes, request: bytes) -> WorkerGrant:
        """Sign a new certificate for the key of a valid one.

        Raises:
            UnauthenticatedError, PolicyError, CallerError: as `admit` and `enrol`.
        """
        worker_id = await self.admit(certificate, None)
        public = read_request(request)
        now = self._clock.now()
        if worker_key_id(public) != self._pass(certificate).key_id:
            raise CallerError("a certificate is renewed for its own key", reason="csr-key")
        return WorkerGrant(
            worker_id=worker_id,
            certificate_pem=self.ca.issue(public, worker_id, now, self._seconds),
            expires_at=now + self._seconds,
        )

    def _pass(self, certificate: bytes) -> WorkerPass:
        found = self._passes.get(certificate)
        if found is None:
            try:
                found = self.ca.check(certificate, self._clock.now())
            except WorkerCertificateError as error:
                event("worker-certificate-refused", "")
                raise UnauthenticatedError(str(error), reason=error.reason) from error
            self._passes[certificate] = found
        return found

    def _take(self) -> None:
        before, self._versions = self._versions, {}
        found = {}
        for name, entry in self._mirror.entries.items():
            self._versions[name] = entry.version
            if before.get(name) == entry.version and name in self._workers:
                found[name] = self._workers[name]
                continue
            try:
                found[name] = decode(EnrolledWorker, entry)
            except HpccError as error:
                _log.error("worker %s: %s", name, error)
        self._workers = found


def _check_replaced(before: EnrolledWorker, pool: str, worker_id: str) -> None:
    """Check whether a pod may take the place of an enrolled worker of its name."""
    if before.pool != pool:
        raise worker_refused(
            "enrol-name-taken",
            worker_id,
            "a worker of that name is enrolled, not as this pool's pod",
        )
    if before.revoked_at:
        raise worker_refused(
            "worker-revoked",
            worker_id,
            "the worker was revoked: `hpcc scheduler forget-worker` lets its pod enrol again",
        )
