"""A pack in a real S3 server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcc_testkit.services.s3_servers import (
    BUCKET,
    S3Server,
    seaweedfs,
    seaweedfs_missing_or_none,
)

from .conftest import UNITS, PackTeam

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    if missing := seaweedfs_missing_or_none():
        pytest.skip(missing)
    with seaweedfs(tmp_path_factory.mktemp("s3")) as server:
        yield server


def test_a_pack_goes_through_s3(
    make_pack_team: Callable[..., PackTeam], s3: S3Server, tmp_path: Path
) -> None:
    key, secret = s3.keys["acme"], tmp_path / "s3.json"
    secret.write_text(
        json.dumps({"access_key_id": key.access_key_id, "secret_access_key": key.secret_access_key})
    )
    secret.chmod(0o600)
    team = make_pack_team(
        url=f"s3://{BUCKET}/acme/packs", endpoint=s3.endpoint, credentials_file=str(secret)
    )
    ci, ann = team.ci(), team.machine("ann")
    assert team.build(ci) == ["run"] * UNITS
    assert team.push(ci)["entries"] == UNITS
    assert team.push(ci)["sent_chunks"] == 0
    report = team.pull(ann)
    assert (report.entries, report.absent) == (UNITS, 0)
    assert team.build(ann) == ["done"] * UNITS
    assert ann.counted("remote-cache.") == {"pack-found": UNITS}
