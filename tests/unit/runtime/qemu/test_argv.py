"""QEMU's command line as data: no network, no host path, no CPU frequency under KVM."""

from __future__ import annotations

from dataclasses import replace

from hpcc.runtime.host.probe_record import cpu_model
from hpcc.runtime.qemu.argv import (
    QemuMachine,
    SnapshotFds,
    kernel_command_line,
    qemu_argv,
    tsc_khz,
)
from hpcc.runtime.vm.command_line import recorded_line

MACHINE = QemuMachine(
    name="/a,b", accelerator="tcg", memory_mib=512, vcpus=2, kernel_fd=3, initramfs_fd=4, image_fd=5, drive_fd=6,
    port_fd=7, firmware="/fw", token="tok", tsc_khz=2_000_000,
    has_mitigations=True,
)  # fmt: skip


def test_no_argument_gives_the_guest_a_network() -> None:
    argv = qemu_argv("qemu", MACHINE)
    assert argv[argv.index("-nic") + 1] == "none"
    assert not [a for a in argv if "netdev" in a or "virtio-net" in a or a in ("-net", "-netdev")]


def test_a_comma_in_the_name_is_no_option() -> None:
    assert "guest=/a,,b" in qemu_argv("qemu", MACHINE)


def test_the_kernel_is_not_asked_to_merge_a_guests_memory_with_others() -> None:
    fds = SnapshotFds(memory_fd=8, state_fd=9, control_fd=10, is_template=True)
    for snapshot in (None, fds, replace(fds, is_template=False)):
        argv = qemu_argv("qemu", replace(MACHINE, snapshot=snapshot))
        assert "mem-merge=off" in argv[argv.index("-M") + 1].split(",")


def test_drives_are_read_only() -> None:
    drives = [a for a in qemu_argv("qemu", MACHINE) if a.startswith("id=")]
    assert len(drives) == 2
    assert all("readonly=on" in d for d in drives)


def test_the_clock_rate_is_given_only_under_emulation() -> None:
    assert "tsc_early_khz=2000000" in kernel_command_line(MACHINE)
    assert "tsc_early_khz" not in kernel_command_line(replace(MACHINE, accelerator="kvm"))
    assert "tsc_early_khz" not in kernel_command_line(replace(MACHINE, tsc_khz=0))


def test_a_guest_without_mitigations_says_so_on_its_command_line() -> None:
    assert {"mitigations=auto"} == {
        w for w in kernel_command_line(MACHINE).split() if "mitig" in w or "kaslr" in w
    }
    off = kernel_command_line(replace(MACHINE, has_mitigations=False)).split()
    assert {"mitigations=off", "nokaslr"} <= set(off)
    assert "mitigations=auto" not in off


def test_the_line_of_a_row_is_the_whole_line_without_the_token() -> None:
    line = kernel_command_line(MACHINE)
    assert "hpcc.tok=tok" in line
    assert recorded_line(line).split() == [w for w in line.split() if w != "hpcc.tok=tok"]


def test_accelerators_and_firmware() -> None:
    assert "kvm" in qemu_argv("qemu", replace(MACHINE, accelerator="kvm"))
    assert "-bios" in qemu_argv("qemu", MACHINE)
    assert "-bios" not in qemu_argv("qemu", replace(MACHINE, firmware=""))


def test_cpuinfo_is_read_whatever_it_says() -> None:
    text = "processor\t: 0\nmodel name\t: A CPU\ncpu MHz\t\t: 2399.998\n"
    assert (tsc_khz(text), cpu_model(text)) == (2_399_998, "A CPU")
    assert (tsc_khz(""), cpu_model("")) == (0, "unknown")
    assert tsc_khz("cpu MHz : fast\n") == 0


def test_only_a_template_may_write_its_memory_and_only_a_snapshot_has_a_control_channel() -> None:
    fds = SnapshotFds(memory_fd=8, state_fd=9, control_fd=10, is_template=True)
    template = qemu_argv("qemu", replace(MACHINE, snapshot=fds))
    restored = qemu_argv("qemu", replace(MACHINE, snapshot=replace(fds, is_template=False)))
    memory = "memory-backend-file,id=memory,size=512M,mem-path=/dev/fd/8"
    assert template[template.index("-object") + 1] == f"{memory},share=on"
    assert restored[restored.index("-object") + 1] == f"{memory},share=off,readonly=on,rom=off"
    assert "-incoming" not in template
    assert restored[restored.index("-incoming") + 1] == "defer"
    for argv in (template, restored):
        assert "microvm,rtc=on,acpi=on,mem-merge=off,memory-backend=memory" in argv
        assert argv[argv.index("-mon") + 1] == "chardev=control,mode=control"
    assert not {"-mon", "-qmp", "-object", "-incoming"} & set(qemu_argv("qemu", MACHINE))
