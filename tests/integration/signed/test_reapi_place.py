"""A REAPI cache as the place of signed results: two real services, and one that is hostile."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcc.cache.signed.entry import MAX_OBJECT_BYTES
from hpcc.cache.signed.opening import open_objects
from hpcc.config.remote_cache import RemoteCacheSettings, place_of
from hpcc.core import CallerError, IntegrityError, NotFoundError
from hpcc_testkit.services import buildbox, buildgrid_server
from hpcc_testkit.services.reapi_server import ReapiServer, reapi_server
from hpcc_testkit.services.server_certificate import make_server_files

from .conftest import MAIN, OTHER, Team

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module", params=["buildbox", "buildgrid"])
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a real service."""
    directory = tmp_path_factory.mktemp("reapi")
    is_box = request.param == "buildbox"
    if missing := (buildbox if is_box else buildgrid_server).missing_or_none():
        pytest.skip(missing)
    if is_box:
        with buildbox.casd(directory) as casd:
            yield f"reapi+plain://127.0.0.1:{casd.port}"
    else:
        with buildgrid_server.buildgrid(directory) as grid:
            yield f"reapi+plain://127.0.0.1:{grid.port}/{buildgrid_server.INSTANCE}"


@pytest.fixture
def server() -> Iterator[ReapiServer]:
    with reapi_server() as running:
        yield running


def url(server: ReapiServer, scheme: str = "reapi+plain") -> str:
    return f"{scheme}://127.0.0.1:{server.port}/our/cache"


def credential_file(path: Path, **values: str) -> str:
    path.write_text(json.dumps(values))
    path.chmod(0o600)
    return str(path)


def filled(team: Team) -> None:
    """Let CI compile one unit and upload it."""
    ci = team.ci()
    assert ci.compile(*MAIN).answer == "run"
    ci.flush()
    assert ci.count("remote-cache.uploaded") == 1


def test_a_second_machine_is_served_and_a_new_state_joins_the_old_one(
    service: str, make_team: Callable[..., Team]
) -> None:
    team = make_team(url=service, namespace=f"n{uuid.uuid4().hex}")
    ci, ann, bob = team.ci(), team.machine("ann"), team.machine("bob")
    assert ci.compile(*MAIN).answer == "run"
    (ci.root / "src/util.h").write_text("#define CONF 8\n")
    ci.age()
    assert ci.compile(*MAIN).answer == "run"
    ci.flush()
    assert ci.count("remote-cache.uploaded") == 2
    assert ann.compile(*MAIN).answer == "done"
    (bob.root / "src/util.h").write_text("#define CONF 8\n")
    bob.age()
    assert bob.compile(*MAIN).answer == "done"
    assert bob.read("main.o") == ci.read("main.o") != ann.read("main.o")
    assert ann.compile(*OTHER).answer == "run"
    assert ann.count("remote-cache.absent") == 1


async def test_objects_of_all_sizes_come_back(service: str) -> None:
    settings = RemoteCacheSettings(url=service)
    place = place_of(settings)
    assert place is not None
    async with open_objects(settings, place) as objects:
        for size in (1, 1 << 20, (1 << 20) + 1, 5 << 20):
            key, data = f"v1/{uuid.uuid4().hex}", os.urandom(size)
            with pytest.raises(NotFoundError):
                await objects.get(key, size)
            assert not await objects.has(key)
            await objects.put(key, data)
            assert await objects.get(key, size) == data
            assert await objects.has(key)


def test_a_miss_is_one_call_and_an_upload_is_three(
    make_team: Callable[..., Team], server: ReapiServer
) -> None:
    team = make_team(url=url(server))
    filled(team)
    wrote = ["GetActionResult", "BatchUpdateBlobs", "UpdateActionResult"]
    assert server.calls == ["GetActionResult", *wrote]  # the compile's miss, then the upload
    assert server.instances == {"our/cache"}
    server.calls.clear()
    ann = team.machine("ann")
    assert [ann.compile(*c).answer for c in (MAIN, OTHER)] == ["done", "run"]
    assert server.calls == ["GetActionResult"] * 2
    # Who looks into the service reads what the entry is.
    assert any(b"hpcc-remote-cache-entry" in blob for blob in server.blobs.values())


@pytest.mark.parametrize(
    ("trouble", "counted"),
    [
        ("nonsense", "refused.malformed"),
        ("huge-blob", "refused.malformed"),
        ("over-limit", "refused.malformed"),
        ("long", "failed.store-reapi"),
        ("bomb", "failed.store-reapi"),
        ("absent-blob", "absent"),
        ("other-blob", "refused.malformed"),
        ("endless-blob", "refused.malformed"),
        ("silent", "failed.store-timeout"),
        ("error", "failed.store-reapi"),
        ("denied", "failed.store-denied"),
    ],
)
def test_a_service_in_trouble_costs_one_local_compile(
    make_team: Callable[..., Team], server: ReapiServer, trouble: str, counted: str
) -> None:
    team = make_team(url=url(server))
    server.trouble = trouble
    ann = team.machine("ann", timeout_seconds=1.0 if trouble == "silent" else 60.0)
    assert ann.compile(*MAIN).answer == "run"
    assert ann.counted("remote-cache.") == {counted: 1}
    assert ann.read("main.o")
    if trouble in {"huge-blob", "over-limit"}:
        assert server.calls == ["GetActionResult"]
    # What gRPC reads ahead of the caller is little.
    assert server.sent_pieces << 20 < MAX_OBJECT_BYTES + (16 << 20)


