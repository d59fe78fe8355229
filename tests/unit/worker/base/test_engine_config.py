"""The `engine` section of a worker's config."""

from __future__ import annotations

import pytest

from hpcc.core import CallerError
from hpcc.worker.base.engine_config import EngineConfig, parse_engine_or_none

DIGEST = "sha256:" + "ab" * 32
SECTION: dict[str, object] = {
    "endpoint": "grpcs://a.example.com:50051,grpcs://b.example.com",
    "instance": "main",
    "tenant": "acme",
    "images": [f"docker://r.example.com/gcc@{DIGEST}"],
}


def parsed(**changes: object) -> EngineConfig:
    found = parse_engine_or_none({**SECTION, **changes}, (DIGEST,))
    assert found is not None
    return found


def test_a_section_is_read() -> None:
    engine = parsed()
    assert engine.endpoints == ("grpcs://a.example.com:50051", "grpcs://b.example.com")
    assert engine.cas_endpoints == engine.endpoints
    assert (engine.principal, engine.name) == ("engine:main", "grpcs://a.example.com:50051/main")
    assert [d.value for d in engine.image_digests] == [DIGEST]
    assert parsed(cas="grpcs://cas.example.com").cas_endpoints == ("grpcs://cas.example.com",)
    assert parse_engine_or_none({}, ()) is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"endpoint": "grpc://a.example.com"}, "only loopback"),
        ({"endpoint": "https://a.example.com"}, "grpcs://"),
        ({"endpoint": ",".join(["grpcs://a"] * 9)}, "more than 8 servers"),
        ({"cas": "grpc://a.example.com"}, "cas: "),
        ({"instance": "a/blobs"}, "instance"),
        ({"instance": "a\nb"}, "instance"),
        ({"images": [f"docker://r/gcc@{DIGEST}"] * 2}, "name one image"),
        ({"images": [f"docker://r/gcc@{DIGEST}", f"docker://r/cc@{DIGEST}"]}, "name one image"),
        ({"tenant": "A b"}, "tenant"),
        ({"images": []}, "images must be 1 to 8"),
        ({"images": ["docker://r/gcc:latest"]}, "not pinned"),
        ({"images": ["docker://r/gcc@sha256:" + "cd" * 32]}, "one of image_digests"),
        ({"pool": "a b"}, "pool"),
        ({"credentials": "engine.json"}, "absolute"),
        ({"certificate_file": "/c.pem"}, "belong together"),
        ({"call_seconds": 0}, "positive"),
        ({"lost_seconds": 5.0}, "lost_seconds must be more"),
        ({"max_input_bytes": -1}, "positive"),
        ({"endpiont": ""}, "did you mean 'endpoint'"),
        ({"images": "docker"}, "list of strings"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(CallerError, match=says):
        parsed(**changes)
