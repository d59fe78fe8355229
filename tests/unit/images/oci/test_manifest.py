"""Manifests, configs, logins and apt files are parsed into values or refused."""

import base64
import json
from pathlib import Path

import pytest

from hpcc.core import CallerError, HpccError, IntegrityError
from hpcc.images.assembly.apt import kept_options, parse_os_release, parse_sources, select_sources
from hpcc.images.assembly.debian import DebianRequest
from hpcc.images.assembly.host import HostSystem
from hpcc.images.oci.auth import load_logins, login_files, parse_challenges, parse_token
from hpcc.images.oci.http import check_base_url
from hpcc.images.oci.manifest import Index, Manifest, parse_config, parse_manifest, pick_platform
from hpcc.images.oci.registry import split_repository
from hpcc_testkit.guests.images import INDEX, MANIFEST, PLAIN_LAYER

HEX = "a" * 64


def descriptor(**over: object) -> dict[str, object]:
    return {"mediaType": PLAIN_LAYER, "digest": f"sha256:{HEX}", "size": 5, **over}


def manifest(**over: object) -> bytes:
    table = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(mediaType="application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor()],
    }
    return json.dumps({**table, **over}).encode()


def index(*platforms: str) -> bytes:
    entries = []
    for text in platforms:
        system, _, architecture = text.partition("/")
        entries.append(
            descriptor(mediaType=MANIFEST, platform={"os": system, "architecture": architecture})
        )
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()


def test_a_manifest_is_read() -> None:
    found = parse_manifest(manifest(), source="t")
    assert isinstance(found, Manifest)
    assert found.layers[0].digest.size_bytes == 5


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"nonsense",
        b"[]",
        b"[" * 100_000,
        manifest(layers="x"),
        manifest(layers=[5]),
        manifest(config=None),
        manifest(layers=[descriptor(digest="sha256:../../etc/passwd")]),
        manifest(layers=[descriptor(digest=f"sha512:{HEX}{HEX}")]),
        manifest(layers=[descriptor(size=-1)]),
        manifest(layers=[descriptor(size=1 << 60)]),
        manifest(layers=[descriptor(size=True)]),
        manifest(layers=[descriptor(size="5")]),
        manifest(layers=[descriptor(annotations=5)]),
        b'{"schemaVersion":2,"x":"' + b"y" * (5 << 20) + b'"}',
    ],
)
def test_a_malformed_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(IntegrityError):
        parse_manifest(raw, source="t")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (manifest(schemaVersion=1), "not supported"),
        (manifest(layers=[]), "0 layers"),
        (manifest(layers=[descriptor()] * 200), "200 layers"),
        (manifest(layers=[descriptor(mediaType="application/x-enc")]), "layer type"),
    ],
)
def test_a_manifest_that_hpcc_cannot_use_says_why(raw: bytes, words: str) -> None:
    with pytest.raises(CallerError, match=words):
        parse_manifest(raw, source="t")


def test_this_machines_platform_is_picked_from_an_index() -> None:
    found = parse_manifest(index("linux/arm64", "linux/amd64"), source="t")
    assert isinstance(found, Index)
    assert pick_platform(found, architecture="amd64", source="t").architecture == "amd64"


def test_an_index_without_this_platform_lists_what_it_has() -> None:
    found = parse_manifest(index("linux/arm64", "windows/amd64"), source="t")
    assert isinstance(found, Index)
    with pytest.raises(CallerError, match="linux/arm64, windows/amd64"):
        pick_platform(found, architecture="amd64", source="t")


def test_a_config_gives_env_and_labels() -> None:
    raw = json.dumps(
        {"os": "linux", "architecture": "amd64", "config": {"Env": ["A=b=c"], "Labels": {"k": "v"}}}
    ).encode()
    config = parse_config(raw, architecture="amd64", source="t")
    assert config.env == (("A", "b=c"),)
    assert config.labels == (("k", "v"),)


def test_an_image_for_another_machine_is_refused() -> None:
    raw = b'{"os":"linux","architecture":"s390x"}'
    with pytest.raises(CallerError, match="s390x"):
        parse_config(raw, architecture="amd64", source="t")


