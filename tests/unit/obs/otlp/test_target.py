"""Which collectors and which headers a config file may name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcc.core import CallerError
from hpcc.obs.otlp.target import MAX_HEADERS, MAX_HEADERS_BYTES, OtlpTarget


@pytest.mark.parametrize(
    ("url", "place", "path"),
    [
        ("https://otel.example", "otel.example:443", ""),
        ("https://otel.example:4318/", "otel.example:4318", ""),
        ("https://otel.example/otlp/v2/", "otel.example:443", "/otlp/v2"),
        ("http://127.0.0.1", "127.0.0.1:4318", ""),
        ("http://localhost:9", "localhost:9", ""),
        ("http://[::1]:9/x", "[::1]:9", "/x"),
    ],
)
def test_an_address_names_host_port_and_path(url: str, place: str, path: str) -> None:
    target = OtlpTarget.of(url)
    assert target is not None
    assert (target.place, target.address.path) == (place, path)
    assert target.address.is_plain is url.startswith("http:")
    assert OtlpTarget.of("") is None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://otel.example", "without TLS only loopback"),
        ("http://127.0.0.1.example", "without TLS only loopback"),
        ("https://u:s3cret-canary@otel.example", "without a password"),
        ("https://otel.example?token=s3cret-canary", "without a password or a query"),
        ("https://otel.example#x", "must be https"),
        ("https://otel.example:0", "must be https"),
        ("https://otel.example:x", "must be https"),
        ("https://otel.example:65536", "must be https"),
        ("https://", "must be https"),
        ("https://[::1", "must be https"),
        ("grpc://otel.example:4317", "must be https"),
        ("otel.example:4318", "must be https"),
        ("https://otel.example/a b", "must be https"),
        ("https://otel.example/\r\nX: y", "must be https"),
        ("https://otel.example/v1/traces", "without /v1/traces"),
        ("https://otel.example/v1/logs/", "without /v1/traces"),
    ],
)
def test_a_wrong_address_is_refused(url: str, words: str) -> None:
    with pytest.raises(CallerError, match=words) as refused:
        OtlpTarget.of(url)
    assert "canary" not in str(refused.value)


def _headers(path: Path, text: str, mode: int = 0o600) -> dict[str, str]:
    path.write_text(text)
    path.chmod(mode)
    target = OtlpTarget.of("https://otel.example", headers_file=str(path))
    assert target is not None
    return target.headers()


def test_headers_are_lines_of_a_private_file(tmp_path: Path) -> None:
    text = "# of the vendor\nAuthorization: Basic abc==\r\n\n  X-Scope-OrgID :  a b  \n"
    assert _headers(tmp_path / "h", text) == {
        "Authorization": "Basic abc==", "X-Scope-OrgID": "a b",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "s3cret-canary", "X Y: s3cret-canary", "X: s3cret-canary\x00", "X: ", "Host: s3cret-canary",
        "content-type: s3cret-canary", "X: 1\nx: s3cret-canary", "X: s3cret-canary\x7f",
        "X: s3cret-canary-ü", "X: " + "s3cret-canary" * 400,
        "".join(f"X{n}: s3cret-canary\n" for n in range(MAX_HEADERS + 1)),
    ],
    ids=range(11),
)  # fmt: skip
def test_a_line_that_is_no_header_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    with pytest.raises(CallerError, match=r"line \d+ of .* must be NAME: VALUE") as refused:
        _headers(tmp_path / "h", text)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("mode", "others can read"), ("link", "cannot read"), ("pipe", "others can read"),
        ("absent", "cannot read"), ("large", "too large"),
    ],
)  # fmt: skip
def test_headers_that_others_can_read_or_replace_are_not_used(
    tmp_path: Path, kind: str, words: str
) -> None:
    path = tmp_path / "h"
    if kind == "pipe":
        os.mkfifo(path, 0o600)
    elif kind == "link":
        (tmp_path / "h0").touch(mode=0o600)
        path.symlink_to(tmp_path / "h0")
    elif kind == "mode":
        path.touch(mode=0o640)
        path.chmod(0o640)
    elif kind == "large":
        path.touch(mode=0o600)
        path.write_bytes(b"#" * (MAX_HEADERS_BYTES + 1))
    target = OtlpTarget.of("https://otel.example", headers_file=str(path))
    assert target is not None
    with pytest.raises(CallerError, match=f"otlp_headers_file: .*{words}|{words}"):
        target.headers()


def test_roots_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("nothing")
    for name in ("absent", "empty"):
        target = OtlpTarget.of("https://otel.example", ca_file=str(tmp_path / name))
        assert target is not None
        with pytest.raises(CallerError, match=f"otlp_ca_file: .*{name}"):
            target.context_or_none()
