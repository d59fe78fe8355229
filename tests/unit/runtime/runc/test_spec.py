"""The spec that runc gets for a guest is weaker than a virtual machine only where it must be."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest

from hpcc.runtime.runc.seccomp import seccomp_profile
from hpcc.runtime.runc.spec import FIRST_UID, RANGES, UIDS, ContainerPlan, uid_range

PLAN = ContainerPlan(
    container_id="c-1", first_uid=FIRST_UID, memory_mib=512, vcpus=2, link=Path("/g/link")
)
TOKEN = "t" * 32


def spec() -> Any:
    return json.loads(json.dumps(PLAN.spec))


def agent() -> Any:
    return json.loads(json.dumps(PLAN.agent(TOKEN)))


def test_every_namespace_is_its_own_and_no_network_is_set_up() -> None:
    linux = spec()["linux"]
    kinds = {n["type"] for n in linux["namespaces"]}
    assert kinds == {"pid", "ipc", "uts", "mount", "network", "user", "cgroup"}
    assert not any("path" in n for n in linux["namespaces"])
    assert "netDevices" not in linux
    assert "hooks" not in spec()


def test_root_inside_is_nobody_outside() -> None:
    for kind in ("uidMappings", "gidMappings"):
        (mapping,) = spec()["linux"][kind]
        assert mapping == {"containerID": 0, "hostID": FIRST_UID, "size": UIDS}
        assert mapping["hostID"] + mapping["size"] < 1 << 31


def test_guests_of_one_worker_do_not_share_ids() -> None:
    firsts = [uid_range(number) for number in range(RANGES)]
    assert len(set(firsts)) == len(firsts)
    assert max(firsts) + UIDS <= 1 << 31
    assert min(firsts) >= FIRST_UID


def test_the_root_is_read_only_and_nothing_of_the_host_is_mounted_writable() -> None:
    assert spec()["root"]["readonly"] is True
    from_host = [m for m in spec()["mounts"] if m["source"].startswith("/")]
    assert [m["source"] for m in from_host] == ["/g/link"]
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(from_host[0]["options"])


def test_memory_and_processes_are_limited_and_swap_is_none() -> None:
    resources = spec()["linux"]["resources"]
    assert resources["memory"]["limit"] == resources["memory"]["swap"] == 512 << 20
    assert 0 < resources["pids"]["limit"] <= 4096
    assert resources["cpu"]["quota"] == 2 * resources["cpu"]["period"]
    assert resources["devices"] == [{"allow": False, "access": "rwm"}]


def test_what_shows_the_hosts_kernel_is_masked() -> None:
    linux = spec()["linux"]
    assert {"/proc/kcore", "/proc/keys", "/proc/timer_list"} <= set(linux["maskedPaths"])
    assert {"/proc/sys", "/proc/sysrq-trigger"} <= set(linux["readonlyPaths"])


def test_the_first_process_has_no_capability_and_the_agent_few() -> None:
    hold, works = spec()["process"], agent()
    assert set(hold["capabilities"]) == set(works["capabilities"])
    assert all(names == [] for names in hold["capabilities"].values())
    for names in works["capabilities"].values():
        assert {"CAP_NET_ADMIN", "CAP_SYS_PTRACE", "CAP_MKNOD", "CAP_SYS_MODULE"}.isdisjoint(names)
    for process in (hold, works):
        assert process["noNewPrivileges"] is True
        assert "terminal" not in process


def test_the_token_is_in_no_argument() -> None:
    assert not any(TOKEN in word for word in agent()["args"])
    assert TOKEN not in json.dumps(spec())


def test_the_filter_allows_by_name_and_refuses_the_rest() -> None:
    profile: Any = seccomp_profile()
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    free = {
        name
        for rule in profile["syscalls"]
        if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule
        for name in rule["names"]
    }
    assert {"read", "execve", "openat"} <= free
    refused = {
        "bpf", "ptrace", "keyctl", "add_key", "kexec_load", "init_module", "reboot", "setns",
        "pivot_root", "io_uring_setup", "perf_event_open", "userfaultfd", "socket", "clock_settime",
        "socketpair",
        "open_by_handle_at", "swapon", "process_vm_writev", "chroot", "fsopen", "move_mount",
    }  # fmt: skip
    assert refused.isdisjoint(free)


def test_an_argument_is_allowed_by_its_whole_value_alone() -> None:
    profile: Any = seccomp_profile()
    families: dict[str, set[int]] = {}
    for rule in profile["syscalls"]:
        for condition in rule.get("args", []):
            assert condition["op"] == "SCMP_CMP_EQ"
            families.setdefault(rule["names"][0], set()).add(condition["value"])
    assert families["socket"] == families["socketpair"] == {1, 2, 10}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "riscv64"])
def test_the_filter_fits_the_machine(monkeypatch: pytest.MonkeyPatch, machine: str) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    profile: Any = seccomp_profile()
    names = [name for rule in profile["syscalls"] for name in rule["names"]]
    assert ("arch_prctl" in names) is (machine == "x86_64")
    assert len(profile["architectures"]) == (machine != "riscv64")
