"""A dispatcher's session at the scheduler, and what the scheduler said when it began."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Final

from hpcc.config.farm import Farm
from hpcc.config.farm_session import Agreement, FarmSession, load_farm_session_or_none
from hpcc.config.private_file import write_private_file
from hpcc.core import (
    MAX_TOOLCHAINS,
    CallerError,
    HostReport,
    ImageRef,
    InfrastructureError,
    TenantId,
    Toolchain,
)
from hpcc.core.basis import FarmTerms
from hpcc.core.memo import BoundedMemo
from hpcc.dispatch.parity import toolchain_of
from hpcc.identity.known_certificates import CERTIFICATES_NAME, KnownCertificates
from hpcc.identity.login.source import LoginSource
from hpcc.ports import Clock
from hpcc.rpc.scheduler.api import Route, SessionGrant
from hpcc.rpc.scheduler.client import SchedulerClient

_log: Final = logging.getLogger(__name__)
# A session or token is renewed when it would end within this, so that it outlives the calls made
# with it.
RENEW_BEFORE_SECONDS: Final = 60.0


def known_certificates(farm: Farm, session_file: Path | None) -> KnownCertificates:
    """Return the certificates of schedulers that this user trusts.

    Raises:
        CallerError: farm.json holds no certificate.
    """
    file = session_file.with_name(CERTIFICATES_NAME) if session_file else None
    try:
        return KnownCertificates(farm.scheduler_certificate_pem, file)
    except CallerError as error:
        raise CallerError(
            "farm.json is damaged: run `hpcc up` again", reason="farm-file"
        ) from error


class FarmLogin:
    """The session, renewed when it is about to end. One task at a time calls `session`."""

    def __init__(
        self,
        farm: Farm,
        client: SchedulerClient,
        clock: Clock,
        version: str,
        session_file: Path | None,
        known: KnownCertificates | None = None,
    ) -> None:
        self._known, self._has_news = known, False
        self._farm, self._client, self._clock, self._version = farm, client, clock, version
        self._tenant, self._image = TenantId(farm.tenant), ImageRef.parse(farm.image)
        self._source = LoginSource(Path(farm.login), clock) if farm.login else None
        self._session: SessionGrant | None = None
        self._session_file = session_file
        # The scheduler's answer to the last login; None before the first.
        self.said: FarmSession | None = None
        # The compilers named by requests, by name, for the next login's report.
        self._hosts: dict[str, Toolchain] = {}
        self._read: BoundedMemo[str, Toolchain | None] = BoundedMemo(MAX_TOOLCHAINS)

    def host(self, text: str) -> Toolchain | None:
        """Parse the compiler that a request carries, and add it to the next login's report."""
        if text not in self._read:
            found = self._read[text] = toolchain_of(text)
            hosts = self._hosts
            if found and (found.names[0] in hosts or len(hosts) < MAX_TOOLCHAINS):
                hosts[found.names[0]] = found
        return self._read[text]

    async def session(self) -> str:
        """Return a session that stays valid for at least a minute; log in if necessary.

        Raises:
            HpccError: the scheduler is unreachable, or refuses us.
        """
        grant = self._session
        if grant is None or grant.expires_at - RENEW_BEFORE_SECONDS < self._clock.now():
            grant = self._session = await self._client.authenticate(
                secret=await self._source.token() if self._source else self._farm.secret,
                tenant=self._tenant,
                principal=self._farm.principal,
                client_version=self._version,
                host=HostReport(self._image, tuple(self._hosts.values())),
            )
            await self._keep(grant)
            if self._known is not None and await asyncio.to_thread(
                self._known.learn, grant.certificates
            ):
                self._has_news = True
        return grant.session

    @property
    def current(self) -> str:
        """The session that is valid for at least a minute; "" if there is none. Asks nobody."""
        grant = self._session
        is_due = grant is None or grant.expires_at - RENEW_BEFORE_SECONDS < self._clock.now()
        return "" if grant is None or is_due else grant.session

    def has_news(self) -> bool:
        """Return, once, whether the scheduler announced other certificates than are in use."""
        has_news, self._has_news = self._has_news, False
        return has_news

    def forget(self, session: str | None = None) -> None:
        """Log in again next time; without effect if `session` is not the present one."""
        if session is None or (self._session is not None and self._session.session == session):
            self._session = None

    async def _keep(self, grant: SessionGrant) -> None:
        """Write the scheduler's answer for the daemon. If that fails, the daemon keeps the old."""
        image = grant.image
        is_ours = image is not None and image.image == self._image.digest
        self.said = FarmSession(
            scheduler=self._farm.scheduler,
            tenant=self._farm.tenant,
            image=self._farm.image,
            expires_at=float(grant.expires_at),
            policy=grant.policy,
            compilers=image.compilers if image is not None and is_ours else None,
            agreement=self.said.agreement if self.said is not None else "",
            terms=await asyncio.to_thread(self._known_terms),
        )
        await self._write(self.said)

    def _known_terms(self) -> FarmTerms | None:
        """Return the terms of the last route, which may have been another process's."""
        said = self.said
        if said is None and self._session_file is not None:
            said = load_farm_session_or_none(self._session_file)
        return said.terms if said is not None and said.is_of(self._farm) else None

    async def note_route(self, route: Route) -> None:
        """Write what the tenant accepts of results, and whether workers see each other's claims."""
        agreement: Agreement = ""
        if route.sharing.agree:
            agreement = "apart" if route.has_others and not route.store else "together"
        terms = FarmTerms(
            minimum_isolation=route.minimum_isolation,
            guest_reuse=route.guest_reuse,
            sharing=route.sharing,
        )
        said = self.said
        if said is not None and (said.agreement, said.terms) != (agreement, terms):
            self.said = replace(said, agreement=agreement, terms=terms)
            await self._write(self.said)

    async def _write(self, said: FarmSession) -> None:
        if self._session_file is None:
            return
        try:
            await asyncio.to_thread(write_private_file, self._session_file, said.to_json().encode())
        except InfrastructureError as error:
            _log.warning("what the farm said at the login is not kept: %s", error)
