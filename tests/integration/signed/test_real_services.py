"""The kinds of services: a real S3 server, a server that obeys WebDAV, Azure's headers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hpcc.cache.signed.opening import open_objects
from hpcc.config.remote_cache import RemoteCacheSettings, RemotePlace
from hpcc.core import InfrastructureError, NotFoundError
from hpcc_testkit.services.object_server import object_server
from hpcc_testkit.services.s3_servers import (
    BUCKET,
    S3Server,
    seaweedfs,
    seaweedfs_missing_or_none,
)
from hpcc_testkit.services.server_certificate import make_server_files

from .conftest import MAIN, OTHER, Team

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    if missing := seaweedfs_missing_or_none():
        pytest.skip(missing)
    with seaweedfs(tmp_path_factory.mktemp("s3")) as server:
        yield server


def credential_file(path: Path, **values: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))
    path.chmod(0o600)
    return str(path)


@pytest.fixture
def s3_team(make_team: Callable[..., Team], s3: S3Server, tmp_path: Path) -> Team:
    key = s3.keys["acme"]
    # Each test has its own prefix.
    return make_team(
        url=f"s3://{BUCKET}/acme/{tmp_path.name.replace('_', '-')}",
        endpoint=s3.endpoint,
        credentials_file=credential_file(
            tmp_path / "s3.json",
            access_key_id=key.access_key_id,
            secret_access_key=key.secret_access_key,
        ),
    )


def test_a_second_machine_is_served_from_s3_and_a_revocation_ends_it(s3_team: Team) -> None:
    ci, ann = s3_team.ci(), s3_team.machine("ann")
    for command in (MAIN, OTHER):
        assert ci.compile(*command).answer == "run"
    ci.flush()
    assert ci.count("remote-cache.uploaded") == 2
    assert [ann.compile(*c).answer for c in (MAIN, OTHER)] == ["done", "done"]
    for name in ("main.o", "other.o"):
        assert ann.read(name) == ci.read(name)
    revoked = s3_team.machine("bob", revoked_keys=(s3_team.key.key.kid,))
    assert revoked.compile(*MAIN).answer == "run"
    # Ann's results are here already, and go with the key.
    ann.restart()
    ann.remote["revoked_keys"] = (s3_team.key.key.kid,)
    assert ann.compile(*MAIN).answer == "run"


def test_a_wrong_credential_costs_one_request(s3_team: Team, tmp_path: Path) -> None:
    wrong = credential_file(tmp_path / "w.json", access_key_id="a", secret_access_key="b")
    ann = s3_team.machine("ann", credentials_file=wrong)
    assert [ann.compile(*c).answer for c in (MAIN, OTHER)] == ["run", "run"]
    assert ann.counted("remote-cache.") == {"failed.store-denied": 1, "skipped": 1}


def test_a_reader_of_another_tenants_prefix_is_refused_by_the_server(
    s3_team: Team, s3: S3Server, tmp_path: Path
) -> None:
    key = s3.keys["globex"]
    other = credential_file(
        tmp_path / "g.json",
        access_key_id=key.access_key_id,
        secret_access_key=key.secret_access_key,
    )
    ann = s3_team.machine("ann", credentials_file=other)
    assert ann.compile(*MAIN).answer == "run"
    assert ann.counted("remote-cache.failed.") == {"store-denied": 1}


def test_a_webdav_server_gets_its_collections_and_a_password(
    make_team: Callable[..., Team], tmp_path: Path
) -> None:
    with object_server() as server:
        server.login = "build:secret"
        login = credential_file(tmp_path / "dav.json", user="build", password="secret")
        team = make_team(url=server.url, credentials_file=login)
        ci, ann = team.ci(), team.machine("ann")
        ci.compile(*MAIN)
        ci.flush()
        assert server.count("MKCOL") >= 3
        assert ann.compile(*MAIN).answer == "done"
        stranger = team.machine("eve", credentials_file="")
        assert stranger.compile(*MAIN).answer == "run"
        assert stranger.counted("remote-cache.failed.") == {"store-denied": 1}


async def test_azure_gets_its_headers_and_the_token_in_the_query(tmp_path: Path) -> None:
    """A scripted service: Azure itself was not asked."""
    with object_server() as server:
        server.required = {"x-ms-blob-type": "BlockBlob"}
        settings = RemoteCacheSettings(
            url="azure://account/container",
            credentials_file=credential_file(tmp_path / "azure.json", sas="?sv=1&sig=abc%3D"),
        )
        place = RemotePlace("azure", server.url)
        async with open_objects(settings, place) as objects:
            await objects.put("key", b"content")
            assert await objects.get("key", 100) == b"content"
            assert list(server.objects) == ["/cache/key?sv=1&sig=abc%3D"]
            with pytest.raises(NotFoundError):
                await objects.get("other", 100)


async def test_misses_and_uploads_keep_their_connection(tmp_path: Path) -> None:
    """With TLS each new one costs three round trips."""
    with object_server() as server:
        settings, place = RemoteCacheSettings(url=server.url), RemotePlace("http", server.url)
        async with open_objects(settings, place) as objects:
            for number in range(5):
                with pytest.raises(NotFoundError):
                    await objects.get(f"v1/{number}", 100)
                await objects.put(f"v1/{number}", b"content")
                assert await objects.get(f"v1/{number}", 100) == b"content"
        assert server.connections == 1


async def test_an_error_never_quotes_the_secret_of_a_query(tmp_path: Path) -> None:
    settings = RemoteCacheSettings(
        url="azure://account/container",
        credentials_file=credential_file(tmp_path / "azure.json", sas="sig=SECRET"),
    )
    place = RemotePlace("azure", "http://127.0.0.1:9/x")
    async with open_objects(settings, place) as objects:
        with pytest.raises(InfrastructureError) as caught:
            await objects.get("key", 100)
    text = repr(caught.value) + repr(caught.value.__cause__) + repr(caught.value.__context__)
    assert "SECRET" not in str(caught.value)
    assert caught.value.__suppress_context__
    assert "SECRET" not in text.partition("ConnectError")[0]


def test_a_full_place_loses_uploads_and_no_compile(make_team: Callable[..., Team]) -> None:
    with object_server() as server:
        server.trouble = "full"
        ci = make_team(url=server.url).ci()
        assert [ci.compile(*c).answer for c in (MAIN, OTHER)] == ["run", "run"]
        ci.flush()
        assert sum(ci.counted("remote-cache.lost.").values()) == 2
        assert ci.compile(*MAIN).answer == "done"


def test_a_place_that_is_gone_is_asked_three_times(make_team: Callable[..., Team]) -> None:
    team = make_team(url="http://127.0.0.1:9/cache")
    ann = team.machine("ann")
    for number in range(5):
        command = (*MAIN[:-1], f"main{number}.o", f"-DN={number}")
        assert ann.compile(*command).answer == "run"
    assert ann.counted("remote-cache.") == {"failed.store-http": 3, "skipped": 2}


def test_a_directory_that_is_not_mounted_is_not_made(
    make_team: Callable[..., Team], tmp_path: Path
) -> None:
    place = tmp_path / "not-mounted"
    ci = make_team(url=f"file://{place}").ci()
    assert ci.compile(*MAIN).answer == "run"
    ci.flush()
    assert not place.exists()
    assert sum(ci.counted("remote-cache.lost.").values()) == 1


def test_only_a_known_authority_is_believed(make_team: Callable[..., Team], tmp_path: Path) -> None:
    files = make_server_files(tmp_path)
    with object_server(files) as server:
        team = make_team(url=server.url, ca_file=str(files.ca))
        ci = team.ci()
        ci.compile(*MAIN)
        ci.flush()
        assert team.machine("ann").compile(*MAIN).answer == "done"
        stranger = team.machine("bob", ca_file="")
        assert stranger.compile(*MAIN).answer == "run"
        assert stranger.counted("remote-cache.failed.") == {"store-http": 1}


@pytest.mark.parametrize(("mode", "files"), [(0o755, 0o644), (0o2775, 0o664), (0o700, 0o600)])
async def test_objects_in_a_directory_have_its_permissions(
    tmp_path: Path, mode: int, files: int
) -> None:
    """A daemon's umask is 077, and colleagues are other users."""
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(mode)
    before = os.umask(0o077)
    try:
        async with open_objects(RemoteCacheSettings(), RemotePlace("directory", str(place))) as it:
            await it.put("v1/a/b", b"content")
    finally:
        os.umask(before)
    assert (place / "v1/a/b").stat().st_mode & 0o7777 == files
    assert {d.stat().st_mode & 0o7777 for d in (place / "v1", place / "v1/a")} == {mode}


def test_equal_compiles_at_once_send_one_request(make_team: Callable[..., Team]) -> None:
    with object_server() as server:
        team = make_team(url=server.url)
        ci, ann = team.ci(), team.machine("ann")
        ci.compile(*OTHER)
        ci.flush()
        server.requests.clear()
        server.gate.clear()
        assert ann.cache is not None
        with ThreadPoolExecutor(4) as pool:
            started = [pool.submit(ann.compile, *OTHER) for _ in range(4)]
            while not server.requests:
                time.sleep(0.01)
            time.sleep(0.5)  # the others arrive meanwhile; later ones would find the result
            server.gate.set()
            answers = [one.result().answer for one in started]
        assert answers == ["done"] * 4
        assert [method for method, _ in server.requests] == ["GET"]
