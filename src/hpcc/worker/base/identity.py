"""The worker's identity at its farm: a private key, and a certificate that is renewed in time."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509

from hpcc.config.private_file import write_private_file
from hpcc.core import CallerError, HpccError
from hpcc.files import access_of
from hpcc.identity.certificates import UNREADABLE
from hpcc.identity.known_certificates import CERTIFICATES_NAME, KnownCertificates
from hpcc.identity.login.file import read_own_file
from hpcc.identity.oidc.verify import MAX_IDP_TOKEN_CHARS
from hpcc.identity.tls import PinnedPeer
from hpcc.identity.worker_ca import (
    new_worker_key,
    read_pass,
    read_request,
    request_of,
    worker_key_id,
)
from hpcc.ports import Clock
from hpcc.rpc.base.channel import ClientTls, dial, open_channel
from hpcc.rpc.base.errors import UnauthenticatedError, UnavailableError
from hpcc.rpc.base.health import trouble_of
from hpcc.rpc.scheduler.enrolment import ask_to_enrol, ask_to_renew
from hpcc.rpc.scheduler.schedulers import Schedulers, open_schedulers, split_schedulers
from hpcc.worker.base.config import WorkerConfig

_log: Final = logging.getLogger(__name__)
IDENTITY_NAME: Final = "farm-identity.pem"
_MAX_FILE_BYTES: Final = 16 << 10
_BEGIN_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_END_CERTIFICATE: Final = b"-----END CERTIFICATE-----"
_DIAL_SECONDS: Final = 10.0
_ASK_SECONDS: Final = 2.0
MAX_TOKEN_CHARS: Final = 128
# A failed renewal is tried again after this share of the remaining time.
_RETRY_SHARE: Final = 8
_MIN_WAIT_SECONDS: Final = 1.0
# How long calls may finish on a connection with the previous certificate.
_GRACE_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """A key and its certificate in PEM, and the fields of the certificate."""

    key_pem: bytes = field(repr=False)
    certificate_pem: bytes
    worker_id: str
    expires_at: float

    @classmethod
    def parse(cls, data: bytes) -> WorkerIdentity:
        """Read a key and its certificate, both PEM, the key first.

        Raises:
            CallerError: one of them is absent, or they do not belong together.
        """
        key, mark, certificate = data.partition(_BEGIN_CERTIFICATE)
        try:
            found = read_pass(x509.load_pem_x509_certificate(mark + certificate))
            own = worker_key_id(read_request(request_of(key)))
        except UNREADABLE as error:
            raise _no_identity() from error
        if own != found.key_id:
            raise _no_identity()
        return cls(key, mark + certificate, found.worker_id, found.expires_at)

    @property
    def tls(self) -> ClientTls:
        return ClientTls(self.key_pem, self.certificate_pem)


def _no_identity() -> CallerError:
    return CallerError(
        f"no worker identity: remove {IDENTITY_NAME}, and enrol again", reason="worker-identity"
    )


def load_identity_or_none(keys: Path) -> WorkerIdentity | None:
    """Return the identity that `enrol` stored, or None if there is none.

    Raises:
        CallerError: other users can read the file, or it is damaged.
    """
    data = _private_or_none(keys / IDENTITY_NAME, _MAX_FILE_BYTES)
    return None if data is None else WorkerIdentity.parse(data)


def read_token(path: Path) -> str:
    """Read a one-time token.

    Raises:
        CallerError: there is no file, or other users can read it.
    """
    data = _private_or_none(path, MAX_TOKEN_CHARS + 2)
    if data is None:
        raise CallerError(f"no enrolment token in {path}", reason="enrol-token")
    return data.decode("ascii", "replace").strip()[:MAX_TOKEN_CHARS]


def read_pod_token(path: Path) -> str:
    """Read the service-account token that the kubelet mounts: a link to a file that it replaces.

    Raises:
        CallerError: it cannot be read, others can read it, or its content is not a token.
    """
    try:
        with path.open("rb") as file:
            access = access_of(file.fileno())
            raw = file.read(MAX_IDP_TOKEN_CHARS + 2)
    except OSError as error:
        raise CallerError(
            f"cannot read the pod's token {path}: {error.strerror}", reason="enrol-token"
        ) from error
    if not access.is_regular or not access.is_private:
        raise CallerError(
            f"others can read {path}, the pod's token: give its volume `defaultMode: 0400`",
            reason="enrol-token",
        )
    text = raw.decode("ascii", "replace").strip()
    if not 0 < len(text) <= MAX_IDP_TOKEN_CHARS:
        raise CallerError(f"{path} does not hold a pod's token", reason="enrol-token")
    return text


def _private_or_none(path: Path, most: int) -> bytes | None:
    try:
        return read_own_file(path, max_bytes=most)
    except FileNotFoundError:
        return None


async def enrol_worker(
    keys: Path, *, scheduler: str, certificate_pem: bytes, token: str, worker_id: str
) -> tuple[WorkerIdentity, int]:
    """Make a key, get a certificate for it and store both.

    `scheduler` is one or several addresses, `certificate_pem` one or all of their certificates.
    The key never leaves this machine. An existing identity is replaced only by a valid one.
    Returns the identity and the scheduler's port for workers.

    Raises:
        HpccError: the scheduler refuses or does not answer, or the file cannot be written.
    """
    key, request = new_worker_key()
    peer = PinnedPeer.from_pem(certificate_pem)
    troubles: list[str] = []
    for address, pem in _doors(split_schedulers(scheduler), peer.certificate_pem):
        async with open_channel(address, certificate_pem=pem, name=peer.name) as channel:
            try:
                # The token is sent once, to a scheduler that has shown an expected certificate.
                await dial(channel, _DIAL_SECONDS)
            except UnavailableError as error:
                # A call without a secret: gRPC tells calls, and nobody else, what is wrong.
                why = await trouble_of(channel, _ASK_SECONDS)
                troubles.append(f"{address}: {why or error}")
                continue
            grant, port = await ask_to_enrol(
                channel, token=token, request=request, worker_id=worker_id
            )
        return await asyncio.to_thread(_keep, keys, key, grant.certificate_pem, worker_id), port
    raise UnavailableError(
        f"cannot reach a scheduler to enrol with: {'; '.join(dict.fromkeys(troubles))}",
        reason="dial",
    )


def _doors(addresses: Sequence[str], certificates_pem: bytes) -> list[tuple[str, bytes]]:
    """Pair addresses with certificates: in order if the counts agree, else every combination."""
    pems = [pem + _END_CERTIFICATE for pem in certificates_pem.split(_END_CERTIFICATE)[:-1]]
    if len(pems) == len(addresses):
        return list(zip(addresses, pems, strict=True))
    return list(itertools.product(addresses, pems))


def _keep(keys: Path, key: bytes, certificate: bytes, worker_id: str) -> WorkerIdentity:
    identity = WorkerIdentity.parse(key + certificate)
    if identity.worker_id != worker_id:
        raise CallerError("the certificate is for another worker", reason="worker-identity")
    write_private_file(keys / IDENTITY_NAME, key + certificate)
    return identity


def known_certificates(configured_pem: str, keys: Path) -> KnownCertificates:
    """Return the certificates of schedulers that a worker trusts.

    Raises:
        CallerError: the config file holds no certificate.
    """
    try:
        return KnownCertificates(configured_pem, keys / CERTIFICATES_NAME)
    except CallerError as error:
        raise CallerError(f"scheduler_certificate_pem: {error}", reason="config") from error


class SchedulerChannels:
    """Opens channels to the schedulers with the current certificate, and renews it."""

    def __init__(
        self,
        keys: Path,
        identity: WorkerIdentity,
        clock: Clock,
        schedulers: str,
        known: KnownCertificates,
    ) -> None:
        self._keys, self.identity, self._clock = keys, identity, clock
        self._endpoints, self._known = schedulers, known
        self._has_learned = asyncio.Event()

    async def learn(self, announced: Sequence[bytes]) -> None:
        """Trust the certificates that a scheduler announced, from the next channels on."""
        if await asyncio.to_thread(self._known.learn, announced):
            self._has_learned.set()

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Schedulers]:
        """Yield channels that present the current certificate."""
        peer = self._known.peer
        async with open_schedulers(
            self._endpoints,
            certificate_pem=peer.certificate_pem,
            name=peer.name,
            clock=self._clock,
            client=self.identity.tls,
        ) as schedulers:
            yield schedulers

    @asynccontextmanager
    async def kept(
        self, schedulers: Schedulers, use: Callable[[Schedulers], None]
    ) -> AsyncGenerator[None]:
        """Renew the certificate while the block runs; see `keep`."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.keep(schedulers, use), name="certificate")
            try:
                yield
            finally:
                # What the block runs at its end needs the current channels, so this comes last.
                task.cancel()

    async def keep(self, schedulers: Schedulers, use: Callable[[Schedulers], None]) -> None:
        """Renew the certificate at half of its remaining time, until cancelled.

        `use` receives the new channels, also when other certificates of schedulers are trusted.
        They close when this call ends.
        """
        current, before = schedulers, asyncio.Event()
        async with asyncio.TaskGroup() as group:
            while True:
                if not await self._learned(self._wait_seconds(share=2)):
                    while not await self._renewed(current):
                        await self._clock.sleep(self._wait_seconds(share=_RETRY_SHARE))
                opened: asyncio.Future[Schedulers] = asyncio.get_running_loop().create_future()
                ended = asyncio.Event()
                group.create_task(self._hold(opened, ended))
                current = await opened
                use(current)
                group.create_task(self._end(before))
                before = ended

    async def _learned(self, seconds: float) -> bool:
        """Wait; return True before the end of the time if other certificates are trusted."""
        async with asyncio.TaskGroup() as group:
            learned = group.create_task(self._has_learned.wait())
            slept = group.create_task(self._clock.sleep(seconds))
            await asyncio.wait((learned, slept), return_when=asyncio.FIRST_COMPLETED)
            learned.cancel()
            slept.cancel()
        has_learned = self._has_learned.is_set()
        self._has_learned.clear()
        return has_learned

    async def _end(self, ended: asyncio.Event) -> None:
        await self._clock.sleep(_GRACE_SECONDS)
        ended.set()

    async def _hold(self, opened: asyncio.Future[Schedulers], ended: asyncio.Event) -> None:
        async with self.open() as schedulers:
            opened.set_result(schedulers)
            await ended.wait()

    def _wait_seconds(self, share: int) -> float:
        left = self.identity.expires_at - self._clock.now()
        return max(left / share, _MIN_WAIT_SECONDS)

    async def _renewed(self, schedulers: Schedulers) -> bool:
        identity = self.identity
        try:
            grant = await ask_to_renew(
                schedulers.channel,
                request=request_of(identity.key_pem),
                worker_id=identity.worker_id,
            )
            self.identity = await asyncio.to_thread(
                _keep, self._keys, identity.key_pem, grant.certificate_pem, identity.worker_id
            )
        except UnauthenticatedError as error:
            _log.error("this worker must be enrolled again: %s", error)
            return False
        except HpccError as error:
            _log.warning("cannot renew the worker's certificate yet: %s", error)
            return False
        return True


