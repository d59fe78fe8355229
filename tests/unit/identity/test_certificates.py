"""A certificate that cannot be read is refused in words by each reader, whatever it raises."""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from hpcc.core import CallerError
from hpcc.identity.certificates import UNREADABLE
from hpcc.identity.tls import PinnedPeer
from hpcc.identity.worker_ca import WorkerCa, new_worker_key, read_request
from hpcc.rpc.scheduler.schedulers import pins_of
from hpcc.worker.base.identity import WorkerIdentity

_VERSION_3, _VERSION_7 = bytes.fromhex("a003020102"), bytes.fromhex("a003020106")
_NOW = 1e9


class Forged:
    """The certificate of a real worker with another version, as DER and as PEM."""

    def __init__(self) -> None:
        self.ca = WorkerCa.new(_NOW)
        self.key_pem, request = new_worker_key()
        pem = self.ca.issue(read_request(request), "w1", _NOW, 60)
        der = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
        assert der.count(_VERSION_3) == 1
        self.der = der.replace(_VERSION_3, _VERSION_7)
        lines = textwrap.wrap(base64.b64encode(self.der).decode(), 64)
        text = "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])
        self.pem = text.encode()


@pytest.fixture(scope="module")
def forged() -> Forged:
    return Forged()


READERS: dict[str, Callable[[Forged], object]] = {
    "announced": lambda f: PinnedPeer.from_der(f.der),
    "configured": lambda f: PinnedPeer.from_pem(f.pem),
    "schedulers": lambda f: pins_of(f.pem, 1),
    "worker at the door": lambda f: f.ca.check(f.pem, _NOW),
    "worker's own": lambda f: WorkerIdentity.parse(f.key_pem + f.pem),
    "worker CA": lambda f: WorkerCa.load(f.ca.key_der, f.pem),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_certificate_of_version_7_is_refused_in_words(forged: Forged, reader: str) -> None:
    with pytest.raises(CallerError):
        READERS[reader](forged)


def test_the_library_raises_what_is_no_value_error(forged: Forged) -> None:
    with pytest.raises(UNREADABLE) as found:
        x509.load_der_x509_certificate(forged.der)
    assert not isinstance(found.value, ValueError)
