"""The test S3 servers keep their promise: a tenant's credential is limited to its prefix."""

from __future__ import annotations

import httpx
import pytest

from hpcc_testkit.services.s3_servers import BUCKET, S3Server
from hpcc_testkit.services.s3_signing import S3Key

pytestmark = pytest.mark.timeout(300)


def test_the_servers_own_policy_ends_a_tenant_at_its_prefix(server: S3Server) -> None:
    bucket = BUCKET if server.kind == "seaweedfs" else "acme"
    path = f"/{bucket}/acme/object"
    acme, globex = server.keys["acme"], server.keys["globex"]
    assert server.request("PUT", path, key=acme, body=b"acme's").status_code == httpx.codes.OK
    assert server.request("GET", path, key=acme).content == b"acme's"
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        for name in (path, f"{path}-absent"):
            refused = server.request(method, name, key=globex)
            assert refused.status_code == httpx.codes.FORBIDDEN, (method, name)
    listing = server.request("GET", f"/{bucket}?list-type=2&prefix=acme/", key=globex)
    assert listing.status_code == httpx.codes.FORBIDDEN


def test_a_wrong_secret_is_refused(server: S3Server) -> None:
    wrong = S3Key(server.keys["acme"].access_key_id, "wrong")
    bucket = BUCKET if server.kind == "seaweedfs" else "acme"
    answer = server.request("GET", f"/{bucket}/acme/object", key=wrong)
    assert answer.status_code == httpx.codes.FORBIDDEN


def test_a_bucket_with_object_lock_can_be_made(server: S3Server) -> None:
    if server.kind == "radosgw":
        return  # its SQLite back end takes the header and then knows of no lock
    server.make_bucket("locked", object_lock=True)
    answer = server.request("GET", "/locked?object-lock")
    assert answer.status_code == httpx.codes.OK, answer.text
    assert "Enabled" in answer.text
