"""The `stores` section is refused at start if it would mix tenants, leak, or never work."""

from __future__ import annotations

from typing import Any

import pytest

from hpcc.core import CallerError, TenantId
from hpcc.worker.base.stores_config import parse_stores

ACME, GLOBEX = TenantId("acme"), TenantId("globex")
S3: dict[str, Any] = {
    "kind": "s3",
    "endpoint": "https://s3.example.com",
    "bucket": "hpcc",
    "credentials": "/etc/hpcc/s3/{tenant}.json",
}


def test_without_a_section_nothing_is_shared() -> None:
    assert parse_stores({}).of(ACME).kind == "disk"


def test_each_tenant_has_its_own_credential_and_may_have_its_own_place() -> None:
    stores = parse_stores(S3 | {"tenants": {"acme": {"bucket": "acme-builds"}}})
    assert stores.of(ACME).bucket == "acme-builds"
    assert stores.of(ACME).credentials == "/etc/hpcc/s3/acme.json"
    assert stores.of(GLOBEX).bucket == "hpcc"
    assert stores.of(GLOBEX).credentials == "/etc/hpcc/s3/globex.json"


def test_a_tenant_may_share_nothing_or_alone() -> None:
    stores = parse_stores(S3 | {"tenants": {"acme": {"kind": "disk"}}})
    assert (stores.of(ACME).kind, stores.of(GLOBEX).kind) == ("disk", "s3")
    alone = parse_stores({"tenants": {"acme": S3 | {"credentials": "/etc/hpcc/acme.json"}}})
    assert (alone.of(ACME).kind, alone.of(GLOBEX).kind) == ("s3", "disk")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"kind": "nfs"}, "kind"),
        ({"kind": "reapi"}, "grpcs"),
        ({"kind": "reapi", "endpoint": "grpc://cas.example.com"}, "grpcs"),
        ({"kind": "reapi", "endpoint": "grpcs://cas.example.com", "instance": "main"}, "{tenant}"),
        (
            {
                "tenants": {
                    name: {"kind": "reapi", "endpoint": "grpcs://cas", "instance": "main"}
                    for name in ("acme", "globex")
                }
            },
            "share",
        ),
        ({"endpoint": "http://s3.example.com"}, "https"),
        ({"endpoint": ""}, "https"),
        ({"bucket": ""}, "bucket"),
        ({"credentials": ""}, "credentials"),
        ({"credentials": "relative/{tenant}.json"}, "absolute"),
        ({"credentials": "/etc/hpcc/one-for-all.json"}, "{tenant}"),
        ({"prefix": "../other"}, "prefix"),
        ({"prefix": "/farm"}, "prefix"),
        ({"call_seconds": 0}, "positive"),
        ({"call_seconds": "5"}, "call_seconds"),
        ({"max_object_bytes": True}, "max_object_bytes"),
        ({"zstd_level": 30}, "zstd_level"),
        ({"bukket": "hpcc"}, "bukket"),
        ({"tenants": []}, "tenants"),
        ({"tenants": {"acme": "s3"}}, "acme"),
        ({"tenants": {"../acme": {}}}, "tenant"),
        ({"tenants": {"acme": {"tenants": {}}}}, "tenants"),
        (
            {"tenants": {"acme": {"credentials": "/c"}, "globex": {"credentials": "/c"}}},
            "share",
        ),
    ],
)
def test_a_section_that_mixes_tenants_or_never_works_is_refused(
    wrong: dict[str, Any], says: str
) -> None:
    with pytest.raises(CallerError) as caught:
        parse_stores(S3 | wrong)
    assert says in str(caught.value)


def test_workers_with_the_same_stores_have_the_same_name_for_them() -> None:
    name = parse_stores(S3).name
    assert len(name) == 64
    other_account = S3 | {"credentials": "/other/{tenant}.json", "call_seconds": 9.0}
    assert parse_stores(other_account).name == name
    for change in ({"bucket": "b"}, {"prefix": "p"}, {"endpoint": "https://other.example.com"}):
        assert parse_stores(S3 | change).name not in {"", name}
    assert parse_stores({}).name == ""
    assert parse_stores(S3 | {"tenants": {"acme": {"kind": "disk"}}}).name == ""
