"""Parses the tenants table: who may use the farm, as whom, with which images, how much."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, cast

from hpcc.config.toml import line_of, read_toml
from hpcc.core import (
    FALLBACKS,
    MAX_AGREE,
    MAX_VERIFY_SECONDS,
    MIN_AGREE,
    PARITIES,
    CallerError,
    Fallback,
    GuestReuse,
    ImageDigest,
    ImageRef,
    Isolation,
    Parity,
    TenantId,
)
from hpcc.identity.oidc.http import check_provider_url
from hpcc.identity.oidc.keys import ALGORITHMS
from hpcc.identity.oidc.verify import DEFAULT_ALGORITHMS, IdentityPolicy
from hpcc.identity.token import RouteQuotas, RouteShare
from hpcc.routing.shares import portion
from hpcc.scheduler.tenants.reading import TableError, TableReader
from hpcc.scheduler.tenants.sharing import SHARES, Share, TenantSharing

MAX_TABLE_BYTES: Final = 1 << 20
MAX_TENANTS: Final = 1024
_PATTERN: Final = re.compile(r"[a-z0-9*]+(?:[._:/-]+[a-z0-9*]+)*(?:/\*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantQuotas:
    """Limits of a tenant; None is unlimited. Bytes are of blobs.

    `farm_execs` and `sessions` count on the whole farm, the others at each worker.
    """

    concurrent_execs: int | None = None
    # Compiles at once on all workers together, and the tenant's part when the farm is full.
    farm_execs: int | None = None
    farm_weight: int | None = None
    upload_bytes: int | None = None
    upload_window_seconds: int = 3600
    cache_bytes: int | None = None
    # People and CI jobs that are logged in at the same time; the oldest session ends first.
    sessions: int = 1000

    @property
    def of_one_worker(self) -> RouteQuotas:
        """The quotas for a route token; 0 is unlimited."""
        return RouteQuotas(
            concurrent_execs=self.most_execs,
            upload_bytes=self.upload_bytes or 0,
            upload_window_seconds=self.upload_window_seconds,
            cache_bytes=self.cache_bytes or 0,
        )

    @property
    def most_execs(self) -> int:
        """The most compiles at once of one build, and at one worker; 0 is unlimited."""
        return min((n for n in (self.concurrent_execs, self.farm_execs) if n), default=0)

    @property
    def is_leased(self) -> bool:
        """Whether workers lease places for the tenant's compiles."""
        return bool(self.farm_execs or self.farm_weight)

    @property
    def is_split(self) -> bool:
        """Whether several routes of one caller need shares, because a quota would multiply."""
        return bool(self.concurrent_execs or self.upload_bytes)

    def split(self, slots: Sequence[int]) -> list[RouteShare | None]:
        """Return the share for each route of an answer; None where there is nothing to split."""
        if len(slots) == 1 or not self.is_split:
            return [None] * len(slots)
        upload, total = self.upload_bytes or 0, sum(slots)
        return [
            RouteShare(
                in_flight=count if self.concurrent_execs else 0,
                upload_bytes=portion(upload, count, total),
            )
            for count in slots
        ]


@dataclass(frozen=True, slots=True)
class ImageRule:
    """One allowed image: a digest, or a pattern of repositories (`*` is any run of characters)."""

    digest: ImageDigest | None
    repositories: str = ""

    @classmethod
    def parse(cls, text: str) -> ImageRule:
        """Read `sha256:…`, `repo@sha256:…` or `registry/team/*`.

        Raises:
            CallerError: it has another form.
        """
        if text.startswith("sha256:"):
            return cls(ImageDigest(text))
        if "@" in text:
            return cls(ImageRef.parse(text).digest)
        # A repository has no tag, so `gcc:latest` would never match.
        is_tag = "*" not in text and ":" in text.rpartition("/")[2]
        if not _PATTERN.fullmatch(text) or not text.strip("*") or is_tag:
            raise CallerError(
                f"not an image: {text[:100]!r} (sha256:…, repo@sha256:… or registry/team/*)"
            )
        return cls(None, text)

    def allows(self, image: ImageRef) -> bool:
        if self.digest is not None:
            return image.digest == self.digest
        return _matches(self.repositories, image.repository)


def _matches(pattern: str, text: str) -> bool:
    """Match a pattern whose `*` is any run of characters, in linear time.

    A regular expression with several `.*` takes seconds for a name that an attacker chose.
    """
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    if not text.startswith(first):
        return False
    *middle, last = rest
    at = len(first)
    for part in middle:
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return text.endswith(last) and len(text) - len(last) >= at


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantPolicy:
    """All that the table holds for one tenant. Without image rules any image is allowed."""

    tenant: TenantId
    # None for the one static tenant of `hpcc up`, which has a secret instead.
    identity: IdentityPolicy | None
    images: tuple[ImageRule, ...]
    minimum_isolation: Isolation
    guest_reuse: GuestReuse = GuestReuse.PRINCIPAL
    fallback: Fallback = "warn"
    parity: Parity = "refuse"
    quotas: TenantQuotas = TenantQuotas()
    sharing: TenantSharing = field(default_factory=TenantSharing)

    def allows(self, image: ImageRef) -> bool:
        return not self.images or any(rule.allows(image) for rule in self.images)


def parse_tenants(raw: bytes, *, source: str) -> Mapping[TenantId, TenantPolicy]:
    """Parse the bytes of a table; messages have `source`, and the line if it is known.

    Raises:
        CallerError: not TOML, an unknown key, type or value, or two tenants that would accept
            the same tokens.
    """
    if len(raw) > MAX_TABLE_BYTES:
        raise CallerError(f"{source} is larger than {MAX_TABLE_BYTES} bytes", reason="tenants")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise CallerError(f"{source}: {error}", reason="tenants") from error
    table = read_toml(text, source=source, reason="tenants")
    try:
        return _policies(table)
    except TableError as error:
        line = line_of(text, error.path)
        where = f"{source}: line {line}" if line else source
        raise CallerError(f"{where}: {error}", reason="tenants") from error


