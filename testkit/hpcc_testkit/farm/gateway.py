"""A farm of two tenants behind a gateway, with fake guests, for tests of the protocol.

Open `gateway_under_test`; it yields a `GatewayUnderTest`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from hpcc.core import GuestReuse, Isolation, TenantId
from hpcc.gateway.config import GatewayConfig
from hpcc.gateway.serve import serve_gateway
from hpcc.ports import Clock, SystemClock
from hpcc.rpc.base.errors import UnauthenticatedError
from hpcc.scheduler.tenants.authenticator import Admitted
from hpcc.scheduler.tenants.table import ImageRule, TenantPolicy
from hpcc_testkit.farm.in_process import IMAGE, OTHER_IMAGE, TENANT, FarmUnderTest, farm_under_test
from hpcc_testkit.farm.stock_client import StockClient, stock_client
from hpcc_testkit.guests.fake_runtime import FakeRuntime
from hpcc_testkit.services.authority import issue

GLOBEX: Final = TenantId("globex")


@dataclass(slots=True)
class TokenAuthenticator:
    """Accepts tokens of the form `TENANT:PERSON:ANYTHING`, each only for its own tenant."""

    images: tuple[ImageRule, ...] = (ImageRule(IMAGE.digest), ImageRule(OTHER_IMAGE.digest))
    logins: list[str] = field(default_factory=list)

    async def admit(self, credential: str, tenant: TenantId, principal: str) -> Admitted:
        """Admit a caller whose token names the tenant."""
        del principal
        self.logins.append(tenant.value)
        policy = self.policy_or_none(tenant)
        own, _, rest = credential.partition(":")
        if policy is None or own != tenant.value:
            raise UnauthenticatedError("the token is not of this tenant", reason="idp-token-issuer")
        return Admitted(policy, rest.partition(":")[0], None)

    def policy_or_none(self, tenant: TenantId) -> TenantPolicy | None:
        """Return the policy of one of the two tenants."""
        if tenant not in {TENANT, GLOBEX}:
            return None
        return TenantPolicy(
            tenant=tenant,
            identity=None,
            images=self.images,
            minimum_isolation=Isolation.LOCAL_NONE,
            guest_reuse=GuestReuse.PRINCIPAL,
        )

    async def watch(self) -> None:
        """Do nothing: the policies never change."""
        await SystemClock().sleep(3600.0)


@dataclass(slots=True)
class GatewayUnderTest:
    """The farm behind a gateway, and the gateway's ports and CA."""

    farm: FarmUnderTest
    authenticator: TokenAuthenticator
    port: int
    ca_pem: bytes
    admin: str = ""

    @asynccontextmanager
    async def client(
        self,
        token: str = "acme:ann",  # noqa: S107 - a `TokenAuthenticator` believes anything
        *headers: tuple[str, str | bytes],
        instance: str = "acme",
        image: str = str(IMAGE),
    ) -> AsyncGenerator[StockClient]:
        """Connect as a stock client; no image header with `image=""`."""
        named = (("hpcc-image", image),) if image else ()
        all_headers = (("authorization", f"Bearer {token}"), *named, *headers)
        async with stock_client(self.port, self.ca_pem, instance, *all_headers) as client:
            yield client

    def another_worker(self, worker_id: str, **fields: object) -> FarmUnderTest:
        """Return the same farm with another worker, to be started by `serving`."""
        farm = self.farm
        base = farm.directory / worker_id
        guests = base / "guests"
        guests.mkdir(parents=True)
        places = {n: base / n for n in ("keys", "store", "audit", "images", "state")}
        return replace(
            farm,
            runtime=FakeRuntime(guests),
            worker_fields={
                **farm.worker_fields,
                **places,
                "worker_id": worker_id,
                "guest_assets": base / "assets",
                **fields,
            },
        )


@asynccontextmanager
async def gateway_under_test(
    directory: Path, *, clock: Clock | None = None, **fields: object
) -> AsyncGenerator[GatewayUnderTest]:
    """Run a scheduler and a gateway while the block runs; start workers with `serving`."""
    authenticator = TokenAuthenticator()
    clock = clock or SystemClock()
    files = issue(directory / "tls")
    async with farm_under_test(directory, clock=clock, authenticator=authenticator) as farm:
        values: dict[str, object] = {
            "scheduler": f"{farm.scheduler.host}:{farm.scheduler.port}",
            "scheduler_certificate_pem": farm.scheduler.certificate_pem,
            "certificate": files.certificate,
            "key": files.key,
            **fields,
        }
        config = GatewayConfig(**values)  # type: ignore[arg-type]  # built by name just above
        async with serve_gateway(config, clock) as running:
            ca = files.ca.read_bytes()
            yield GatewayUnderTest(farm, authenticator, running.port, ca, running.admin)
