"""Answers of a worker that lies about what is in them."""

from __future__ import annotations

import pytest
from buildgrid.common.protos.google.longrunning import operations_pb2 as ops

from hpcc.rpc.base.errors import UnavailableError
from hpcc.rpc.reapi.client import _outcome


@pytest.mark.parametrize("name", ["build.bazel.remote.execution.v2.ExecuteResponse", "other"])
def test_an_end_that_is_no_response_is_one_documented_error(name: str) -> None:
    operation = ops.Operation(done=True)
    operation.response.type_url = f"type.googleapis.com/{name}"
    operation.response.value = b"\xff"
    with pytest.raises(UnavailableError):
        _outcome(operation)
