"""The trust domain: who shares guests and results. Pure: the key of pool and action cache."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hpcc.core import GuestReuse, ImageDigest, Isolation, TenantId


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustDomain:
    """One tenant, image and isolation, and the callers whose code a guest may have run before."""

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
        """Build a domain; the principal is kept only where it decides who shares a guest.

        With "exec" a guest has run no code before, so any principal of the tenant may use it. With
        "tenant" the principals of a tenant are not separated from each other.
        """
        kept = principal if reuse is GuestReuse.PRINCIPAL else ""
        return cls(tenant=tenant, image=image, isolation=isolation, reuse=reuse, principal=kept)

    @property
    def common(self) -> TrustDomain:
        """The domain of a guest without a past, which is equal for all members of the tenant."""
        return replace(self, principal="", reuse=GuestReuse.EXEC)

    @property
    def is_single_use(self) -> bool:
        """Whether a guest ends after its first exec."""
        return self.reuse is GuestReuse.EXEC
