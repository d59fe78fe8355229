"""An authenticator that admits everybody under one policy."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from hpcc.core import Isolation, Parity, TenantId
from hpcc.scheduler.tenants.authenticator import Admitted
from hpcc.scheduler.tenants.table import TenantPolicy
from hpcc_testkit.farm.in_process import TENANT


@dataclass
class PolicyAuthenticator:
    """Admits every caller as a member of one tenant, whose policy the test changes."""

    policy: TenantPolicy = field(
        default_factory=lambda: TenantPolicy(
            tenant=TENANT, identity=None, images=(), minimum_isolation=Isolation.LOCAL_NONE
        )
    )

    async def admit(self, credential: str, tenant: TenantId, principal: str) -> Admitted:
        del credential, tenant
        return Admitted(self.policy, principal, None)

    def policy_or_none(self, tenant: TenantId) -> TenantPolicy | None:
        return self.policy if tenant == TENANT else None

    async def watch(self) -> None:
        await asyncio.Event().wait()

    def says(self, parity: Parity) -> None:
        self.policy = replace(self.policy, parity=parity)


class TenantsAuthenticator:
    """Admits every caller as a member of the tenant that it names, if there is such a tenant."""

    def __init__(self, *policies: TenantPolicy) -> None:
        self.policies = {policy.tenant: policy for policy in policies}

    async def admit(self, credential: str, tenant: TenantId, principal: str) -> Admitted:
        del credential
        return Admitted(self.policies[tenant], principal, None)

    def policy_or_none(self, tenant: TenantId) -> TenantPolicy | None:
        return self.policies.get(tenant)

    async def watch(self) -> None:
        await asyncio.Event().wait()
