"""Firecracker's calls as data: no network in any call, gated versions, a checked configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from hpcc.core import InfrastructureError, IntegrityError
from hpcc.runtime.firecracker.plan import (
    LOAD_CALL,
    Jail,
    Microvm,
    boot_calls,
    check_configuration,
    check_version,
    jailer_argv,
    kernel_command_line,
    parse_version,
)

VM = Microvm(memory_mib=512, vcpus=2, token="t" * 32, has_mitigations=True)
JAIL = Jail(
    jailer="/bin/jailer", firecracker="/bin/firecracker", jail_id="f-1", base="/b", uid=7, gid=8,
    has_cgroup=True, counts_swap=True, memory_mib=512,
)  # fmt: skip
DRIVES = [{"drive_id": "image", "is_read_only": True}, {"drive_id": "agent", "is_read_only": True}]
CONFIGURATION: Mapping[str, object] = {
    "drives": DRIVES, "network-interfaces": [], "mmds-config": None,
}  # fmt: skip


def test_no_call_configures_a_network() -> None:
    calls = boot_calls(VM)
    assert [c.path for c in calls] == [
        "/machine-config", "/boot-source", "/drives/image", "/drives/agent", "/vsock",
    ]  # fmt: skip
    text = json.dumps([c.body for c in calls])
    assert "network" not in text
    assert "mmds" not in text


def test_every_drive_is_read_only_and_the_image_comes_first() -> None:
    drives = [c.body for c in boot_calls(VM) if c.path.startswith("/drives/")]
    assert [d and d["is_read_only"] for d in drives] == [True, True]
    assert [d and d["path_on_host"] for d in drives] == ["/image", "/agent"]


def test_the_console_is_off_unless_asked_for() -> None:
    assert "ttyS0" not in kernel_command_line(VM)
    assert "8250.nr_uarts=0" in kernel_command_line(VM)
    assert "console=ttyS0" in kernel_command_line(replace(VM, has_console=True))


def test_the_agent_is_told_its_token_and_its_channel() -> None:
    words = kernel_command_line(replace(VM, extra_options="rdinit=/other")).split()
    assert {f"hpcc.tok={VM.token}", "hpcc.vsock=5005", "rdinit=/other"} <= set(words)


def test_a_guest_without_mitigations_says_so_on_its_command_line() -> None:
    assert "mitigations=auto" in kernel_command_line(VM).split()
    assert "nokaslr" not in kernel_command_line(VM)
    off = kernel_command_line(replace(VM, has_mitigations=False)).split()
    assert {"mitigations=off", "nokaslr"} <= set(off)
    assert "mitigations=auto" not in off


def test_the_jail_has_its_own_user_and_limits() -> None:
    argv = jailer_argv(JAIL)
    assert argv[argv.index("--uid") + 1] == "7"
    assert argv[argv.index("--gid") + 1] == "8"
    assert f"memory.max={640 << 20}" in argv
    assert "--no-seccomp" not in argv
    assert "--netns" not in argv


def test_the_vmm_is_below_processes_that_die_with_the_worker() -> None:
    argv = jailer_argv(JAIL)
    assert argv.index("--pdeathsig=KILL") < argv.index("--kill-child=KILL") < argv.index("sh")
    assert {"--pid", "--net"} <= set(argv[: argv.index("sh")])


def test_nothing_of_a_vmm_is_swapped_out_where_the_kernel_counts_swap() -> None:
    argv = jailer_argv(JAIL)
    assert argv[argv.index("memory.swap.max=0") - 1] == "--cgroup"
    assert argv.index("memory.swap.max=0") < argv.index("--")
    assert not [a for a in jailer_argv(replace(JAIL, counts_swap=False)) if "swap" in a]


def test_without_cgroup_v2_none_is_asked_for() -> None:
    assert "--cgroup" not in jailer_argv(replace(JAIL, has_cgroup=False))


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Firecracker v1.12.1\n\n2026 exiting\n", "1.12.1"),
        ("Jailer v1.13.0\n", "1.13.0"),
        ("Firecracker v2.0.0-dev", "2.0.0-dev"),
    ],
)
def test_versions_are_read(text: str, version: str) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize(
    "text", ["", "firecracker", "Firecracker v1", "QEMU v9.9.9", "Firecracker v" + "9" * 99]
)
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(InfrastructureError, match="not a version"):
        parse_version(text)


@pytest.mark.parametrize("version", ["1.11.9", "0.25.2"])
def test_an_old_version_is_refused_with_the_remedy(version: str) -> None:
    with pytest.raises(InfrastructureError, match=r"too old.*1\.12 or newer.*releases"):
        parse_version(f"Firecracker v{version}\n")


def test_a_vmm_of_another_version_is_refused() -> None:
    check_version({"firecracker_version": "1.12.1"}, "1.12.1")
    for answer in ({"firecracker_version": "1.12.2"}, {}, {"firecracker_version": None}):
        with pytest.raises(IntegrityError):
            check_version(answer, "1.12.1")


def test_the_configuration_that_was_asked_for_is_accepted() -> None:
    check_configuration(CONFIGURATION)


@pytest.mark.parametrize(
    "change",
    [
        {"network-interfaces": [{"iface_id": "eth0"}]},
        {"network-interfaces": None},
        {"mmds-config": {}},
        {"drives": DRIVES[:1]},
        {"drives": [*DRIVES, DRIVES[0]]},
        {"drives": [DRIVES[0], {"drive_id": "agent", "is_read_only": False}]},
        {"drives": [DRIVES[0], {"drive_id": "agent"}]},
        {"drives": [DRIVES[0], "agent"]},
        {"drives": "xx"},
    ],
)
def test_another_configuration_is_refused(change: Mapping[str, object]) -> None:
    with pytest.raises(IntegrityError):
        check_configuration({**CONFIGURATION, **change})


def test_a_configuration_that_does_not_say_is_refused() -> None:
    with pytest.raises(IntegrityError):
        check_configuration({"drives": DRIVES})


def test_a_restored_guest_does_not_run_before_the_vmm_has_said_what_it_is() -> None:
    assert LOAD_CALL.body == {
        "snapshot_path": "/state",
        "resume_vm": False,
        "mem_backend": {"backend_type": "File", "backend_path": "/memory"},
    }


def test_only_a_template_may_write_a_file_of_its_memorys_size() -> None:
    guest, template = jailer_argv(JAIL), jailer_argv(replace(JAIL, is_template=True))
    assert "fsize=4096" in guest
    assert f"fsize={(JAIL.memory_mib << 20) + 4096}" in template
