"""The Host Compute Service's client with a library that replays answers derived from source."""

# ruff: noqa: N802 - the names of the library that is replaced
from __future__ import annotations

import asyncio
import ctypes
import json
import threading
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from hpcc.core import CallerError, InfrastructureError, IntegrityError
from hpcc.runtime.windows.hcs import (
    MAX_ANSWER_CHARS,
    MAX_SYSTEMS,
    ComputeService,
    ComputeSystem,
    HcsError,
    find_utility_vm,
    load_computecore,
    orphans,
    parse_systems,
)

ANSWER = json.loads(
    (
        Path(__file__).parents[3] / "golden/windows/from_source_hcs_enumeration.json"
    ).read_text()
)["value"]  # fmt: skip
VM = UUID("0b7f2c51-6c3f-4c56-9d0f-7a4b8e1c2d30")


def signed(code: int) -> int:
    return code - (1 << 32)


class Library:
    """A fake computecore.dll: answers with `document` and `codes`; counts allocations and frees."""

    def __init__(self, document: str = json.dumps(ANSWER)) -> None:
        self.document = document
        self.codes: dict[str, int] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.open: set[int] = set()
        self.memory: dict[int, Any] = {}
        self.next = 1000
        self.gate: threading.Event | None = None
        self.entered = threading.Event()

    def handle(self) -> int:
        self.next += 1
        self.open.add(self.next)
        return self.next

    def HcsCreateOperation(self, context: None, callback: None) -> int | None:
        return None if "create" in self.codes else self.handle()

    def HcsCloseOperation(self, operation: int) -> None:
        self.open.remove(operation)

    def HcsWaitForOperationResult(self, operation: int, milliseconds: int, out: Any) -> int:
        assert operation in self.open
        assert 0 < milliseconds < 60_000
        self.entered.set()
        if self.gate is not None:
            self.gate.wait(30)
        if self.document:
            buffer = ctypes.create_unicode_buffer(self.document)
            self.memory[ctypes.addressof(buffer)] = buffer
            out._obj.value = ctypes.addressof(buffer)
        return self.codes.get("wait", 0)

    def HcsEnumerateComputeSystems(self, query: str, operation: int) -> int:
        self.calls.append(("enumerate", json.loads(query)))
        return self.codes.get("enumerate", 0)

    def HcsOpenComputeSystem(self, name: str, access: int, out: Any) -> int:
        self.calls.append(("open", name))
        code = self.codes.get("open", 0)
        if code >= 0:
            out._obj.value = self.handle()
        return code

    def HcsGetComputeSystemProperties(self, system: int, operation: int, query: str | None) -> int:
        assert {system, operation} <= self.open
        return self.codes.get("properties", 0)

    def HcsTerminateComputeSystem(self, system: int, operation: int, options: None) -> int:
        assert {system, operation} <= self.open
        self.calls.append(("terminate",))
        return self.codes.get("terminate", 0)

    def HcsCloseComputeSystem(self, system: int) -> None:
        self.open.remove(system)

    def LocalFree(self, memory: int) -> None:
        del self.memory[memory]

    def assert_all_given_back(self) -> None:
        assert not self.open
        assert not self.memory


async def test_a_utility_vm_is_found_by_its_containers_id() -> None:
    library = Library()
    assert await ComputeService(library).utility_vm("hpcc-1") == VM
    assert library.calls == [("enumerate", {"Ids": ["hpcc-1@vm"], "Types": ["VirtualMachine"]})]
    library.assert_all_given_back()


async def test_all_systems_of_the_host_are_listed() -> None:
    library = Library()
    found = await ComputeService(library).systems()
    assert [s.system_id for s in found] == [entry["Id"] for entry in ANSWER]
    assert found[2].runtime_id is None
    library.assert_all_given_back()


@pytest.mark.parametrize("step", ["enumerate", "wait", "create"])
async def test_a_failed_enumeration_leaves_nothing_behind(step: str) -> None:
    library = Library()
    library.codes[step] = signed(0x80370102)
    with pytest.raises(HcsError) as caught:
        await ComputeService(library).systems()
    assert caught.value.reason == "hcs"
    assert step == "create" or caught.value.code == 0x80370102
    library.assert_all_given_back()


async def test_missing_rights_are_said_with_what_to_do() -> None:
    library = Library()
    library.codes["enumerate"] = signed(0x80070005)
    with pytest.raises(HcsError, match="Hyper-V Administrators"):
        await ComputeService(library).systems()


