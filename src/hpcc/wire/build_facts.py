"""The build facts in front of a request: what the launcher's environment says about its build.

The launcher sends the variables below as `NAME=value`, each with a NUL at its end, and decides
nothing. `hpcc.cache.root.build_identity` decides what they mean. They are outside of the request's
key, and no compiler's environment is made of them. launcher/wire.h has the same list and limits.

A value that is longer than `MAX_VALUE_BYTES` arrives cut, with one byte more than that.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

MAX_VALUE_BYTES: Final = 192
# All names with their longest values fit.
MAX_FACTS_BYTES: Final = 4096
NAMES: Final = (
    b"TRACEPARENT",
    b"HPCC_BUILD",
    b"GITHUB_REPOSITORY",
    b"GITHUB_RUN_ID",
    b"GITHUB_RUN_ATTEMPT",
    b"CI_SERVER_HOST",
    b"CI_PIPELINE_ID",
    b"BUILDKITE_BUILD_ID",
    b"SYSTEM_COLLECTIONID",
    b"BUILD_BUILDID",
    b"CIRCLE_WORKFLOW_ID",
    b"TEAMCITY_PROJECT_NAME",
    b"TEAMCITY_BUILDCONF_NAME",
    b"BUILD_NUMBER",
    b"BUILD_TAG",
)
_KNOWN: Final = frozenset(NAMES)


def encode_facts(facts: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return facts as a launcher sends them; only tests and benchmarks need it."""
    return b"".join(
        name + b"=" + value[: MAX_VALUE_BYTES + 1] + b"\0" for name, value in facts if value
    )


def decode_facts(data: bytes) -> dict[bytes, bytes] | None:
    """Return the facts by name; None if the bytes have another form.

    Values may hold any byte except NUL, and are at most one byte longer than `MAX_VALUE_BYTES`.
    """
    if len(data) > MAX_FACTS_BYTES or data.count(0) > len(NAMES) or data[-1:] not in {b"", b"\0"}:
        return None
    facts: dict[bytes, bytes] = {}
    for text in data.split(b"\0")[:-1]:
        name, equals, value = text.partition(b"=")
        is_bad = name not in _KNOWN or not equals or not value
        if is_bad or len(value) > MAX_VALUE_BYTES + 1:
            return None
        facts.setdefault(name, value)  # of two, getenv returns the first
    return facts
