"""Starts both S3 servers once per test process, and makes stores on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hpcc.store.bucket.s3 import S3Config, S3Objects
from hpcc_testkit.services.s3_servers import (
    BUCKET,
    S3Server,
    radosgw,
    radosgw_missing_or_none,
    seaweedfs,
    seaweedfs_missing_or_none,
)

S3Of = Callable[..., S3Objects]


@pytest.fixture(scope="session", params=["seaweedfs", "radosgw"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[S3Server]:
    is_seaweed = request.param == "seaweedfs"
    if missing := (seaweedfs_missing_or_none() if is_seaweed else radosgw_missing_or_none()):
        pytest.skip(missing)
    with (seaweedfs if is_seaweed else radosgw)(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(scope="session")
def s3_of() -> S3Of:
    """Return a function that makes a tenant's objects at a server; keywords change settings."""

    def make(server: S3Server, tenant: str = "acme", **more: Any) -> S3Objects:
        key = server.keys[tenant]
        values: dict[str, Any] = {
            "endpoint": server.endpoint,
            "bucket": BUCKET if server.kind == "seaweedfs" else tenant,
            "access_key_id": key.access_key_id,
            "secret_access_key": key.secret_access_key,
            # Machines that run other tests beside are slow; no test of good days waits for it.
            "call_seconds": 60.0,
        }
        return S3Objects(S3Config(**values | more))

    return make
