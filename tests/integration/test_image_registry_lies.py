"""Registries that lie, disconnect or stall cause a clear error and never a wrong byte."""

import base64
import json
import shutil
from pathlib import Path

import pytest

from hpcc.core import (
    CallerError,
    HpccError,
    ImageDigest,
    ImageRef,
    InfrastructureError,
    IntegrityError,
    NotFoundError,
)
from hpcc.images.oci.auth import Logins, RegistryLogin
from hpcc.images.oci.http import Timeouts
from hpcc.images.oci.registry import OciRegistry
from hpcc.images.prepared import PreparedImage
from hpcc.images.store import ImageStore
from hpcc.ports import SystemClock
from hpcc_testkit.guests.images import Answer, Asked, Item, LyingRegistry, make_image, tar_bytes

pytestmark = pytest.mark.skipif(shutil.which("mkfs.erofs") is None, reason="no erofs-utils")

IMAGE = make_image([tar_bytes([Item("bin/cc", text="1" * 5000)]), tar_bytes([Item("b", text="2")])])
LAYER = IMAGE.layer_digests[0]
QUICK = Timeouts(connect_seconds=2, read_seconds=1)


async def pull(
    registry: LyingRegistry,
    directory: Path,
    *,
    mirrors: tuple[str, ...] = (),
    logins: Logins | None = None,
) -> PreparedImage:
    store = ImageStore(directory / "s", SystemClock())
    source = OciRegistry(mirrors=mirrors, logins=logins or Logins(), timeouts=QUICK)
    return await store.prepare(ImageRef(registry.repository, IMAGE.digest), source)


async def refused(registry: LyingRegistry, directory: Path, **kwargs: object) -> HpccError:
    with pytest.raises(HpccError) as caught:
        await pull(registry, directory, **kwargs)  # type: ignore[arg-type]  # passed on
    assert partial_files(directory) == []
    return caught.value


def partial_files(directory: Path) -> list[Path]:
    return [p for p in directory.rglob("*") if p.suffix in {".part", ".partial", ".erofs"}]


def only(path_end: str, answer: Answer) -> object:
    return lambda asked: answer if asked.path.endswith(path_end) else None


async def test_an_honest_registry_is_pulled_from(tmp_path: Path) -> None:
    async with LyingRegistry(IMAGE).serve() as registry:
        image = await pull(registry, tmp_path)
        assert image.digest == IMAGE.digest
        assert image.source == f"registry 127.0.0.1:{registry.port}"
        assert len(image.layers) == 2


@pytest.mark.parametrize("which", ["manifest", "config", "layer"])
async def test_wrong_bytes_for_a_digest_are_refused_and_named(tmp_path: Path, which: str) -> None:
    manifest = json.loads(IMAGE.blobs[IMAGE.manifest_digest])
    digest = {
        "manifest": IMAGE.manifest_digest,
        "config": manifest["config"]["digest"],
        "layer": LAYER,
    }[which]
    data = bytearray(IMAGE.blobs[digest])
    data[-2] ^= 1
    async with LyingRegistry(IMAGE, respond=only(digest, Answer(body=bytes(data)))).serve() as r:
        error = await refused(r, tmp_path)
        assert isinstance(error, IntegrityError)
        assert error.reason == "digest-mismatch"
        assert f"127.0.0.1:{r.port}" in str(error)
        assert digest in str(error)
        assert [a.path.endswith(digest) for a in r.asked].count(True) == 1  # not asked twice


async def test_a_blob_of_another_length_is_refused_before_it_is_read(tmp_path: Path) -> None:
    answer = Answer(body=IMAGE.blobs[LAYER] + b"x")
    async with LyingRegistry(IMAGE, respond=only(LAYER, answer)).serve() as r:
        error = await refused(r, tmp_path)
        assert error.reason == "digest-mismatch"
        assert "another length" in str(error)


async def test_a_body_shorter_than_its_content_length_is_an_error(tmp_path: Path) -> None:
    data = IMAGE.blobs[LAYER]
    answer = Answer(body=data[:-10], length=len(data))
    async with LyingRegistry(IMAGE, respond=only(LAYER, answer)).serve() as r:
        error = await refused(r, tmp_path)
        assert isinstance(error, InfrastructureError)
        assert error.reason == "registry-unreachable"