async def test_a_blob_over_the_callers_limit_is_not_asked_for(server: ReapiServer) -> None:
    settings = RemoteCacheSettings(url=url(server))
    place = place_of(settings)
    assert place is not None
    server.trouble = "absent-blob"  # of 1000 bytes
    async with open_objects(settings, place) as objects:
        with pytest.raises(IntegrityError):
            await objects.get("key", 999)
        assert server.calls == ["GetActionResult"]
        with pytest.raises(NotFoundError):
            await objects.get("key", 1000)


def test_another_record_under_the_name_is_a_miss(
    make_team: Callable[..., Team], server: ReapiServer
) -> None:
    """The service moves CI's record for one compile to another one."""
    team = make_team(url=url(server))
    ci = team.ci()
    for command in (MAIN, OTHER):
        ci.compile(*command)
    ci.flush()
    one, two = server.results
    server.results[one], server.results[two] = server.results[two], server.results[one]
    ann = team.machine("ann")
    assert ann.compile(*MAIN).answer == "run"
    assert ann.counted("remote-cache.") == {
        "refused.other-key": 1,
        "bytes-read": ann.count("remote-cache.bytes-read"),
    }


def test_a_full_service_loses_uploads_and_no_compile(
    make_team: Callable[..., Team], server: ReapiServer
) -> None:
    server.trouble = "full"
    ci = make_team(url=url(server)).ci()
    assert ci.compile(*MAIN).answer == "run"
    ci.flush()
    assert sum(ci.counted("remote-cache.lost.").values()) == 1


def test_a_service_that_is_gone_is_asked_three_times(make_team: Callable[..., Team]) -> None:
    ann = make_team(url="reapi+plain://127.0.0.1:9/cache").machine("ann")
    for number in range(5):
        command = (*MAIN[:-1], f"main{number}.o", f"-DN={number}")
        assert ann.compile(*command).answer == "run"
    assert ann.counted("remote-cache.") == {"failed.store-reapi": 3, "skipped": 2}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (({"token": "first"}, "Bearer first"), ({"token": "second"}, "Bearer second")),
        # RFC 7617, section 2: its own example.
        (
            ({"user": "Aladdin", "password": "open sesame"}, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ({"user": "ci", "password": "a:b"}, "Basic Y2k6YTpi"),
        ),
    ],
    ids=["token", "password"],
)
def test_a_credential_is_read_for_each_call_and_is_in_no_text(
    make_team: Callable[..., Team],
    server: ReapiServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    first: tuple[dict[str, str], str],
    second: tuple[dict[str, str], str],
) -> None:
    caplog.set_level("DEBUG")
    file = credential_file(tmp_path / "t.json", **first[0])
    server.authorization = first[1]
    team = make_team(url=url(server), credentials_file=file)
    filled(team)
    server.authorization = second[1]
    credential_file(tmp_path / "t.json", **second[0])
    assert team.machine("ann").compile(*MAIN).answer == "done"
    assert set(server.authorizations) == {first[1], second[1]}
    for name, wrong in (("eve", ""), ("bob", credential_file(tmp_path / "w.json", **first[0]))):
        stranger = team.machine(name, credentials_file=wrong)
        assert stranger.compile(*MAIN).answer == "run"
        assert stranger.counted("remote-cache.") == {"failed.store-denied": 1}
    assert "remote cache" in caplog.text
    for values, header in (first, second):
        # The service repeats what it refuses, and the log does not.
        assert not [v for v in (*values.values(), header) if len(v) > 3 and v in caplog.text]


def test_only_a_known_authority_is_believed_and_a_certificate_is_shown(
    make_team: Callable[..., Team], tmp_path: Path
) -> None:
    files = make_server_files(tmp_path)
    files.key.chmod(0o600)
    pair = {"certificate_file": str(files.certificate), "key_file": str(files.key)}
    shown = credential_file(tmp_path / "c.json", **pair)
    with reapi_server(files, asks_certificate=True) as server:
        team = make_team(url=url(server, "reapi"), ca_file=str(files.ca), credentials_file=shown)
        filled(team)
        assert team.machine("ann").compile(*MAIN).answer == "done"
        count = len(server.calls)
        for name, less in (("bob", {"ca_file": ""}), ("eve", {"credentials_file": ""})):
            stranger = team.machine(name, **less)
            assert stranger.compile(*MAIN).answer == "run"
            assert stranger.counted("remote-cache.") == {"failed.store-reapi": 1}
        files.key.chmod(0o644)
        careless = team.machine("joe")
        assert careless.compile(*MAIN).answer == "run"
        assert len(server.calls) == count


@pytest.mark.parametrize(
    "wrong",
    [
        "reapi+plain://cache.example.com",
        "reapi://token@cache.example.com",
        "reapi://cache.example.com/a/blobs",
        "reapi://cache.example.com/uploads",
        "reapi://cache.example.com/x?y=1",
        "reapi:///instance",
        "reapi://cache.example.com:99999",
    ],
)
def test_a_place_that_would_be_read_in_the_clear_or_as_another_one_is_refused(wrong: str) -> None:
    with pytest.raises(CallerError):
        place_of(RemoteCacheSettings(url=wrong))
