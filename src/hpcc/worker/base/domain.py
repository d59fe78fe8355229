"""Who shares guests and results. Pure: the key of pool and action cache."""

from __future__ import annotations

from dataclasses import dataclass

from hpcc.core import GuestReuse, ImageDigest, Isolation, TenantId


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustDomain:
    """One tenant, one image, one isolation, and whose code the guest may have run before."""

    tenant: TenantId
    image: ImageDigest
    isolation: Isolation
    reuse: GuestReuse
    principal: str

    @classmethod
    def of(
        cls,
        *,
        tenant: TenantId,
        image: ImageDigest,
        isolation: Isolation,
        reuse: GuestReuse,
        principal: str,
    ) -> TrustDomain:
        """Keep the principal only where it decides who shares a guest.

        With "exec" a guest has run nobody's code before, so it may be anybody's of the tenant;
        with "tenant" nothing is claimed against a member.
        """
        kept = principal if reuse is GuestReuse.PRINCIPAL else ""
        return cls(tenant=tenant, image=image, isolation=isolation, reuse=reuse, principal=kept)

    @property
    def is_single_use(self) -> bool:
        """Say whether a guest ends after its first exec."""
        return self.reuse is GuestReuse.EXEC
