"""What a scheduler is told: one static tenant, where its keys are, who may register."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hpcc.core import CallerError, ImageDigest, Isolation, TenantId

_MIN_SECRET_CHARS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """Content of the config file of `python -m hpcc.scheduler`.

    `images` are the digests the tenant may use; empty means any that a worker has.
    `minimum_isolation` is the weakest label a route of the tenant may have.
    """

    keys: Path
    state: Path
    tenant: str
    tenant_secret: str = field(repr=False)
    worker_secret: str = field(repr=False)
    minimum_isolation: str
    host: str = "127.0.0.1"
    port: int = 0
    images: tuple[str, ...] = ()
    # Three missed heartbeats; SandboxLost is the mechanism, this only the backstop.
    lease_seconds: float = 10.0
    token_seconds: float = 300.0
    session_seconds: float = 3600.0

    def __post_init__(self) -> None:
        """Refuse names, labels and secrets that could not work."""
        TenantId(self.tenant)
        for image in self.images:
            ImageDigest(image)
        try:
            Isolation(self.minimum_isolation)
        except ValueError as error:
            known = ", ".join(i.value for i in Isolation)
            raise CallerError(f"minimum_isolation must be one of {known}") from error
        if min(len(self.tenant_secret), len(self.worker_secret)) < _MIN_SECRET_CHARS:
            raise CallerError(f"secrets must have at least {_MIN_SECRET_CHARS} characters")
