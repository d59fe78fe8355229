"""The tenants table: which entries it accepts, and what happens when it changes."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.control.embedded import EmbeddedControlStore
from hpcc.core import (
    CallerError,
    GuestReuse,
    ImageRef,
    Isolation,
    PolicyError,
    SharingPolicy,
    TenantId,
)
from hpcc.identity.key_ring import Sealer
from hpcc.rpc.base.errors import UnauthenticatedError
from hpcc.rpc.scheduler.api import SessionGrant
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.scheduler.base.signing import SigningKeys
from hpcc.scheduler.tenants.authenticator import Admitted, Authenticator, StaticAuthenticator
from hpcc.scheduler.tenants.file import POLL_SECONDS, TenantsFile, load_tenants
from hpcc.scheduler.tenants.sessions import Sessions
from hpcc.scheduler.tenants.table import (
    MAX_TENANTS,
    ImageRule,
    TenantPolicy,
    _matches,
    parse_tenants,
)
from hpcc_testkit.services.idp_tokens import FixedClock

ACME = TenantId("acme")
DIGEST = "sha256:" + "ab" * 32
GOOD = f"""
[tenants.acme]
images = ["registry.acme.example/gcc@{DIGEST}", "registry.acme.example/toolchains/*"]
minimum_isolation = "firecracker/kvm"
guest_reuse = "exec"
fallback = "never"
parity = "warn"

[tenants.acme.identity]
issuer = "https://login.acme.example"
audience = "hpcc"
client_ids = ["hpcc-cli"]
algorithms = ["ES256"]
principal_claim = "email"
claims = {{ groups = ["builders"] }}

[tenants.acme.quotas]
concurrent_execs = 64
farm_execs = 40
farm_weight = 3
upload_bytes = 10_000_000_000
upload_window_seconds = 600
cache_bytes = 50_000_000_000
sessions = 2
"""


def parse(text: str) -> TenantPolicy:
    return parse_tenants(text.encode(), source="tenants.toml")[ACME]


def refusal(text: str) -> str:
    with pytest.raises(CallerError) as refused:
        parse_tenants(text.encode(), source="tenants.toml")
    assert refused.value.reason == "tenants"
    assert str(refused.value).startswith("tenants.toml")
    return str(refused.value)


SHARING = (
    GOOD.replace('guest_reuse = "exec"', "")
    + """
