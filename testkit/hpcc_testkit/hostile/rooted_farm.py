"""A farm whose members are people with a vote, and guests that one of them can take over.

The guests are local processes that carry the label of a microVM: a label of containers needs
several workers for an agreement.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from hpcc.core import ALL_SHARING, ExecEvent, ExecRequest, Isolation, OutputEvent, SharingPolicy
from hpcc.identity.oidc.verify import IdentityPolicy
from hpcc.identity.tls import PinnedPeer
from hpcc.ports import BlobSource
from hpcc.rpc.base.channel import open_channel
from hpcc.rpc.reapi.client import ReapiClient
from hpcc.rpc.reapi.service_calls import ReapiClientConfig
from hpcc.scheduler.tenants.sharing import TenantSharing
from hpcc.scheduler.tenants.table import TenantPolicy
from hpcc_testkit.farm.actions import run_script
from hpcc_testkit.farm.in_process import TENANT, FarmUnderTest, farm_under_test
from hpcc_testkit.farm.policies import PolicyAuthenticator
from hpcc_testkit.guests.fake_runtime import FakeFaults, FakeGuest

LABEL = Isolation.QEMU_KVM
GOOD, EVIL = b"int x;\n", b"evil"
SCRIPT = "cp a.c a.o"


class RootableGuest(FakeGuest):
    """A guest that one compile can take over. Afterwards it makes the attacker's outputs."""

    def __init__(self, guest_id: str, directory: Path, faults: FakeFaults) -> None:
        super().__init__(f"{directory.parent.name}-{guest_id}", directory, faults)
        self.identity = replace(self.identity, isolation=LABEL)
        self._is_rooted = False

    async def exec(self, request: ExecRequest, blobs: BlobSource) -> AsyncGenerator[ExecEvent]:
        self._is_rooted |= any("root-me" in word for word in request.argv)
        async for event in super().exec(request, blobs):
            if self._is_rooted and isinstance(event, OutputEvent):
                yield replace(event, data=EVIL)
            else:
                yield event


def people(**section: object) -> TenantPolicy:
    """Return the policy of a tenant whose tokens name a client; `section` is its `sharing`."""
    identity = IdentityPolicy(
        issuer="https://login.example", audience="hpcc", client_ids=("hpcc-cli",)
    )
    return TenantPolicy(
        tenant=TENANT,
        identity=identity,
        images=(),
        minimum_isolation=Isolation.LOCAL_NONE,
        sharing=TenantSharing(**section),  # type: ignore[arg-type]  # by name, from the test
    )


@dataclass(slots=True)
class SharingFarm:
    """The farm, and what its people do in it."""

    farm: FarmUnderTest
    authenticator: PolicyAuthenticator
    # Which worker a person uses, where the farm has several.
    uses: dict[str, str] = field(default_factory=dict)

    @asynccontextmanager
    async def person(
        self, name: str, sharing: SharingPolicy = ALL_SHARING, claims: bytes = b""
    ) -> AsyncGenerator[ReapiClient]:
        """Yield the client of a person who demands `sharing`, and carries claims."""
        route = await self.farm.route(name, worker=self.uses.get(name, ""))
        peer = PinnedPeer.from_der(route.worker_certificate)
        config = ReapiClientConfig(
            tenant=TENANT, tool_version="test", sharing=sharing, claims=claims
        )
        async with open_channel(
            route.endpoint, certificate_pem=peer.certificate_pem, name=peer.name
        ) as channel:
            yield ReapiClient(channel, route.token, config)

    async def build(
        self, name: str, script: str = SCRIPT, sharing: SharingPolicy = ALL_SHARING
    ) -> tuple[bytes, bool]:
        """Compile as a person; return the object and whether it was a hit."""
        async with self.person(name, sharing) as client:
            return await run_script(client, script)

    async def warm(self, name: str) -> None:
        """Let a person's guest execute something, so that it is not fresh any more."""
        await self.build(name, f": {name}; {SCRIPT}")

    async def root(self, name: str, words: str = "root-me") -> None:
        """Let a person take over the guest that runs that person's compiles."""
        await self.build(name, f": {words}; {SCRIPT}")

    async def settled(self) -> None:
        """Wait until the worker has published what it released."""
        assert self.farm.worker is not None
        await self.farm.worker.shared()

    def labels(self, status: str = "hit") -> list[str]:
        """Return why the results of these rows served the whole tenant, in order."""
        return [r.sharing for r in self.farm.audit.rows if r.cache_status == status]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; raises TimeoutError after a minute."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - of other tasks, without an event
            await asyncio.sleep(0.01)


@asynccontextmanager
async def scheduling(
    directory: Path, policy: TenantPolicy | None = None, **worker_fields: object
) -> AsyncGenerator[SharingFarm]:
    """Run a scheduler while the block runs; the test starts the worker."""
    authenticator = PolicyAuthenticator(policy or people())
    async with farm_under_test(
        directory, authenticator=authenticator, max_guests=8, memory_mib=1 << 20
    ) as farm:
        farm.worker_fields |= worker_fields
        farm.runtime.isolation, farm.runtime.guest_class = LABEL, RootableGuest
        yield SharingFarm(farm, authenticator)


@asynccontextmanager
async def sharing_farm(
    directory: Path, policy: TenantPolicy | None = None
) -> AsyncGenerator[SharingFarm]:
    """Run scheduler and worker while the block runs."""
    async with scheduling(directory, policy) as farm, farm.farm.serving():
        yield farm
