"""Parses the tenants table: who may use the farm, as whom, with which images, how much."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, NoReturn, cast

from hpcc.config.toml import read_toml
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
from hpcc.scheduler.tenants.sharing import SHARES, Share, TenantSharing

MAX_TABLE_BYTES: Final = 1 << 20
MAX_TENANTS: Final = 1024
MAX_ITEMS: Final = 256
MAX_TEXT_CHARS: Final = 255
# More than any farm needs; keeps sums within 64 bits.
MAX_QUOTA: Final = 1 << 50
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
    """Parse the bytes of a table; `source` names it in messages.

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
    top = _Table(source, "the file", table, ("tenants",))
    listed = top.table("tenants")
    if not 0 < len(listed) <= MAX_TENANTS:
        raise CallerError(f"{source}: must have 1 to {MAX_TENANTS} tenants", reason="tenants")
    policies = [_tenant(source, name, content) for name, content in listed.items()]
    for one, other in itertools.combinations(policies, 2):
        _check_apart(source, one, other)
    return {p.tenant: p for p in policies}


def _tenant(source: str, name: str, content: object) -> TenantPolicy:
    where = f"[tenants.{name[:80]}]"
    try:
        tenant = TenantId(name)
    except CallerError as error:
        raise CallerError(f"{source}: {error}", reason="tenants") from error
    known = tuple(f.name for f in fields(TenantPolicy) if f.name != "tenant")
    table = _Table(source, where, content, known)
    quota_names = tuple(f.name for f in fields(TenantQuotas))
    quotas = _Table(source, where[:-1] + ".quotas]", table.table("quotas"), quota_names)
    return TenantPolicy(
        tenant=tenant,
        identity=_identity(source, where, table.table("identity")),
        images=table.each("images", ImageRule.parse),
        minimum_isolation=table.choice("minimum_isolation", Isolation),
        guest_reuse=table.choice("guest_reuse", GuestReuse, GuestReuse.PRINCIPAL),
        fallback=cast("Fallback", table.word("fallback", FALLBACKS, "warn")),
        parity=cast("Parity", table.word("parity", PARITIES, "refuse")),
        sharing=_sharing(source, where, table),
        # Any: by name from the dataclass, whose fields are all int.
        quotas=TenantQuotas(
            **cast("dict[str, Any]", {n: quotas.number(n) for n in quotas.present()})
        ),
    )


def _sharing(source: str, where: str, tenant: _Table) -> TenantSharing:
    known = tuple(f.name for f in fields(TenantSharing))
    table = _Table(source, where[:-1] + ".sharing]", tenant.table("sharing"), known)
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


def _identity(source: str, where: str, content: object) -> IdentityPolicy:
    known = tuple(f.name for f in fields(IdentityPolicy))
    table = _Table(source, where[:-1] + ".identity]", content, known)
    claims = _Table(source, where[:-1] + ".identity.claims]", table.table("claims"), None)
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


def _check_apart(source: str, one: TenantPolicy, other: TenantPolicy) -> None:
    """Refuse two tenants that would accept the same token."""
    a, b = one.identity, other.identity
    if a is None or b is None or (a.issuer, a.audience) != (b.issuer, b.audience):
        return
    claims = dict(b.claims)
    is_apart = (a.client_ids and b.client_ids and not set(a.client_ids) & set(b.client_ids)) or any(
        name in claims and not set(values) & set(claims[name]) for name, values in a.claims
    )
    if not is_apart:
        raise CallerError(
            f"{source}: tenants {one.tenant} and {other.tenant} would accept the same tokens:"
            " give them other audiences, client_ids or claims",
            reason="tenants",
        )


class _Table:
    """One TOML table, read key by key; an unknown key is an error that names the nearest one."""

    def __init__(
        self, source: str, where: str, content: object, known: tuple[str, ...] | None
    ) -> None:
        self._where = f"{source}: {where}"
        if not isinstance(content, dict):
            raise CallerError(f"{self._where} must be a table", reason="tenants")
        self._content: dict[str, object] = content
        if known is not None:
            self._check_keys(known)

    def _check_keys(self, known: tuple[str, ...]) -> None:
        for key in self._content:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                raise CallerError(
                    f"{self._where}: unknown key {key[:80]!r}; {hint}", reason="tenants"
                )

    def fail(self, key: str, text: str) -> NoReturn:
        raise CallerError(f"{self._where} {key[:80]}: {text}", reason="tenants")

    def present(self) -> tuple[str, ...]:
        return tuple(self._content)

    def table(self, key: str) -> dict[str, object]:
        value = self._content.get(key, {})
        if not isinstance(value, dict):
            self.fail(key, "must be a table")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        if key not in self._content and default is None:
            self.fail(key, "is missing")
        return self._text(key, self._content.get(key, default))

    def checked(self, key: str, check: Callable[[str], str]) -> str:
        return self._parsed(key, check, self.text(key))

    def word(self, key: str, words: tuple[str, ...], default: str) -> str:
        value = self.text(key, default)
        if value not in words:
            self.fail(key, f"must be one of {', '.join(words)}")
        return value

    def choice[E: (Isolation, GuestReuse)](
        self, key: str, kind: type[E], default: E | None = None
    ) -> E:
        words = tuple(e.value for e in kind)
        if key not in self._content and default is None:
            self.fail(key, f"is missing: one of {', '.join(words)}")
        return kind(self.word(key, words, default.value if default is not None else ""))

    def flag(self, key: str) -> bool:
        value = self._content.get(key, False)
        if not isinstance(value, bool):
            self.fail(key, "must be true or false")
        return value

    def number(self, key: str) -> int:
        value = self._content[key]
        if type(value) is not int or not 0 < value <= MAX_QUOTA:
            self.fail(key, f"must be a whole number from 1 to {MAX_QUOTA}")
        return value

    def each[T](
        self, key: str, parse: Callable[[str], T], *, is_optional: bool = False
    ) -> tuple[T, ...]:
        value = self._content.get(key, [] if is_optional else None)
        is_empty_ok = is_optional and key not in self._content
        if not isinstance(value, list) or len(value) > MAX_ITEMS or (not value and not is_empty_ok):
            self.fail(key, f"must be a list of 1 to {MAX_ITEMS} strings")
        return tuple(self._parsed(key, parse, self._text(key, item)) for item in value)

    def _parsed[T](self, key: str, parse: Callable[[str], T], text: str) -> T:
        try:
            return parse(text)
        except CallerError as error:
            raise CallerError(f"{self._where} {key}: {error}", reason="tenants") from error

    def _text(self, key: str, value: object) -> str:
        if (
            not isinstance(value, str)
            or not 0 < len(value) <= MAX_TEXT_CHARS
            or not value.isprintable()
        ):
            self.fail(key, f"must be a string of 1 to {MAX_TEXT_CHARS} printable characters")
        return value