async def ready_identity(
    config: WorkerConfig, clock: Clock, progress: Callable[[str], None]
) -> WorkerIdentity:
    """Return the worker's identity; enrol if that is configured and necessary.

    Raises:
        CallerError: there is no certificate, it has expired, or it is another worker's.
        HpccError: see `enrol_worker`.
    """
    known = known_certificates(config.scheduler_certificate_pem, config.keys)
    found = await asyncio.to_thread(load_identity_or_none, config.keys)
    is_good = found is not None and found.worker_id == config.worker_id
    if found is not None and is_good and found.expires_at > clock.now():
        return found
    if not config.enrol_at:
        raise CallerError(
            f"this worker has no certificate for the name {config.worker_id} that is valid now:"
            " `hpcc worker enrol`",
            reason="worker-identity",
        )
    progress("enrolling with the scheduler")
    if config.enrol_pod_token_file:
        token = await asyncio.to_thread(read_pod_token, Path(config.enrol_pod_token_file))
    else:
        token = await asyncio.to_thread(read_token, Path(config.enrol_token_file))
    identity, _ = await enrol_worker(
        config.keys,
        scheduler=config.enrol_at,
        certificate_pem=known.peer.certificate_pem,
        token=token,
        worker_id=config.worker_id,
    )
    return identity