async def test_a_vm_is_ended_and_every_handle_closed() -> None:
    library = Library("")
    assert await ComputeService(library).terminate("hpcc-1")
    assert library.calls == [("open", "hpcc-1@vm"), ("terminate",)]
    library.assert_all_given_back()


@pytest.mark.parametrize(
    ("step", "code"),
    [("open", 0x8037010E), ("open", 0xC037010E), ("terminate", 0x80370110), ("wait", 0xC0370110)],
)
async def test_a_vm_that_is_gone_already_is_no_error(step: str, code: int) -> None:
    library = Library()
    library.codes[step] = signed(code)
    assert not await ComputeService(library).terminate("hpcc-1")
    library.assert_all_given_back()


async def test_a_vm_that_cannot_be_ended_is_an_error() -> None:
    library = Library()
    library.codes["terminate"] = signed(0x80370105)
    with pytest.raises(HcsError):
        await ComputeService(library).terminate("hpcc-1")
    library.assert_all_given_back()


@pytest.mark.parametrize("name", ["hpcc-1@vm", "WSL", "0d9f0a4e-55cc-4d0e-8a3b-0f6d1c2b3a49", ""])
async def test_no_system_but_a_guests_vm_can_be_ended(name: str) -> None:
    library = Library()
    with pytest.raises(CallerError):
        await ComputeService(library).terminate(name)
    assert library.calls == []


async def test_properties_are_handed_on_as_text() -> None:
    library = Library('{"State":"Running"}')
    assert await ComputeService(library).properties("hpcc-1") == '{"State":"Running"}'
    library.assert_all_given_back()


async def test_a_cancel_waits_for_the_call_to_return() -> None:
    library = Library()
    library.gate = threading.Event()
    task = asyncio.ensure_future(ComputeService(library).systems())
    await asyncio.to_thread(library.entered.wait, 60)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert not task.done()
    library.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    library.assert_all_given_back()


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "{}", "[1]", "[{}]", "[[", "[" * 100_000, '[{"Id":1}]',
        '[{"Id":"a","RuntimeId":"x"}]', '[{"Id":"a","Owner":{}}]', '[{"Id":"a"},{"Id":"a"}]',
        '[{"Id":"%s"}]' % ("a" * 2000), "[" + ",".join(["{}"] * (MAX_SYSTEMS + 1)) + "]",
        '["' + "a" * MAX_ANSWER_CHARS + '"]',
    ],
    ids=lambda text: text[:24],
)  # fmt: skip
def test_a_wrong_list_of_systems_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        parse_systems(text)
    assert caught.value.reason == "hcs-answer"


async def test_a_wrong_answer_is_freed_too() -> None:
    library = Library("[")
    with pytest.raises(IntegrityError):
        await ComputeService(library).systems()
    library.assert_all_given_back()


def system(**changes: Any) -> ComputeSystem:
    base: dict[str, Any] = {
        "system_id": "hpcc-1@vm", "kind": "VirtualMachine",
        "owner": "containerd-shim-runhcs-v1.exe", "state": "Running", "runtime_id": VM,
    }  # fmt: skip
    return ComputeSystem(**(base | changes))


@pytest.mark.parametrize(
    "impostor", [{"kind": "Container"}, {"owner": "WSL"}, {"owner": ""}, {"runtime_id": None}]
)
def test_a_vm_of_the_right_name_that_is_not_the_shims_is_not_dialled(
    impostor: dict[str, Any],
) -> None:
    with pytest.raises(IntegrityError):
        find_utility_vm([system(**impostor)], "hpcc-1")


def test_two_vms_of_one_name_are_not_dialled() -> None:
    with pytest.raises(IntegrityError):
        find_utility_vm([system(), system(system_id="HPCC-1@VM")], "hpcc-1")


def test_a_container_without_a_vm_is_said_to_have_none() -> None:
    with pytest.raises(HcsError, match="no system hpcc-2@vm"):
        find_utility_vm([system()], "hpcc-2")


def test_orphans_are_ours_and_of_no_container() -> None:
    systems = [
        system(),
        system(system_id="hpcc-2@vm"),
        system(system_id="hpcc-3@vm", owner="somebody"),
        system(system_id="hpcc-4@vm", kind="Container"),
        system(system_id="k8s-5@vm"),
        system(system_id="hpcc-6"),
        system(system_id="hpcc-7@vm@vm"),
    ]
    assert orphans(systems, {"hpcc-1"}) == ["hpcc-2"]


def test_elsewhere_the_service_is_said_to_be_missing() -> None:
    with pytest.raises(InfrastructureError, match="not Windows"):
        load_computecore()
