"""A gateway's certificate is renewed while it runs."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
from pathlib import Path

import pytest

from hpcc.core import CallerError
from hpcc.gateway.certificate import CertificateFiles
from hpcc_testkit.farm.gateway import gateway_under_test
from hpcc_testkit.services.server_certificate import ServerFiles, make_server_files

pytestmark = pytest.mark.timeout(120)


def files_in(directory: Path) -> ServerFiles:
    directory.mkdir()
    files = make_server_files(directory)
    files.key.chmod(0o600)
    return files


def replace(old: Path, new: Path) -> None:
    """Replace a file atomically, as a certificate renewal should."""
    aside = old.with_name("aside")
    shutil.copy(new, aside)
    os.replace(aside, old)


def shown(port: int) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        return connection.getpeercert(binary_form=True) or b""


def der(files: ServerFiles) -> bytes:
    return ssl.PEM_cert_to_DER_cert(files.certificate.read_text())


async def test_a_renewed_certificate_is_shown_to_whoever_connects_next(tmp_path: Path) -> None:
    first, second = files_in(tmp_path / "a"), files_in(tmp_path / "b")
    before, after = der(first), der(second)
    where = {"certificate": first.certificate, "key": first.key}
    async with gateway_under_test(tmp_path, **where) as gateway:
        assert await asyncio.to_thread(shown, gateway.port) == before
        # Of two files one comes first: until they belong together, the old ones count.
        replace(first.certificate, second.certificate)
        assert await asyncio.to_thread(shown, gateway.port) == before
        replace(first.key, second.key)
        assert await asyncio.to_thread(shown, gateway.port) == after
        first.certificate.write_text("nonsense")
        assert await asyncio.to_thread(shown, gateway.port) == after
        first.certificate.unlink()
        assert await asyncio.to_thread(shown, gateway.port) == after


def test_what_does_not_belong_together_is_refused_at_the_start(tmp_path: Path) -> None:
    one, other = files_in(tmp_path / "a"), files_in(tmp_path / "b")
    with pytest.raises(CallerError, match="not the key of the first certificate"):
        CertificateFiles(one.certificate, other.key).read()
    with pytest.raises(CallerError, match="no PEM certificate"):
        CertificateFiles(one.key, one.key).read()
    one.key.write_text("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n")
    with pytest.raises(CallerError, match="is not PEM"):
        CertificateFiles(one.certificate, one.key).read()


def test_a_bad_state_is_read_once_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = files_in(tmp_path / "a")
    files = CertificateFiles(one.certificate, one.key)
    files.read()
    assert files.changed_or_none() is None
    one.certificate.write_text("nonsense")
    assert [files.changed_or_none() for _ in range(3)] == [None] * 3
    assert caplog.text.count("the previous certificate stays in use") == 1
