"""A Windows guest's specification, ids and version gates. Nothing is run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.core import CallerError, InfrastructureError
from hpcc.runtime.windows.spec import (
    WindowsPlan,
    check_container_id,
    check_containerd,
    container_vmid,
    runhcs_options,
    service_guid,
    utility_vm_id,
)

GOLDEN = Path(__file__).parents[3] / "golden" / "windows"
PLANS = st.builds(
    WindowsPlan,
    container_id=st.from_regex(r"hpcc-[a-z0-9]{1,40}", fullmatch=True).filter(
        lambda name: "extract" not in name
    ),
    memory_mib=st.integers(512, 1 << 20),
    vcpus=st.integers(1, 240),
    is_hyperv=st.booleans(),
    port=st.integers(1, 0x7FFF_FFFF),
)


def plan(**changes: Any) -> WindowsPlan:
    base: dict[str, Any] = {
        "container_id": "hpcc-1", "memory_mib": 4096, "vcpus": 4, "is_hyperv": True
    }  # fmt: skip
    return WindowsPlan(**(base | changes))


def walk(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    yield key, value
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from walk(inner, name)
    if isinstance(value, list):
        for inner in value:
            yield from walk(inner, key)


@given(PLANS)
def test_no_spec_gives_a_container_anything_of_the_host(plan: WindowsPlan) -> None:
    spec = json.loads(json.dumps(plan.spec))
    assert spec["mounts"] == []
    assert spec["root"] == {}
    assert set(spec) == {
        "ociVersion", "root", "process", "mounts", "windows", "annotations"
    }  # fmt: skip
    assert set(spec["windows"]) <= {"hyperv", "ignoreFlushesDuringBoot", "resources"}
    assert spec["windows"].get("hyperv", {}) == {}
    assert spec["annotations"]["io.microsoft.disable-unsafe-operations"] == "true"
    for key, value in walk(spec):
        assert key.lower() not in {"network", "networksharedcontainername", "layerfolders"}
        assert not re.search("device|credential|pipe|share|vsmb", key, re.IGNORECASE), key
        if isinstance(value, str):
            assert not value.startswith("\\\\"), value
            assert "pipe" not in value.lower()
    # What names a path of the guest's own: its agent, its directory.
    paths = {v for _, v in walk(spec) if isinstance(v, str) and ":\\" in v}
    assert paths == {"C:\\", "C:\\.hpcc\\hpcc-agent.exe"}


@given(PLANS)
def test_process_isolation_has_no_word_of_a_machine(plan: WindowsPlan) -> None:
    text = json.dumps(plan.spec)
    assert ("hyperv" in text) == plan.is_hyperv
    assert ("virtualmachine" in text) == plan.is_hyperv
    assert bool(plan.options) == plan.is_hyperv


def test_the_spec_is_the_one_derived_from_source() -> None:
    assert plan().spec == json.loads((GOLDEN / "from_source_hyperv_spec.json").read_text())["value"]


def test_a_guest_in_process_isolation_starts_with_pause() -> None:
    spec: Any = plan(is_hyperv=False).spec
    assert spec["process"]["args"] == ["C:\\.hpcc\\hpcc-agent.exe", "pause"]
    assert set(spec["annotations"]) == {"io.microsoft.disable-unsafe-operations"}


def test_every_golden_file_says_what_it_was_derived_from() -> None:
    for file in GOLDEN.iterdir():
        assert file.name.startswith("from_source_")
        content = json.loads(file.read_text())
        assert content["project"].startswith("https://")
        assert content["path"]
        assert content["commit"]


def test_a_containers_address_follows_from_its_id() -> None:
    assert container_vmid("hpcc-1") == UUID("64c10d37-a043-5e09-be09-fc1578cedfc3")


def test_a_port_is_a_service() -> None:
    assert str(service_guid(17727)) == "0000453f-facb-11e6-bd58-64006a7986d3"


@pytest.mark.parametrize("port", [0, -1, 1 << 31, 1 << 40])
def test_another_number_is_no_port(port: int) -> None:
    with pytest.raises(CallerError):
        service_guid(port)


@pytest.mark.parametrize(
    "name",
    [
        "", "hpcc-", "hpcc-A", "hpcc-\u0131", "hpcc-1 ", "hpcc-1\n", "hpcc-1@vm", "other-1", "hpcc-a_b",
        "hpcc-extract-1", "hpcc-xextractx", "hpcc-" + "a" * 61, "hpcc-1/../x", "hpcc-a-",
    ],
)  # fmt: skip
def test_an_id_with_two_meanings_is_refused(name: str) -> None:
    with pytest.raises(CallerError) as caught:
        check_container_id(name)
    assert caught.value.reason == "container-id"
    with pytest.raises(CallerError):
        container_vmid(name)
    with pytest.raises(CallerError):
        plan(container_id=name)


def test_a_utility_vm_is_named_after_its_container() -> None:
    assert utility_vm_id("hpcc-1") == "hpcc-1@vm"


@pytest.mark.parametrize(
    "version", ["2.1.1", "v2.1.1", "2.1.4", "2.2.0-rc.1", "2.3.4+azure", "10.0.0"]
)
def test_a_containerd_with_container_addresses_is_taken(version: str) -> None:
    check_containerd(version)


@pytest.mark.parametrize(
    "version",
    ["1.7.27", "2.0.9", "2.1.0", "2.1.1-rc.0", "2.1", "", "2.1.1 or so", "two", "9" * 400],
)
def test_another_containerd_is_refused_with_what_to_do(version: str) -> None:
    with pytest.raises(InfrastructureError, match=r"2\.1\.1") as caught:
        check_containerd(version)
    assert caught.value.reason == "containerd-version"
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "sizes", [{"memory_mib": 0}, {"memory_mib": 1 << 21}, {"vcpus": 0}, {"vcpus": 241}]
)
def test_a_guest_of_an_impossible_size_is_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(CallerError) as caught:
        plan(**sizes)
    assert caught.value.reason == "guest-size"


def fields(raw: bytes) -> dict[int, int]:
    """Read a message of variable-length integers with a decoder that the writer does not share."""
    numbers: list[int] = []
    value = shift = 0
    for byte in raw:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(value)
            value = shift = 0
    tags, values = numbers[::2], numbers[1::2]
    assert all(tag & 7 == 0 for tag in tags)
    return dict(zip([tag >> 3 for tag in tags], values, strict=True))


@given(memory=st.integers(512, 1 << 20), vcpus=st.integers(1, 240))
def test_the_shims_options_say_hypervisor_and_the_size(memory: int, vcpus: int) -> None:
    """Field numbers are from hcsshim cmd/containerd-shim-runhcs-v1/options/runhcs.proto."""
    assert fields(runhcs_options(memory_mib=memory, vcpus=vcpus)) == {
        6: 1, 8: vcpus, 9: memory + 2048, 19: 1, 20: 1
    }  # fmt: skip