[tenants.acme.sharing]
share = "agreed"
agree = 3
agree_across_workers = true
machines = ["bot-*", "ci-main"]
"""
)
IDLE = SHARING.replace("agree_across_workers = true", "verify_idle = 600")


def test_a_section_of_sharing_is_read() -> None:
    sharing = parse(SHARING).sharing
    assert sharing.policy == SharingPolicy(fresh=True, agree=3, across_workers=True)
    assert [sharing.is_machine(n) for n in ("bot-7", "ci-main", "ann")] == [True, True, False]
    assert (sharing.verify_idle, parse(IDLE).sharing.verify_idle) == (0, 600)
    assert (sharing.packs, parse(IDLE + "packs = true\n").sharing.packs) == (False, True)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("idle = 600", "idle = 0", "must be a whole number from 1"),
        ("idle = 600", "idle = 3601", "an hour has 3600 seconds"),
        (
            "idle = 600",
            "idle = 600\nagree_across_workers = true",
            "which this tenant does not accept",
        ),
    ],
)
def test_a_budget_for_idle_workers_that_cannot_hold_is_refused(
    old: str, new: str, said: str
) -> None:
    assert said in refusal(IDLE.replace(old, new))


def test_packs_need_results_that_serve_everybody() -> None:
    private = IDLE.replace('"agreed"', '"private"').replace("verify_idle = 600", "packs = true")
    assert "which this tenant does not accept" in refusal(private)


def test_results_are_shared_by_agreement_unless_the_guests_reuse_shares_them() -> None:
    plain = GOOD.replace('guest_reuse = "exec"', "")
    assert parse(plain).sharing.policy == SharingPolicy(fresh=True, agree=2)
    assert parse(GOOD).sharing.policy.is_private
    assert parse(GOOD.replace('"exec"', '"tenant"')).sharing.policy.is_private


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"agreed"', '"all"', "must be one of agreed, fresh, private"),
        ("agree = 3", "agree = 1", "must be 2 to 8"),
        ("agree = 3", "agree = 9", "must be 2 to 8"),
        ("= true", "= 1", "must be true or false"),
        ('"bot-*"', '"*-bot"', "at its end only"),
        ('"agreed"', '"fresh"', 'needs share = "agreed"'),
        ("agree = 3", 'publish_fresh = ["ci"]', "is not enough with agree_across_workers"),
        ("machines", "machine", "did you mean 'machines'?"),
        ("agree = 3", 'packs = "yes"', "must be true or false"),
        ("fallback =", 'guest_reuse = "exec"\nfallback =', 'needs guest_reuse = "principal"'),
    ],
)
def test_a_section_of_sharing_that_cannot_hold_is_refused(old: str, new: str, said: str) -> None:
    assert said in refusal(SHARING.replace(old, new))


def test_everything_that_can_be_said_is_read() -> None:
    policy = parse(GOOD)
    assert policy.identity is not None
    assert policy.identity.issuer == "https://login.acme.example"
    assert policy.identity.client_ids == ("hpcc-cli",)
    assert policy.identity.claims == (("groups", ("builders",)),)
    assert policy.identity.algorithms == ("ES256",)
    assert policy.identity.principal_claim == "email"
    assert policy.minimum_isolation is Isolation.FIRECRACKER_KVM
    assert policy.guest_reuse is GuestReuse.EXEC
    assert (policy.fallback, policy.parity) == ("never", "warn")
    assert policy.quotas.concurrent_execs == 64
    assert (policy.quotas.farm_execs, policy.quotas.farm_weight) == (40, 3)
    assert (policy.quotas.most_execs, policy.quotas.is_leased) == (40, True)
    assert policy.quotas.upload_bytes == 10**10
    assert policy.quotas.upload_window_seconds == 600
    assert policy.quotas.cache_bytes == 5 * 10**10


def test_what_is_left_out_is_the_careful_choice() -> None:
    short = GOOD.replace('guest_reuse = "exec"\nfallback = "never"\nparity = "warn"', "")
    policy = parse(short[: short.index("[tenants.acme.quotas]")])
    assert policy.guest_reuse is GuestReuse.PRINCIPAL
    assert (policy.fallback, policy.parity) == ("warn", "refuse")
    assert policy.quotas.concurrent_execs is None
    assert (policy.quotas.most_execs, policy.quotas.is_leased) == (0, False)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("issuer =", "isuer =", "unknown key 'isuer'; did you mean 'issuer'?"),
        ("guest_reuse =", "guest_resue =", "unknown key 'guest_resue'; did you mean 'guest_reuse'"),
        ("cache_bytes =", "cache_byte =", "did you mean 'cache_bytes'?"),
        ("[tenants.acme.identity]", "[tenants.acme.identiy]", "did you mean 'identity'?"),
        ("[tenants.acme]", "colour = 1\n[tenants.acme]", "unknown key 'colour'; known: tenants"),
        ('"https://login.acme.example"', '"http://login.acme.example"', "is not https"),
        ('"https://login.acme.example"', '"https://a:b@acme.example"', "not a URL"),
        ('"https://login.acme.example"', '"https://acme.example/#x"', "not a URL"),
        ('"https://login.acme.example"', '"file:///etc/passwd"', "not a URL"),
        ('audience = "hpcc"', "", "[tenants.acme.identity] audience: is missing"),
        ('audience = "hpcc"', 'audience = ""', "must be a string of 1 to 255"),
        ('["hpcc-cli"]', '"hpcc-cli"', "must be a list of 1 to 256 strings"),
        ('["hpcc-cli"]', "[7]", "must be a string"),
        ('["ES256"]', '["HS256"]', "must be of RS256"),
        ('["ES256"]', '["none"]', "must be of RS256"),
        ('"firecracker/kvm"', '"docker"', "must be one of firecracker/kvm"),
        ('minimum_isolation = "firecracker/kvm"', "", "minimum_isolation: is missing"),
        ('"exec"', '"always"', "must be one of exec, principal, tenant"),
        ('"never"', '"maybe"', "must be one of never, warn, quiet"),
        ('parity = "warn"', "parity = 1", "must be a string"),
        ("concurrent_execs = 64", "concurrent_execs = 0", "must be a whole number from 1"),
        ("concurrent_execs = 64", "concurrent_execs = true", "must be a whole number"),
        ("concurrent_execs = 64", "concurrent_execs = 1.5", "must be a whole number"),
        ("sessions = 2", "sessions = 9_000_000_000_000_000_000", "must be a whole number"),
        ("[tenants.acme]", "[tenants.Acme]", "not a tenant id"),
        ("toolchains/*", "Tool chains/*", "not an image"),
        ("toolchains/*", "gcc:latest", "not an image"),
        ('"registry.acme.example/toolchains/*"', '"*"', "not an image"),
        ("gcc@sha256", "gcc:latest@sha512", "not an image digest"),
        ("images = [", "images = [] #", "images: must be a list of 1 to 256"),
        ('"email"', '"preferred_username"', "must be one of sub, email"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(old: str, new: str, said: str) -> None:
    assert old in GOOD
    text = refusal(GOOD.replace(old, new, 1))
    assert said in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "text",
    [
        "", "tenants = 1", "[tenants]", "[tenants]\nacme = 1", "[tenants.acme", "\udcff",
        "a = " + "9" * 5_000, "a = " + "[" * 5_000,
    ],
)  # fmt: skip
def test_a_file_that_is_no_table_is_refused(text: str) -> None:
    with pytest.raises(CallerError):
        parse_tenants(text.encode("utf-8", "surrogateescape"), source="t")


def test_an_endless_table_is_refused() -> None:
    with pytest.raises(CallerError, match="larger than"):
        parse_tenants(b"#" * ((1 << 20) + 1), source="t")
    many = "\n".join(f"[tenants.t{n}]" for n in range(MAX_TENANTS + 1))
    assert f"1 to {MAX_TENANTS}" in refusal(many)


def test_a_provider_that_serves_everybody_needs_to_be_told_who_is_meant() -> None:
    open_to_all = GOOD.replace('client_ids = ["hpcc-cli"]', "")
    assert parse(open_to_all).identity is not None
    assert "must say who of all" in refusal(
        open_to_all.replace('claims = { groups = ["builders"] }', "")
    )


def globex(**changes: str) -> str:
    text = GOOD[: GOOD.index("[tenants.acme.quotas]")].replace("tenants.acme", "tenants.globex")
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    return GOOD + text


def test_two_tenants_that_would_take_the_same_tokens_are_refused() -> None:
    assert "acme and globex would accept the same tokens" in refusal(globex())
    more = globex(clients=('["hpcc-cli"]', '["hpcc-cli", "other"]'))
    assert "would accept the same tokens" in refusal(more)
    apart = [
        globex(audience=('"hpcc"', '"hpcc-globex"')),
        globex(issuer=("login.acme", "login.globex")),
        globex(clients=('["hpcc-cli"]', '["globex-cli"]')),
        globex(claims=('["builders"]', '["globex"]')),
    ]
    for text in apart:
        assert len(parse_tenants(text.encode(), source="t")) == 2


def test_images_are_allowed_by_digest_or_by_name() -> None:
    other = ImageRef.parse(f"registry.acme.example/toolchains/clang@sha256:{'cd' * 32}")
    policy = parse(GOOD)
    assert policy.allows(ImageRef.parse(f"any/name@{DIGEST}"))
    assert policy.allows(other)
    assert not policy.allows(ImageRef.parse(f"registry.acme.example/gcc@sha256:{'cd' * 32}"))
    for name in ("evil.example/registry.acme.example/toolchains/x", "registry.acme.example/tool"):
        assert not policy.allows(ImageRef.parse(f"{name}@sha256:{'cd' * 32}"))
    assert ImageRule.parse("a.b/*/gcc").allows(ImageRef.parse(f"a.b/c/gcc@{DIGEST}"))
    assert not ImageRule.parse("a.b/*/gcc").allows(ImageRef.parse(f"axb/c/gcc@{DIGEST}"))


def written(path: Path, text: str = GOOD) -> Path:
    path.write_text(text)
    path.chmod(0o644)
    return path


def test_a_table_that_others_can_write_is_not_believed(tmp_path: Path) -> None:
    path = written(tmp_path / "t.toml")
    assert ACME in load_tenants(path)[0]
    path.chmod(0o664)
    with pytest.raises(CallerError, match="others can write"):
        load_tenants(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_table_of_somebody_else_is_not_believed(tmp_path: Path) -> None:
    path = written(tmp_path / "t.toml")
    os.chown(path, 4321, 4321)
    # Root reads everything, and must not take everybody's word.
    with pytest.raises(CallerError, match="owned by root or by you"):
        load_tenants(path)


@pytest.mark.parametrize("kind", ["absent", "directory", "fifo"])
def test_what_is_no_file_is_no_table(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "t"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(CallerError):
        load_tenants(path)


class Looks:
    """A table file that the test makes the scheduler check once a second."""

    def __init__(self, path: Path) -> None:
        self.clock = FixedClock()
        self.table = TenantsFile(path, self.clock)

    def look(self, times: int = 1) -> list[bool]:
        looks = []
        for _ in range(times):
            self.clock.time += POLL_SECONDS
            looks.append(self.table.reload())
        return looks


TWO = globex(audience=('"hpcc"', '"other"'))


def test_a_changed_table_is_taken_in_when_it_has_rested(tmp_path: Path) -> None:
    path = written(tmp_path / "t.toml")
    looks = Looks(path)
    assert looks.look() == [False]
    written(path, TWO)
    assert looks.look(3) == [False, True, False]
    assert len(looks.table.tenants) == 2
    # As an operator should do it.
    written(tmp_path / "new").rename(path)
    assert looks.look(3) == [False, True, False]
    assert len(looks.table.tenants) == 1


def test_looks_that_follow_at_once_do_not_make_a_rest(tmp_path: Path) -> None:
    path = written(tmp_path / "t.toml")
    looks = Looks(path)
    written(path, TWO)
    assert [looks.table.reload() for _ in range(5)] == [False] * 5
    assert looks.look() == [True]


def test_a_table_that_is_being_written_in_place_is_not_taken_by_half(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path / "t.toml", TWO)
    looks = Looks(path)
    half = len(GOOD) + TWO[len(GOOD) :].index("[tenants.globex.identity]")
    with caplog.at_level(logging.WARNING):
        for end in (0, len(GOOD), half):  # nothing, a good table of one tenant, a broken one
            written(path, TWO[:end])
            assert looks.look() == [False]
            assert len(looks.table.tenants) == 2
        assert caplog.records == []
        written(path, TWO.replace("qemu/kvm", "qemu/tcg"))
        assert looks.look() == [False]
        looks.look()
    assert [r.message for r in caplog.records] == ["tenants table reloaded: 2 tenants"]


def test_a_table_that_changes_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path / "t.toml")
    looks = Looks(path)
    written(path, GOOD + TWO[len(GOOD) :][:20])
    real, writes = os.fdopen, [TWO]

    def fdopen(descriptor: int, mode: str) -> object:
        file = real(descriptor, mode)
        if writes:
            raw = file.read()
            file.seek(0)
            path.write_text(writes.pop())
            assert file.read(len(raw)) != b""
            file.seek(0)
        return file

    looks.look()
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr("hpcc.scheduler.tenants.file.os.fdopen", fdopen)
        assert looks.look(3) == [False, False, True]
    assert [r.message for r in caplog.records] == ["tenants table reloaded: 2 tenants"]


@pytest.mark.parametrize("how", ["broken", "gone", "writable"])
def test_a_broken_new_table_leaves_the_old_one_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    path = written(tmp_path / "t.toml")
    looks = Looks(path)
    if how == "broken":
        written(path, "[tenants.acme\n")
    elif how == "gone":
        path.unlink()
    else:
        path.chmod(0o666)
    with caplog.at_level(logging.ERROR):
        assert not any(looks.look(4))
    assert [r.message.partition(":")[0] for r in caplog.records] == [
        "tenants table not reloaded, the old one stays in force"
    ]
    assert ACME in looks.table.tenants
    assert looks.table.trouble.startswith("the old table stays in force: ")
    written(path, TWO)
    assert looks.look(2) == [False, True]
    assert looks.table.trouble == ""


async def test_the_table_is_looked_at_every_second(tmp_path: Path) -> None:
    path = written(tmp_path / "t.toml")
    clock = FixedClock()
    table = TenantsFile(path, clock)
    written(path, globex(audience=('"hpcc"', '"other"')))
    async with asyncio.timeout(10):
        watching = asyncio.Task(table.watch())
        while len(table.tenants) == 1:  # noqa: ASYNC110 - the product has no event for it
            await asyncio.sleep(0)
    watching.cancel()
    assert set(clock.slept) == {POLL_SECONDS}


def static(**changes: object) -> SchedulerConfig:
    values: dict[str, object] = {
        "keys": Path("/k"),
        "state": Path("/s"),
        "tenant": "acme",
        "tenant_secret": "s" * 43,
        "minimum_isolation": "qemu/tcg",
        **changes,
    }
    return SchedulerConfig(**values)  # type: ignore[arg-type]  # built by name just above


async def test_without_a_table_there_is_the_one_static_tenant() -> None:
    authenticator = StaticAuthenticator(static(), FixedClock())
    admitted = await authenticator.admit("s" * 43, ACME, "ann")
    assert (admitted.principal, admitted.expires_at) == ("ann", None)
    assert admitted.policy.allows(ImageRef.parse(f"any@{DIGEST}"))
    for secret, tenant in (("x" * 43, ACME), ("s" * 43, TenantId("globex")), ("", ACME)):
        with pytest.raises(UnauthenticatedError):
            await authenticator.admit(secret, tenant, "ann")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tenants": "/t.toml"}, "exclude each other"),
        ({"tenants": "t.toml"}, "absolute path"),
        ({"tenant_secret": ""}, "'tenant_secret' is missing"),
        ({"worker_certificate_seconds": 1.0}, "worker_certificate_seconds"),
    ],
)
def test_a_scheduler_has_a_table_or_a_static_tenant(changes: dict[str, object], said: str) -> None:
    with pytest.raises(CallerError, match=said):
        static(**changes)


class _Authenticators:
    """An authenticator whose table a test changes."""

    def __init__(self, policy: TenantPolicy | None) -> None:
        self.policy = policy

    async def admit(self, credential: str, tenant: TenantId, principal: str) -> Admitted:
        raise AssertionError

    def policy_or_none(self, tenant: TenantId) -> TenantPolicy | None:
        return self.policy if tenant == ACME else None

    async def watch(self) -> None:
        raise AssertionError


Opens = Callable[..., Awaitable["TestSessions"]]


class TestSessions:
    """Sessions with a private embedded store and key ring."""

    __test__ = False

    def __init__(self, sessions: Sessions) -> None:
        self.find = sessions.find
        self._sessions = sessions

    async def open(self, admitted: Admitted, version: str) -> SessionGrant:
        return (await self._sessions.open(admitted, version))[0]


@pytest.fixture
async def opens(tmp_path: Path) -> AsyncIterator[Opens]:
    with EmbeddedControlStore(tmp_path / "control.sqlite", FixedClock()) as store:

        async def make(authenticator: Authenticator, clock: FixedClock) -> TestSessions:
            keys = SigningKeys(
                store, Sealer(b"s" * 32), clock, key_seconds=1e9, lifetime_seconds=3600.0
            )
            await keys.load()
            return TestSessions(Sessions(authenticator, clock, 3600.0, keys=keys, store=store))

        yield make


async def test_a_session_ends_with_its_token_or_with_the_rules_it_was_made_under(
    opens: Opens,
) -> None:
    policy, clock = parse(GOOD), FixedClock()
    authenticator = _Authenticators(policy)
    sessions = await opens(authenticator, clock)
    grant = await sessions.open(Admitted(policy, "ann", clock.now() + 100), "t")
    assert grant.expires_at == clock.now() + 100
    assert sessions.find(grant.session, ACME)[0].principal == "ann"
    # What concerns not who she is changes her session's rights at once, not the session.
    authenticator.policy = parse(GOOD.replace("firecracker/kvm", "qemu/kvm"))
    assert sessions.find(grant.session, ACME)[1].minimum_isolation is Isolation.QEMU_KVM
    authenticator.policy = parse(GOOD.replace('["builders"]', '["others"]'))
    with pytest.raises(UnauthenticatedError):
        sessions.find(grant.session, ACME)
    authenticator.policy = policy
    with pytest.raises(UnauthenticatedError):
        sessions.find(grant.session, ACME)
    second = await sessions.open(Admitted(policy, "ann", clock.now() + 100), "t")
    clock.time += 101
    with pytest.raises(UnauthenticatedError):
        sessions.find(second.session, ACME)


async def test_a_tenants_flood_of_logins_ends_its_own_sessions_only(opens: Opens) -> None:
    mine = parse(GOOD)
    other = parse_tenants(
        globex(audience=('"hpcc"', '"other"')).encode(), source="t"
    )[TenantId("globex")]  # fmt: skip
    clock = FixedClock()
    sessions = await opens(_Authenticators(mine), clock)
    kept = await sessions.open(Admitted(mine, "ann", None), "t")
    for _ in range(100):
        await sessions.open(Admitted(other, "ann", None), "t")  # a name means nothing elsewhere
    assert sessions.find(kept.session, ACME)[0].principal == "ann"
    with pytest.raises(PolicyError) as foreign:
        sessions.find(kept.session, TenantId("globex"))
    assert foreign.value.reason == "foreign-tenant"


def principals(sessions: TestSessions, grants: list[SessionGrant]) -> list[str]:
    """Return the principals of the sessions that are still open, in the order of the grants."""
    found = []
    for grant in grants:
        with suppress(UnauthenticatedError):
            found.append(sessions.find(grant.session, ACME)[0].principal)
    return found


@pytest.mark.parametrize("order", ["before", "after"])
async def test_a_members_flood_of_logins_ends_that_members_sessions_first(
    order: str, opens: Opens
) -> None:
    policy = parse(GOOD.replace("sessions = 2", "sessions = 5"))
    sessions = await opens(_Authenticators(policy), FixedClock())

    async def opened(who: str, count: int) -> list[SessionGrant]:
        return [await sessions.open(Admitted(policy, who, None), "t") for _ in range(count)]

    flood = await opened("eve", 50) if order == "after" else []
    colleagues = [*await opened("ann", 1), *await opened("bob", 1)]
    flood += await opened("eve", 50)
    assert principals(sessions, colleagues) == ["ann", "bob"]
    assert principals(sessions, flood) == ["eve"] * 3
    assert principals(sessions, flood[-3:]) == ["eve"] * 3, "the oldest go first"
    # A newcomer finds room too. A principal with almost as many sessions loses its oldest one.
    colleagues += [*await opened("cid", 1), *await opened("ann", 1)]
    assert principals(sessions, colleagues) == ["bob", "cid", "ann"]
    assert principals(sessions, flood) == ["eve"] * 2


async def test_a_tenant_with_more_members_than_room_lets_the_oldest_go(opens: Opens) -> None:
    policy = parse(GOOD)
    sessions = await opens(_Authenticators(policy), FixedClock())
    grants = [
        await sessions.open(Admitted(policy, who, None), "t") for who in ("ann", "bob", "cid")
    ]
    assert principals(sessions, grants) == ["bob", "cid"]
    # A smaller table ends those beyond it at the next login.
    small = replace(policy, quotas=replace(policy.quotas, sessions=1))
    grants.append(await sessions.open(Admitted(small, "ann", None), "t"))
    assert principals(sessions, grants) == ["ann"]


@given(st.text("ab/*", max_size=8), st.text("ab/", max_size=12))
def test_a_pattern_means_what_its_regular_expression_would(pattern: str, text: str) -> None:
    parts = (re.escape(part) for part in pattern.split("*"))
    assert _matches(pattern, text) is (re.fullmatch(".*".join(parts), text) is not None)


def test_a_name_that_nearly_fits_a_pattern_of_many_parts_is_judged_at_once() -> None:
    assert not _matches("r/" + "*a" * 60 + "*!", "r/" + "a" * 250)