@pytest.mark.parametrize("path_end", [LAYER, IMAGE.manifest_digest])
async def test_an_endless_body_is_cut_off(tmp_path: Path, path_end: str) -> None:
    async with LyingRegistry(IMAGE, respond=only(path_end, Answer(is_endless=True))).serve() as r:
        error = await refused(r, tmp_path)
        assert isinstance(error, IntegrityError)
        assert error.reason in {"digest-mismatch", "answer-too-large"}


async def test_a_registry_that_stalls_is_given_up(tmp_path: Path) -> None:
    answer = Answer(body=b"", length=len(IMAGE.blobs[LAYER]))

    def stall(asked: Asked) -> Answer | None:
        return answer if asked.path.endswith(LAYER) else None

    async with LyingRegistry(IMAGE, respond=stall, is_stalling=True).serve() as r:
        error = await refused(r, tmp_path)
        assert error.reason == "registry-unreachable"


async def test_an_encoded_answer_is_refused(tmp_path: Path) -> None:
    answer = Answer(body=IMAGE.blobs[LAYER], headers={"Content-Encoding": "gzip"})
    async with LyingRegistry(IMAGE, respond=only(LAYER, answer)).serve() as r:
        assert (await refused(r, tmp_path)).reason == "registry-encoding"


async def test_redirects_end(tmp_path: Path) -> None:
    answer = Answer(307, headers={"Location": f"/v2/t/blobs/{LAYER}"})
    async with LyingRegistry(IMAGE, respond=only(LAYER, answer)).serve() as r:
        error = await refused(r, tmp_path)
        assert error.reason == "redirect-loop"
        assert len([a for a in r.asked if a.path.endswith(LAYER)]) < 10


@pytest.mark.parametrize(
    "target", ["http://example.invalid/x", "file:///etc/passwd", "http://u:p@127.0.0.1/x", "//[::"]
)
async def test_a_redirect_to_an_unsafe_place_is_refused(tmp_path: Path, target: str) -> None:
    answer = Answer(302, headers={"Location": target})
    async with LyingRegistry(IMAGE, respond=only(LAYER, answer)).serve() as r:
        assert (await refused(r, tmp_path)).reason in {"redirect-refused", "registry-unreachable"}


def _auth_registry(**over: object) -> LyingRegistry:
    """Requires a token, which its own token server issues for a password."""

    def respond(asked: Asked) -> Answer | None:
        if asked.path.startswith("/token?"):
            wanted = "Basic " + base64.b64encode(b"me:secret").decode()
            if asked.headers.get("authorization") != wanted:
                return Answer(401, b"{}")
            return Answer(body=b'{"token": "good-token"}')
        if asked.headers.get("authorization") != "Bearer good-token":
            realm = f'Bearer realm="http://127.0.0.1:{registry.port}/token",service="s"'
            return Answer(401, b"{}", {"WWW-Authenticate": realm})
        return None

    registry = LyingRegistry(IMAGE, respond=respond, **over)  # type: ignore[arg-type]  # passed on
    return registry


async def test_a_token_is_fetched_with_the_users_login(tmp_path: Path) -> None:
    async with _auth_registry().serve() as r:
        logins = Logins({f"127.0.0.1:{r.port}": RegistryLogin("me", "secret")})
        assert (await pull(r, tmp_path, logins=logins)).digest == IMAGE.digest
        tokens = [a for a in r.asked if a.path.startswith("/token")]
        assert tokens[0].path == "/token?scope=repository%3At%3Apull&service=s"
        assert len(tokens) == 1


async def test_a_missing_login_says_how_to_log_in(tmp_path: Path) -> None:
    async with _auth_registry().serve() as r:
        error = await refused(r, tmp_path)
        assert isinstance(error, CallerError)
        assert f"docker login 127.0.0.1:{r.port}" in str(error)


async def test_a_wrong_password_is_not_in_the_error(tmp_path: Path) -> None:
    async with _auth_registry().serve() as r:
        logins = Logins({f"127.0.0.1:{r.port}": RegistryLogin("me", "hunter2")})
        error = await refused(r, tmp_path, logins=logins)
        assert "hunter2" not in str(error)


