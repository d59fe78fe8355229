"""The switches of gRPC that the dispatcher gets are ones that this gRPC knows."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

from hpcc.dispatch.remote import GRPC_SWITCHES

_CALL: Final = """
import grpc
with grpc.insecure_channel("unix:/nonexistent/socket") as channel:
    try:
        channel.unary_unary("/a/b", lambda data: data, lambda data: data)(b"", timeout=30)
    except grpc.RpcError as error:
        print(error.code().name)
"""


def _called(switches: str) -> tuple[str, str]:
    env = {**os.environ, "GRPC_EXPERIMENTS": switches}
    done = subprocess.run(
        [sys.executable, "-c", _CALL], env=env, capture_output=True, text=True, check=True
    )
    return done.stdout.strip(), done.stderr


def test_this_grpc_knows_the_switches() -> None:
    answer, said = _called(GRPC_SWITCHES)
    assert answer == "UNAVAILABLE"
    assert "experiment" not in said


def test_a_grpc_that_does_not_know_a_switch_says_so_and_works() -> None:
    answer, said = _called("-no_such_engine")
    assert answer == "UNAVAILABLE"
    assert "Unknown experiment" in said
