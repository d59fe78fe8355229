"""Decides which machines may be workers: one-time tokens, certificates, revocation."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Final

from hpcc.control.mirror import Mirror
from hpcc.core import CallerError, HpccError, IntegrityError, NotFoundError, PolicyError
from hpcc.core.memo import LruMemo
from hpcc.identity.key_ring import Sealer
from hpcc.identity.worker_ca import (
    WorkerCa,
    WorkerCertificateError,
    WorkerPass,
    read_request,
    worker_key_id,
)
from hpcc.ports import Clock, ConflictError, ControlStore, ControlStoreError, Entry
from hpcc.rpc.base.errors import UnauthenticatedError
from hpcc.rpc.base.method import current_caller
from hpcc.rpc.scheduler.enrolment import WorkerGrant

_log: Final = logging.getLogger(__name__)
TOKEN_SPACE: Final = "enrol-token"  # noqa: S105 - where they are kept, not one
WORKER_SPACE: Final = "enrolled-worker"
CA_SPACE: Final = "worker-ca"
CA_KEY: Final = "ca"
CA_PURPOSE: Final = b"worker CA"
MAX_TOKENS: Final = 4096
MAX_WORKERS: Final = 16_384
MAX_VALID_SECONDS: Final = 7 * 86_400.0
_TOKEN: Final = re.compile(r"hpcc-enrol-[A-Za-z0-9_-]{43}")
_WORKER_ID: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,127}")
_TOKEN_BYTES: Final = 32
# At every scheduler a revocation is in force after this time at the latest.
_LOOK_SECONDS: Final = 5.0
_MAX_PASSES: Final = 16_384
_SWEEP_SECONDS: Final = 60.0
# A used token is kept so long after it expired, so that a replay is recognised.
_KEEP_SECONDS: Final = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolToken:
    """A token in the store, under its SHA-256. An empty `worker_id` allows any new name.

    Times are seconds since the epoch; `used_at` is 0 before its use.
    """

    worker_id: str
    made_at: float
    expires_at: float
    used_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolledWorker:
    """A worker. Its certificates are valid while they have this key and `revoked_at` is 0."""

    key_id: str
    enrolled_at: float
    expires_at: float
    revoked_at: float = 0.0


class Enrolment:
    """Tokens and workers in the control store, and workers in memory while it is unreachable."""

    def __init__(
        self, store: ControlStore, sealer: Sealer, clock: Clock, *, certificate_seconds: float
    ) -> None:
        self._store, self._sealer, self._clock = store, sealer, clock
        self._seconds = certificate_seconds
        self._ca: WorkerCa | None = None
        self._mirror = Mirror(store, WORKER_SPACE, clock, self._take)
        self._workers: dict[str, EnrolledWorker] = {}
        # Versions of the entries that were decoded, so that only changed ones are decoded again.
        self._versions: dict[str, int] = {}
        self._swept_at = float("-inf")
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
                await self._mirror.read()
            except ControlStoreError as error:
                _log.warning("the list of enrolled workers is not updated: %s", error)

    # For the operator.

    async def new_token(self, worker_id: str, valid_seconds: float) -> str:
        """Make a token that enrols one worker, once.

        With a worker id it is valid only for that worker, even if the worker is enrolled already.

        Raises:
            CallerError: worker id or lifetime are invalid, or there are too many tokens.
            ControlStoreError: the store does not answer.
        """
        if worker_id and not _WORKER_ID.fullmatch(worker_id):
            raise CallerError("a worker id is 1 to 128 of a-z, 0-9, '.' and '-'")
        if not 0 < valid_seconds <= MAX_VALID_SECONDS:
            raise CallerError(f"a token is valid for at most {MAX_VALID_SECONDS / 86400:g} days")
        await self._sweep()
        now, token = self._clock.now(), f"hpcc-enrol-{secrets.token_urlsafe(_TOKEN_BYTES)}"
        kept = EnrolToken(worker_id=worker_id, made_at=now, expires_at=now + valid_seconds)
        await self._store.put(TOKEN_SPACE, _name_of(token), _encode(kept), expect=0)
        return token

    async def workers(self) -> dict[str, EnrolledWorker]:
        """Return all workers that were ever enrolled, by id."""
        await self._mirror.read()
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
            worker = _decode(EnrolledWorker, entry)
            revoked = replace(worker, revoked_at=worker.revoked_at or self._clock.now())
            try:
                await self._store.put(
                    WORKER_SPACE, worker_id, _encode(revoked), expect=entry.version
                )
            except ConflictError:
                continue
            return
        raise ControlStoreError("the worker's entry keeps changing: try again")

    async def _sweep(self) -> None:
        """Delete tokens that expired more than a day ago.

        Raises:
            CallerError: too many others remain.
        """
        if self._clock.monotonic() - self._swept_at < _SWEEP_SECONDS:
            return
        entries = await self._store.entries(TOKEN_SPACE)
        now, kept = self._clock.now(), 0
        for entry in entries:
            token = _decode(EnrolToken, entry)
            if now > token.expires_at + _KEEP_SECONDS:
                await self._store.delete(TOKEN_SPACE, entry.key)
            else:
                kept += 1
        if kept >= MAX_TOKENS:
            raise CallerError(f"more than {MAX_TOKENS} tokens in a day", reason="too-many-tokens")
        self._swept_at = self._clock.monotonic()

    # For workers.

    async def enrol(self, token: str, request: bytes, worker_id: str) -> WorkerGrant:
        """Use up a token and sign a certificate.

        Raises:
            UnauthenticatedError: the token is unknown, used or expired.
            PolicyError: it is for another worker, or a worker of that name is enrolled.
            CallerError: the request is invalid; the token stays unused.
            ControlStoreError: the store does not answer; the token may be used up nevertheless.
        """
        entry, known = await self._fresh(token, worker_id)
        if not _WORKER_ID.fullmatch(worker_id):
            raise CallerError("a worker id is 1 to 128 of a-z, 0-9, '.' and '-'")
        if known.worker_id not in {"", worker_id}:
            raise _worker_refused(
                "enrol-foreign-name", worker_id, "the token is for another worker"
            )
        public = read_request(request)
        before = await self._store.entry_or_none(WORKER_SPACE, worker_id)
        if before is not None and not known.worker_id:
            raise _worker_refused(
                "enrol-name-taken",
                worker_id,
                "a worker of that name is enrolled: a token that names it may replace it",
            )
        if before is None and len(self._workers) >= MAX_WORKERS:
            raise CallerError(f"more than {MAX_WORKERS} workers", reason="too-many-workers")
        key_id, now = worker_key_id(public), self._clock.now()
        if before is not None and _decode(EnrolledWorker, before).key_id == key_id:
            raise CallerError("enrolling again needs a new key", reason="enrol-old-key")
        try:
            used = replace(known, used_at=now)
            await self._store.put(TOKEN_SPACE, entry.key, _encode(used), expect=entry.version)
        except ConflictError as error:
            raise _replayed(worker_id) from error
        worker = EnrolledWorker(key_id=key_id, enrolled_at=now, expires_at=now + self._seconds)
        await self._keep(worker_id, worker, before.version if before else 0)
        _log.warning("worker %s is enrolled with key %s", worker_id, key_id)
        return WorkerGrant(
            worker_id=worker_id,
            certificate_pem=self.ca.issue(public, worker_id, now, self._seconds),
            expires_at=worker.expires_at,
        )

    async def _fresh(self, token: str, worker_id: str) -> tuple[Entry, EnrolToken]:
        """Look up a token; errors and logs never hold a part of it."""
        name = _printable(worker_id)
        if not _TOKEN.fullmatch(token):
            raise _worker_refused("enrol-token-unknown", name, "not an enrolment token")
        entry = await self._store.entry_or_none(TOKEN_SPACE, _name_of(token))
        if entry is None:
            raise _worker_refused("enrol-token-unknown", name, "the token is unknown")
        known = _decode(EnrolToken, entry)
        if known.used_at:
            raise _replayed(name)
        if known.expires_at <= self._clock.now():
            raise _worker_refused(
                "enrol-token-expired", name, "the token has ended: ask for another"
            )
        return entry, known

    async def _keep(self, worker_id: str, worker: EnrolledWorker, version: int) -> None:
        try:
            await self._store.put(WORKER_SPACE, worker_id, _encode(worker), expect=version)
        except ConflictError as error:
            raise _worker_refused(
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
            raise _worker_refused("worker-certificate-expired", name, "the certificate has ended")
        worker = self._workers.get(name)
        if worker is None or worker.key_id != found.key_id:
            # It may have enrolled a moment ago at another scheduler.
            entry = await self._store.entry_or_none(WORKER_SPACE, name)
            worker = _decode(EnrolledWorker, entry) if entry is not None else None
            if worker is not None:
                self._workers[name] = worker
        if worker is None or worker.key_id != found.key_id or worker.revoked_at:
            raise _worker_refused(
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
                found[name] = _decode(EnrolledWorker, entry)
            except HpccError as error:
                _log.error("worker %s: %s", name, error)
        self._workers = found


def event(name: str, worker: str) -> None:
    """Write a security event to the scheduler's log."""
    peer, request = current_caller()
    _log.warning("security event: %s worker=%s peer=%s request=%s", name, worker, peer, request)


def _worker_refused(name: str, worker: str, text: str) -> UnauthenticatedError:
    event(name, worker)
    return UnauthenticatedError(text, reason=name)


def _replayed(worker: str) -> UnauthenticatedError:
    return _worker_refused(
        "enrol-token-replayed", worker, "the token was used already: ask for another"
    )


def _printable(text: str) -> str:
    return text if _WORKER_ID.fullmatch(text) else "?"


def _name_of(token: str) -> str:
    """Return the entry's name: the store must not hold a usable token."""
    return hashlib.sha256(token.encode()).hexdigest()


def _encode(value: EnrolToken | EnrolledWorker) -> bytes:
    return json.dumps(asdict(value), sort_keys=True).encode()


def _decode[T](kind: Callable[..., T], entry: Entry) -> T:
    try:
        return kind(**json.loads(entry.value))
    except (ValueError, TypeError, RecursionError) as error:
        raise ControlStoreError("an enrolment entry is malformed") from error