async def test_basic_auth_is_answered(tmp_path: Path) -> None:
    def respond(asked: Asked) -> Answer | None:
        if asked.headers.get("authorization") == "Basic bWU6c2VjcmV0":
            return None
        return Answer(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})

    async with LyingRegistry(IMAGE, respond=respond).serve() as r:
        logins = Logins({f"127.0.0.1:{r.port}": RegistryLogin("me", "secret")})
        assert (await pull(r, tmp_path, logins=logins)).digest == IMAGE.digest


async def test_a_login_is_never_carried_to_another_host(tmp_path: Path) -> None:
    async with LyingRegistry(IMAGE).serve() as storage:

        def respond(asked: Asked) -> Answer | None:
            if asked.headers.get("authorization") != "Basic bWU6c2VjcmV0":
                return Answer(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
            if "/blobs/" in asked.path:
                place = f"http://127.0.0.1:{storage.port}{asked.path}"
                return Answer(307, headers={"Location": place})
            return None

        async with LyingRegistry(IMAGE, respond=respond).serve() as r:
            logins = Logins(
                {
                    f"127.0.0.1:{r.port}": RegistryLogin("me", "secret"),
                    f"127.0.0.1:{storage.port}": RegistryLogin("me", "other"),
                }
            )
            await pull(r, tmp_path, logins=logins)
        assert storage.asked
        assert all("authorization" not in a.headers for a in storage.asked)


async def test_a_lying_mirror_is_passed_over(tmp_path: Path) -> None:
    data = bytes(len(IMAGE.blobs[LAYER]))
    async with (
        LyingRegistry(IMAGE, respond=only(LAYER, Answer(body=data))).serve() as mirror,
        LyingRegistry(IMAGE).serve() as r,
    ):
        await pull(r, tmp_path, mirrors=(f"http://127.0.0.1:{mirror.port}",))
        assert [a.path.endswith(LAYER) for a in mirror.asked].count(True) == 1
        assert [a.path.endswith(LAYER) for a in r.asked].count(True) == 1


async def test_a_mirror_serves_when_the_registry_is_down(tmp_path: Path) -> None:
    async with LyingRegistry(IMAGE).serve() as mirror:
        gone = LyingRegistry(IMAGE, port=1)
        image = await pull(gone, tmp_path, mirrors=(f"http://127.0.0.1:{mirror.port}",))
        assert image.digest == IMAGE.digest


async def test_an_unreachable_registry_is_named(tmp_path: Path) -> None:
    error = await refused(LyingRegistry(IMAGE, port=1), tmp_path)
    assert isinstance(error, InfrastructureError)
    assert "127.0.0.1:1" in str(error)


async def test_an_absent_image_is_not_found(tmp_path: Path) -> None:
    async with LyingRegistry(make_image([tar_bytes([])])).serve() as r:
        assert isinstance(await refused(r, tmp_path), NotFoundError)


@pytest.mark.parametrize("status", [500, 503, 429, 418])
async def test_an_error_status_is_ours_to_report(tmp_path: Path, status: int) -> None:
    async with LyingRegistry(IMAGE, respond=only(LAYER, Answer(status))).serve() as r:
        assert isinstance(await refused(r, tmp_path), InfrastructureError)


async def test_whole_layers_are_kept_for_the_next_try(tmp_path: Path) -> None:
    other = IMAGE.layer_digests[1]
    async with LyingRegistry(IMAGE, respond=only(other, Answer(500))).serve() as r:
        await refused(r, tmp_path)
        r.respond = lambda _asked: None
        await pull(r, tmp_path)
        assert [a.path.endswith(LAYER) for a in r.asked].count(True) == 1


async def test_a_tag_is_pinned(tmp_path: Path) -> None:
    async with LyingRegistry(IMAGE, tags={"latest": IMAGE.manifest_digest}).serve() as r:
        ref = await OciRegistry().pin(r.repository, "latest")
        assert ref == ImageRef(r.repository, ImageDigest(IMAGE.manifest_digest))
        with pytest.raises(NotFoundError):
            await OciRegistry().pin(r.repository, "absent")
        with pytest.raises(CallerError):
            await OciRegistry().pin(r.repository, "../x")
