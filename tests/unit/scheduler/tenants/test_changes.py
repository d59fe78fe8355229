"""What `hpcc tenants diff` names: each field that differs, and what that does to people."""

from __future__ import annotations

import pytest

from hpcc.scheduler.tenants.changes import Tenants, difference
from hpcc.scheduler.tenants.table import parse_tenants

DIGEST = "sha256:" + "ab" * 32
ACME = f"""
[tenants.acme]
images = ["registry.acme.example/gcc@{DIGEST}", "registry.acme.example/toolchains/*"]
minimum_isolation = "firecracker/kvm"
[tenants.acme.identity]
issuer = "https://login.acme.example"
audience = "hpcc"
client_ids = ["hpcc-cli", "hpcc-ci"]
claims = {{ groups = ["builders"] }}
[tenants.acme.quotas]
sessions = 2
"""
GLOBEX = ACME.replace("acme", "globex")


def table(text: str) -> Tenants:
    return parse_tenants(text.encode(), source="t")


def lines(before: str, after: str) -> list[str]:
    return [change.text for change in difference(table(before), table(after)).changes]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("sessions = 2", "sessions = 3", ["~ tenants.acme.quotas.sessions: 2 -> 3"]),
        (
            "sessions = 2",
            "sessions = 2\nfarm_execs = 7",
            ["~ tenants.acme.quotas.farm_execs: not set -> 7"],
        ),
        (
            '["builders"]',
            '["testers"]',
            [
                '- tenants.acme.identity.claims.groups[] = "builders"',
                '+ tenants.acme.identity.claims.groups[] = "testers"',
            ],
        ),
        (
            'groups = ["builders"]',
            'team = ["builders"]',
            [
                '~ tenants.acme.identity.claims.groups: ["builders"] -> not set',
                '~ tenants.acme.identity.claims.team: not set -> ["builders"]',
            ],
        ),
        (
            'groups = ["builders"]',
            r'groups = ["builders"], "x\n- tenants.globex" = ["y"]',
            [r'~ tenants.acme.identity.claims."x\n- tenants.globex": not set -> ["y"]'],
        ),
        (
            ', "registry.acme.example/toolchains/*"',
            "",
            ['- tenants.acme.images[] = "registry.acme.example/toolchains/*"'],
        ),
        (
            '"hpcc-cli", "hpcc-ci"',
            '"hpcc-ci", "hpcc-cli"',
            [
                '~ tenants.acme.identity.client_ids: ["hpcc-cli", "hpcc-ci"]'
                ' -> ["hpcc-ci", "hpcc-cli"]'
            ],
        ),
        (
            '"firecracker/kvm"',
            '"qemu/kvm"',
            ['~ tenants.acme.minimum_isolation: "firecracker/kvm" -> "qemu/kvm"'],
        ),
        ("sessions = 2", "sessions = 2 # two", []),
    ],
)
def test_each_field_that_differs_is_named(old: str, new: str, said: list[str]) -> None:
    assert old in ACME
    assert lines(ACME, ACME.replace(old, new, 1)) == said


def test_tenants_come_with_their_fields_and_go_without() -> None:
    found = difference(table(ACME), table(GLOBEX))
    texts = [change.text for change in found.changes]
    assert texts[:3] == [
        "- tenants.acme",
        "+ tenants.globex",
        '+ tenants.globex.fallback = "warn"',
    ]
    assert "+ tenants.globex.quotas.sessions = 2" in texts
    assert not any("farm_execs" in text for text in texts), "what is not set is not shown"
    assert (found.added, found.removed, found.changed) == (("globex",), ("acme",), ())
    assert found.notes == ("members of acme lose access at once",)


def test_who_has_to_log_in_again_is_named() -> None:
    changed = ACME.replace('"hpcc"', '"hpcc-cli"', 1)
    found = difference(table(ACME + GLOBEX), table(changed + GLOBEX))
    assert found.changed == ("acme",)
    assert found.notes == ("members of acme have to log in again",)
