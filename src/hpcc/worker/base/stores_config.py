"""The `stores` section of a worker's config file: which stores workers share, by tenant.

"stores": {
    "kind": "s3", "endpoint": "https://s3.example.com", "bucket": "hpcc",
    "credentials": "/etc/hpcc/s3/{tenant}.json",
    "tenants": {"acme": {"bucket": "acme-builds"}, "globex": {"kind": "disk"}}
}
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Final

from hpcc.core import CallerError, TenantId, check_endpoint

KINDS: Final = ("disk", "s3", "reapi")
TENANT: Final = "{tenant}"
_PREFIX: Final = re.compile(r"[a-z0-9][a-z0-9._-]*(?:/[a-z0-9][a-z0-9._-]*)*")
_MAX_ZSTD_LEVEL: Final = 19


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedStore:
    """Where one tenant's blobs and results are shared; `kind` "disk" shares nothing.

    `{tenant}` in `bucket`, `prefix`, `instance` and `credentials` stands for the tenant's name.
    S3 objects are below `prefix` and the tenant's name. `credentials` is the path of a JSON file of
    mode 0600 with `access_key_id`, `secret_access_key` and optionally `session_token` for S3, or
    `token` for REAPI.
    """

    kind: str = "disk"
    endpoint: str = ""
    bucket: str = ""
    prefix: str = ""
    region: str = "us-east-1"
    instance: str = TENANT
    credentials: str = ""
    # PEM of roots that are trusted in addition to the system's (S3) or instead of them (REAPI).
    ca_file: str = ""
    # Level 3 halves objects at 300 MB/s; 0 does not compress.
    zstd_level: int = 3
    # The limit of one call to the store, without the time to transfer content.
    call_seconds: float = 5.0
    # How long one call of a compile waits for the store in total.
    patience_seconds: float = 15.0
    max_object_bytes: int = 256 << 20
    # Memory for blobs that are not written yet.
    max_pending_bytes: int = 256 << 20
    # After so many failures in a row, or one timeout, the store is not called for so long.
    breaker_failures: int = 3
    breaker_seconds: float = 10.0
    # The credential is dropped so long after the tenant's last call.
    idle_seconds: float = 300.0
    # For so long an object that was seen is assumed to exist.
    known_seconds: float = 300.0

    def __post_init__(self) -> None:
        """Refuse values that cannot work, or that let one tenant use another's credential."""
        if self.kind not in KINDS:
            raise _wrong(f"kind must be one of {', '.join(KINDS)}")
        limits = (
            self.call_seconds,
            self.patience_seconds,
            self.max_object_bytes,
            self.max_pending_bytes,
            self.breaker_failures,
            self.breaker_seconds,
            self.idle_seconds,
            self.known_seconds,
        )
        if min(limits) <= 0 or not 0 <= self.zstd_level <= _MAX_ZSTD_LEVEL:
            raise _wrong("times and sizes must be positive, zstd_level 0 to 19")
        if self.prefix and not _PREFIX.fullmatch(self.prefix.replace(TENANT, "tenant")):
            raise _wrong("prefix must be parts of a-z, 0-9, '.', '_', '-' between slashes")
        for path in (self.credentials, self.ca_file):
            if path and not path.startswith("/"):
                raise _wrong("credentials and ca_file must be absolute paths")
        if self.kind == "s3":
            check_endpoint(self.endpoint, secure="https", plain="http")
            if not self.bucket or not self.credentials:
                raise _wrong("s3 needs bucket and credentials")
        if self.kind == "reapi":
            check_endpoint(self.endpoint, secure="grpcs", plain="grpc")

    def named(self, tenant: TenantId) -> SharedStore:
        """Return a copy with the tenant's name in place of `{tenant}`."""
        parts = {
            name: str(getattr(self, name)).replace(TENANT, tenant.value)
            for name in ("bucket", "prefix", "instance", "credentials")
        }
        return replace(self, **parts)  # type: ignore[arg-type]  # four fields, all texts


@dataclass(frozen=True, slots=True)
class StoresConfig:
    """The section for all tenants, and the sections of tenants that differ."""

    common: SharedStore
    tenants: Mapping[TenantId, SharedStore] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """64 hex digits that are equal for workers with the same stores.

        It is "" if any tenant has only the disk.
        """
        sections = {"": self.common, **{t.value: s for t, s in self.tenants.items()}}
        if any(s.kind == "disk" for s in sections.values()):
            return ""
        places = sorted(
            (tenant, s.kind, s.endpoint, s.bucket, s.prefix, s.instance)
            for tenant, s in sections.items()
        )
        return hashlib.sha256(json.dumps(places).encode()).hexdigest()

    def of(self, tenant: TenantId) -> SharedStore:
        return self.tenants.get(tenant, self.common).named(tenant)


def parse_stores(table: Mapping[str, object]) -> StoresConfig:
    """Read the section.

    Raises:
        CallerError: a key, type or value is unknown, or two tenants would share a credential or
            a place.
    """
    own = {name: value for name, value in table.items() if name != "tenants"}
    sections = table.get("tenants", {})
    if not isinstance(sections, dict):
        raise _wrong("tenants must be an object")
    common = _shared(own)
    if common.kind == "s3" and TENANT not in common.credentials:
        raise _wrong(f"credentials must hold {TENANT}: each tenant has its own")
    if common.kind == "reapi" and TENANT not in common.instance:
        raise _wrong(f"instance must hold {TENANT}: all tenants that name an instance share it")
    tenants: dict[TenantId, SharedStore] = {}
    for name, section in sections.items():
        if not isinstance(section, dict):
            raise _wrong(f"tenants.{name} must be an object")
        tenants[TenantId(name)] = _shared(own | section)
    _check_apart(tenants)
    return StoresConfig(common, tenants)


def _check_apart(tenants: Mapping[TenantId, SharedStore]) -> None:
    seen: dict[tuple[str, ...], TenantId] = {}
    for tenant, shared in tenants.items():
        named = shared.named(tenant)
        identities: list[tuple[str, ...]] = []
        if named.credentials:
            identities.append(("file", named.credentials))
        if named.kind == "reapi":
            identities.append(("instance", named.endpoint, named.instance))
        for identity in identities if named.kind != "disk" else []:
            other = seen.setdefault(identity, tenant)
            if other != tenant:
                raise _wrong(f"{other} and {tenant} would share {identity[-1]!r}")


def _shared(table: Mapping[str, object]) -> SharedStore:
    known = {f.name: f.type for f in fields(SharedStore)}
    values: dict[str, object] = {}
    for name, value in table.items():
        kind = known.get(name)
        if kind is None:
            raise _wrong(f"unknown key {name!r}")
        if kind == "float" and type(value) is int:
            value = float(value)  # noqa: PLW2901 - the same number
        if type(value).__name__ != kind:
            raise _wrong(f"{name} must be {kind}")
        values[name] = value
    return SharedStore(**values)  # type: ignore[arg-type]  # types compared by name just above


def _wrong(text: str) -> CallerError:
    return CallerError(f"stores: {text}", reason="config")