@pytest.mark.parametrize("config", [5, {"Env": "x"}, {"Env": [5]}, {"Labels": {"a": 5}}])
def test_a_malformed_config_is_refused(config: object) -> None:
    raw = json.dumps({"config": config}).encode()
    with pytest.raises(IntegrityError):
        parse_config(raw, architecture="amd64", source="t")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gcc", ("docker.io", "library/gcc")),
        ("me/gcc", ("docker.io", "me/gcc")),
        ("127.0.0.1:5000/t", ("127.0.0.1:5000", "t")),
        ("ghcr.io/a/b", ("ghcr.io", "a/b")),
        ("registry-1.docker.io/library/gcc", ("docker.io", "library/gcc")),
    ],
)
def test_a_repository_names_its_registry(text: str, expected: tuple[str, str]) -> None:
    assert split_repository(text) == expected


@pytest.mark.parametrize(
    "text", ["a.b/../../x", "a.b/x?y", "a.b/-x", "a.b:123456/x", "a b", "a.b/"]
)
def test_a_repository_that_could_be_a_path_is_refused(text: str) -> None:
    with pytest.raises(CallerError):
        split_repository(text)


@pytest.mark.parametrize(
    "text",
    ["http://example.com", "ftp://127.0.0.1", "https://u:p@example.com", "", "http://[::1", "x"],
)
def test_a_registry_address_that_is_not_safe_is_refused(text: str) -> None:
    with pytest.raises(CallerError):
        check_base_url(text)


@pytest.mark.parametrize(
    "text", ["http://127.0.0.1:5000", "http://[::1]:5", "http://localhost", "https://example.com/m"]
)
def test_a_safe_registry_address_is_taken(text: str) -> None:
    assert check_base_url(text).geturl() == text


def test_logins_come_from_dockers_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    auth = base64.b64encode(b"me:s:ecret").decode()
    path.write_text(
        json.dumps(
            {
                "auths": {
                    "https://index.docker.io/v1/": {"auth": auth},
                    "r.example": {"auth": auth},
                    "broken.example": {"auth": "%%%"},
                    "kept.example": {},
                },
                "credsStore": "pass",
                "credHelpers": {"helped.example": "x"},
            }
        )
    )
    logins = load_logins([tmp_path / "absent", path])
    hub = logins.find("docker.io")
    assert hub is not None
    assert (hub.user, hub.password) == ("me", "s:ecret")
    assert logins.find("r.example") is not None
    assert logins.find("broken.example") is None
    assert logins.helpers == {"kept.example", "broken.example", "helped.example"}
    assert "s:ecret" not in repr(logins)


def test_the_login_files_follow_the_environment() -> None:
    assert login_files({"HOME": "/h"}) == (Path("/h/.docker/config.json"),)
    assert login_files({"HOME": "/h", "DOCKER_CONFIG": "/d", "XDG_RUNTIME_DIR": "/r"}) == (
        Path("/d/config.json"),
        Path("/r/containers/auth.json"),
    )


def test_a_damaged_login_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("nonsense")
    with pytest.raises(CallerError, match=r"config\.json"):
        load_logins([path])


def test_a_token_challenge_is_preferred_and_its_scope_is_ours() -> None:
    found = parse_challenges(
        ["Basic realm=x", 'Bearer realm="https://a.example/t",service="s",scope="repository:*:*"'],
        registry="r.example",
    )
    assert found.token_url("me/x") == (
        "https://a.example/t?scope=repository%3Ame%2Fx%3Apull&service=s"
    )


@pytest.mark.parametrize(
    ("registry", "realm"),
    [
        ("r.example", "http://r.example/token"),
        ("r.example", "http://127.0.0.1/token"),
        ("127.0.0.1:5000", "http://other.example/token"),
        ("r.example", "https://u:p@r.example/token"),
        ("r.example", "file:///etc/passwd"),
        ("r.example", "http://[::1"),
    ],
)
def test_an_unsafe_token_realm_is_refused(registry: str, realm: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        parse_challenges([f'Bearer realm="{realm}"'], registry=registry)
    assert caught.value.reason == "registry-realm"


@pytest.mark.parametrize("headers", [[], ["Digest x"], ["Bearer"]])
def test_an_unknown_challenge_is_refused(headers: list[str]) -> None:
    with pytest.raises(IntegrityError):
        parse_challenges(headers, registry="r.example")


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"token":5}', b'{"token":"a\\nb: c"}'])
def test_a_token_that_cannot_be_a_header_is_refused(raw: bytes) -> None:
    with pytest.raises(IntegrityError):
        parse_token(raw, registry="r.example")


