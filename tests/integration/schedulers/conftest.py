"""Closes sockets that a database driver left behind at the end of the test that opened them."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_socket_outlives_its_test() -> Iterator[None]:
    """Collect the transports of refused connections here, without their warnings.

    asyncpg leaves the plain transport of a TLS handshake that failed, or of a server that was
    killed, to the garbage collector. Its ResourceWarning would fail whichever test runs then.
    """
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