def _policies(table: dict[str, Any]) -> Mapping[TenantId, TenantPolicy]:
    listed = TableReader((), table, ("tenants",)).table("tenants")
    if not 0 < len(listed) <= MAX_TENANTS:
        raise TableError(f"must have 1 to {MAX_TENANTS} tenants", ("tenants",))
    policies = [_tenant(name, content) for name, content in listed.items()]
    for one, other in itertools.combinations(policies, 2):
        _check_apart(one, other)
    return {p.tenant: p for p in policies}


def _tenant(name: str, content: object) -> TenantPolicy:
    path = ("tenants", name)
    try:
        tenant = TenantId(name)
    except CallerError as error:
        raise TableError(str(error), path) from error
    known = tuple(f.name for f in fields(TenantPolicy) if f.name != "tenant")
    table = TableReader(path, content, known)
    quotas = table.part("quotas", tuple(f.name for f in fields(TenantQuotas)))
    return TenantPolicy(
        tenant=tenant,
        identity=_identity(table.part("identity", tuple(f.name for f in fields(IdentityPolicy)))),
        images=table.each("images", ImageRule.parse),
        minimum_isolation=table.choice("minimum_isolation", Isolation),
        guest_reuse=table.choice("guest_reuse", GuestReuse, GuestReuse.PRINCIPAL),
        fallback=cast("Fallback", table.word("fallback", FALLBACKS, "warn")),
        parity=cast("Parity", table.word("parity", PARITIES, "refuse")),
        sharing=_sharing(table),
        # Any: by name from the dataclass, whose fields are all int.
        quotas=TenantQuotas(
            **cast("dict[str, Any]", {n: quotas.number(n) for n in quotas.present()})
        ),
    )


def _sharing(tenant: TableReader) -> TenantSharing:
    table = tenant.part("sharing", tuple(f.name for f in fields(TenantSharing)))
    reuse = tenant.choice("guest_reuse", GuestReuse, GuestReuse.PRINCIPAL)
    if reuse is not GuestReuse.PRINCIPAL:
        if table.present():
            table.fail("share", 'needs guest_reuse = "principal": otherwise all results are shared')
        return TenantSharing(share="private")
    agree = table.number("agree") if "agree" in table.present() else MIN_AGREE
    if not MIN_AGREE <= agree <= MAX_AGREE:
        table.fail("agree", f"must be {MIN_AGREE} to {MAX_AGREE}")
    found = TenantSharing(
        share=cast("Share", table.word("share", SHARES, "agreed")),
        agree=agree,
        agree_across_workers=table.flag("agree_across_workers"),
        machines=table.each("machines", _principals, is_optional=True),
        publish_fresh=table.each("publish_fresh", _principals, is_optional=True),
        verify_idle=table.number("verify_idle") if "verify_idle" in table.present() else 0,
        packs=table.flag("packs"),
    )
    if found.packs and found.share == "private":
        table.fail("packs", "a pack has results for all members, which this tenant does not accept")
    if found.verify_idle > MAX_VERIFY_SECONDS:
        table.fail("verify_idle", f"an hour has {MAX_VERIFY_SECONDS} seconds")
    if found.verify_idle and not found.policy.accepts_fresh:
        table.fail("verify_idle", "makes fresh results, which this tenant does not accept")
    if found.agree_across_workers and found.share != "agreed":
        table.fail("agree_across_workers", 'needs share = "agreed"')
    if found.agree_across_workers and found.publish_fresh:
        table.fail("publish_fresh", "one worker's word is not enough with agree_across_workers")
    return found


def _principals(pattern: str) -> str:
    if "*" in pattern[:-1]:
        raise CallerError(f"{pattern!r} may have a * at its end only")
    return pattern


def _identity(table: TableReader) -> IdentityPolicy:
    claims = table.part("claims")
    policy = IdentityPolicy(
        issuer=table.checked("issuer", check_provider_url),
        audience=table.text("audience"),
        client_ids=table.each("client_ids", str, is_optional=True),
        claims=tuple((n, claims.each(n, str)) for n in claims.present()),
        algorithms=tuple(table.each("algorithms", str, is_optional=True) or DEFAULT_ALGORITHMS),
        principal_claim=cast(
            "Literal['sub', 'email']", table.word("principal_claim", ("sub", "email"), "sub")
        ),
    )
    unknown = [a for a in policy.algorithms if a not in ALGORITHMS]
    if unknown:
        table.fail("algorithms", f"must be of {', '.join(ALGORITHMS)}")
    if not policy.client_ids and not policy.claims:
        table.fail(
            "client_ids",
            "or `claims` must say who of all that the issuer serves belongs to the tenant",
        )
    return policy


def _check_apart(one: TenantPolicy, other: TenantPolicy) -> None:
    """Refuse two tenants that would accept the same token."""
    a, b = one.identity, other.identity
    if a is None or b is None or (a.issuer, a.audience) != (b.issuer, b.audience):
        return
    claims = dict(b.claims)
    is_apart = (a.client_ids and b.client_ids and not set(a.client_ids) & set(b.client_ids)) or any(
        name in claims and not set(values) & set(claims[name]) for name, values in a.claims
    )
    if not is_apart:
        raise TableError(
            f"tenants {one.tenant} and {other.tenant} would accept the same tokens:"
            " give them other audiences, client_ids or claims",
            ("tenants", other.tenant.value, "identity"),
        )
