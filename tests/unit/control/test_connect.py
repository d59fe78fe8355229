"""What an operator reads when the database cannot be used."""

from __future__ import annotations

import errno
import socket
import ssl

import asyncpg
import pytest

from hpcc.control.connect import store_errors
from hpcc.control.database import read_database_config
from hpcc.ports import ControlStoreError


def certificate_error() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED]")
    error.verify_message = "Hostname mismatch, certificate is not valid for 'db1'."
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (socket.gaierror(-2, "Name or service not known"), "its name has no address: look"),
        (certificate_error(), "its certificate is not accepted (Hostname mismatch"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "nobody listens there"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "No route to host"),
        (TimeoutError(), "no answer in time"),
        (OSError("Multiple exceptions: a, b"), "Multiple exceptions: a, b"),
        (asyncpg.InvalidPasswordError("secret row"), "InvalidPasswordError (28P01)"),
        (asyncpg.InterfaceError("secret row"), "InterfaceError"),
    ],
)
def test_each_fault_of_a_database_is_named(error: Exception, said: str) -> None:
    config = read_database_config("postgresql://hpcc@127.0.0.1/farm", "")
    with pytest.raises(ControlStoreError) as caught, store_errors(config):
        raise error
    assert f"does not answer: {said}" in str(caught.value)
    assert "secret" not in str(caught.value)
