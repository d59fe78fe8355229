"""A worker stores two results of its enrolment: a key, and that key's certificate."""

from __future__ import annotations

import pytest

from hpcc.core import CallerError
from hpcc.identity.worker_ca import WorkerCa, new_worker_key, read_request
from hpcc.worker.base.identity import WorkerIdentity

NOW = 1_800_000_000.0


def test_a_certificate_of_another_key_replaces_nothing_that_is_good() -> None:
    ca = WorkerCa.new(NOW)
    key, request = new_worker_key()
    another, _ = new_worker_key()
    certificate = ca.issue(read_request(request), "w1", NOW, 3600.0)
    assert WorkerIdentity.parse(key + certificate).worker_id == "w1"
    with pytest.raises(CallerError):
        WorkerIdentity.parse(another + certificate)