DEB822 = """# comment
Types: deb deb-src
URIs: http://deb.debian.org/debian
Suites: trixie trixie-updates trixie-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.pgp

Types: deb
URIs: file:/usr/share/local
Suites: ./
Trusted: yes

Enabled: no
Types: deb
URIs: http://off.example
Suites: trixie
Components: main

Types: deb
URIs: https://third.example/debian
Suites: trixie
Components: stable

Types: deb
URIs: http://security.example
Suites: trixie-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----
"""


def test_only_the_releases_own_network_sources_are_kept() -> None:
    chosen = select_sources(parse_sources("debian.sources", DEB822), "trixie")
    assert [s.uris for s in chosen] == [
        ("http://deb.debian.org/debian",),
        ("http://security.example",),
    ]
    assert chosen[0].suites == ("trixie", "trixie-updates")
    again = parse_sources("x.sources", "\n".join(s.to_deb822() for s in chosen))
    assert again == chosen
    assert "BEGIN PGP" in chosen[1].signed_by


def test_the_one_line_style_is_read() -> None:
    text = (
        "# x\ndeb [arch=amd64 signed-by=/k.gpg] http://u.example/ubuntu noble main universe # c\n"
        "deb-src http://u.example/ubuntu noble main\n"
        "deb http://u.example/ubuntu noble-security main\nnonsense\n"
    )
    chosen = select_sources(parse_sources("sources.list", text), "noble")
    assert [(s.suites, s.components, s.signed_by) for s in chosen] == [
        (("noble",), ("main", "universe"), "/k.gpg"),
        (("noble-security",), ("main",), ""),
    ]


def test_only_options_about_reaching_mirrors_are_kept() -> None:
    dump = (
        'APT::Update::Post-Invoke:: "rm -rf /";\nAcquire::http::Proxy "http://p:3128";\n'
        'Acquire::https::a.example::Proxy "DIRECT";\nAcquire::Check-Valid-Until "false";\n'
        'Dir::Etc "etc/apt";\nAcquire::GzipIndexes "true";\nAcquire::http::Proxy "a"; Dir "b";\n'
    )
    assert kept_options(dump).splitlines() == [
        'Acquire::http::Proxy "http://p:3128";',
        'Acquire::https::a.example::Proxy "DIRECT";',
        'Acquire::Check-Valid-Until "false";',
    ]


def test_os_release_is_read() -> None:
    table = parse_os_release('ID=ubuntu\nVERSION_CODENAME="noble"\n# x=y\nBAD="\n')
    assert table == {"ID": "ubuntu", "VERSION_CODENAME": "noble"}


@pytest.mark.parametrize(
    "bad",
    [
        {"packages": ("--option",)},
        {"packages": ("gcc; rm -rf /",)},
        {"suite": "--x"},
        {"mirror": "http://x y"},
        {"mirror": "file:/etc"},
    ],
)
def test_a_request_that_could_be_an_option_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(CallerError):
        DebianRequest(**bad)  # type: ignore[arg-type]  # wrong on purpose


def _host(root: Path, *tools: str, uid: int = 1000) -> HostSystem:
    binaries = root / "bin"
    binaries.mkdir(exist_ok=True)
    for tool in tools:
        (binaries / tool).write_text("")
        (binaries / tool).chmod(0o755)
    return HostSystem(uid=uid, user="me", env={"PATH": str(binaries)}, root=root)


def test_root_builds_as_root(tmp_path: Path) -> None:
    assert _host(tmp_path, uid=0).mode() == "root"


def test_a_user_with_subordinate_ids_unshares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = _host(tmp_path, "newuidmap", "newgidmap")
    (tmp_path / "etc").mkdir()
    for name in ("subuid", "subgid"):
        (tmp_path / "etc" / name).write_text("other:1:2\nme:100000:65536\n")
    assert host.mode() == "unshare"
    switch = tmp_path / "proc/sys/kernel/unprivileged_userns_clone"
    switch.parent.mkdir(parents=True)
    switch.write_text("0\n")
    monkeypatch.setattr(HostSystem, "which", lambda _self, _tool: None)
    with pytest.raises(CallerError, match="uidmap"):
        host.mode()


def test_a_user_who_can_do_nothing_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HostSystem, "which", lambda _self, _tool: None)
    with pytest.raises(HpccError, match="apt-get install uidmap"):
        _host(tmp_path).mode()
