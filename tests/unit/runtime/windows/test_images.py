"""An image's description of itself is checked as hostile input."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.core import IntegrityError, NotFoundError
from hpcc.runtime.windows.layers.images import (
    MAX_DOCUMENT_BYTES,
    HostBuild,
    config_of_manifest,
    layers_of_config,
    manifest_of_index,
)

DIGESTS = [f"sha256:{c * 64}" for c in "abcdef"]
HYPERV = HostBuild(build=20348, is_hyperv=True)
PROCESS = HostBuild(build=20348, is_hyperv=False)


def raw(document: object) -> bytes:
    return json.dumps(document).encode()


def entry(digest: str, version: str, **changes: Any) -> dict[str, Any]:
    platform = {"os": "windows", "architecture": "amd64", "os.version": version}
    return {"digest": digest, "size": 9, "platform": platform | changes}


def config(version: str = "10.0.20348.1", **changes: Any) -> dict[str, Any]:
    base = {"os": "windows", "architecture": "amd64", "os.version": version}
    return base | {"rootfs": {"type": "layers", "diff_ids": DIGESTS[:2]}} | changes


@pytest.mark.parametrize(("host", "expected"), [(HYPERV, 3), (PROCESS, 3)])
def test_the_newest_manifest_that_runs_here_is_taken(host: HostBuild, expected: int) -> None:
    entries = [
        entry(DIGESTS[0], "10.0.26100.1"), entry(DIGESTS[1], "10.0.17763.9999"),
        entry(DIGESTS[2], "10.0.20348.100"), entry(DIGESTS[3], "10.0.20348.2700"),
        entry(DIGESTS[4], "10.0.20348.9000", architecture="arm64"),
        entry(DIGESTS[5], "10.0.20348.9000", os="linux"), {"digest": "x"},
    ]  # fmt: skip
    found = manifest_of_index(raw({"manifests": entries}), host)
    assert found is not None
    assert found.digest == DIGESTS[expected]


def test_a_manifest_is_no_index_and_names_its_configuration() -> None:
    data = raw({"config": {"digest": DIGESTS[0], "size": 9}, "layers": []})
    assert manifest_of_index(data, HYPERV) is None
    assert config_of_manifest(data).digest == DIGESTS[0]


@pytest.mark.parametrize(
    ("version", "hyperv", "process"),
    [
        ("10.0.20348.1", True, True), ("10.0.20348", True, True), ("10.0.17763.1", True, False),
        ("10.0.20349", False, False), ("11.0.20348", False, False), ("", False, False),
        ("10.0.20348.1x", False, False),
    ],
)  # fmt: skip
def test_a_build_runs_where_microsoft_says_it_does(
    version: str, hyperv: bool, process: bool
) -> None:
    for host, runs in ((HYPERV, hyperv), (PROCESS, process)):
        if runs:
            assert layers_of_config(raw(config(version)), host) == tuple(DIGESTS[:2])
        else:
            with pytest.raises(NotFoundError):
                layers_of_config(raw(config(version)), host)


@pytest.mark.parametrize(
    ("host", "builds"),
    [
        (17763, {17763}), (19042, {19042}), (20348, {20348}), (22621, {20348, 22621}),
        (25398, {20348, 22621, 25398}), (26100, {20348, 22621, 25398, 26100}), (27000, {26100, 27000}),
    ],
)  # fmt: skip
def test_a_host_runs_images_of_the_release_before_its_own(host: int, builds: set[int]) -> None:
    # The rule of hcsshim (osversion/platform_compat_windows.go).
    every = (14393, 17763, 19042, 20347, 20348, 22621, 25398, 26100, 27000, 30000)
    here = HostBuild(build=host, is_hyperv=False)
    assert {build for build in every if not here.why_not(f"10.0.{build}.1")} == builds


@pytest.mark.parametrize(
    "document",
    [
        b"", b"{", b"[]", b"1", b"\xff", b"[" * 100_000, bytes(MAX_DOCUMENT_BYTES + 1),
        raw(config(rootfs=[])), raw(config(rootfs={"diff_ids": DIGESTS[0]})),
        raw(config(rootfs={"diff_ids": []})), raw(config(rootfs={"diff_ids": ["sha256:" + "A" * 64]})),
        raw(config(rootfs={"diff_ids": [DIGESTS[0]] * 300})), raw(config(rootfs={"diff_ids": [1]})),
    ],
)  # fmt: skip
def test_a_malformed_image_is_refused(document: bytes) -> None:
    for read in (
        config_of_manifest,
        lambda data: layers_of_config(data, HYPERV),
        lambda data: manifest_of_index(data, HYPERV) or config_of_manifest(data),
    ):
        with pytest.raises(IntegrityError) as caught:
            read(document)
        assert caught.value.reason == "image-manifest"


@pytest.mark.parametrize(
    "changes", [{"size": 0}, {"size": True}, {"size": MAX_DOCUMENT_BYTES + 1}, {"digest": "x"}]
)
def test_a_part_of_no_size_or_digest_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        config_of_manifest(raw({"config": {"digest": DIGESTS[0], "size": 9} | changes}))
    with pytest.raises(IntegrityError):
        manifest_of_index(raw({"manifests": [entry(DIGESTS[0], "10.0.20348") | changes]}), HYPERV)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.sampled_from(DIGESTS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["manifests", "config", "rootfs", "diff_ids", "platform", "os", "digest", "size"]),
        inner, max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip


@given(JSON)
def test_nothing_else_than_its_two_errors_is_raised(document: object) -> None:
    for read in (config_of_manifest, layers_of_config, manifest_of_index):
        arguments: Any = (
            (raw(document),) if read is config_of_manifest else (raw(document), PROCESS)
        )
        with contextlib.suppress(IntegrityError, NotFoundError):
            read(*arguments)
