"""An emulated machine with KVM and only cgroup version 2, in which tests of this machine run.

For tests that this machine cannot run: `hand_on` reports for an item what the test did there.
It boots the guests' kernel under QEMU's TCG with a CPU that supports virtualisation, over this
machine's root (virtiofs, read-only, with a layer in memory above it), and runs one pytest there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pytest

from hpcc.runtime.assets.assets import GuestAssets
from hpcc.runtime.assets.initramfs import build_initramfs
from hpcc.runtime.assets.kernel import collect_modules
from hpcc_testkit.guests.nested_report import DESCRIPTOR_VARIABLE, MARK

# Set in the emulated machine: tests run there instead of being handed on.
INSIDE_VARIABLE: Final = "HPCC_NESTED"
_INIT: Final = Path(__file__).with_name("nested_init.c")
_MODULES: Final = ("virtio_mmio", "overlay", "erofs", "loop", "kvm", "kvm_amd")
_VIRTIOFSD: Final = "/usr/libexec/virtiofsd"
_MEMORY_MIB: Final = 4096
_SCRATCH: Final = "/scratch"
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DIE_WITH_US: Final = ("setpriv", "--pdeathsig=KILL")
_POLL_SECONDS: Final = 0.1
_TAIL_CHARS: Final = 4000
_KERNEL_OPTIONS: Final = (
    "console=ttyS0 quiet loglevel=4 rdinit=/init panic=-1 reboot=t mitigations=off nokaslr"
    " random.trust_cpu=on cryptomgr.notests"
)


class NestedMachine:
    """One boot and one pytest; `reports_of` returns its reports as they arrive."""

    def __init__(self, directory: Path, cache: Path, assets: GuestAssets) -> None:
        self._directory, self._cache, self._assets = directory, cache, assets
        self._output, self._console = directory / "output", directory / "console"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._seen = 0
        self._reports: dict[str, list[dict[str, object]]] = {}

    def start(self, node_ids: Sequence[str], rootdir: Path) -> None:
        """Boot it; the tests start by themselves."""
        script = self._directory / "script"
        script.write_text(_script(node_ids, rootdir))
        share = self._directory / "share.sock"
        argv = [
            *_DIE_WITH_US,
            _VIRTIOFSD, "--shared-dir", "/", "--socket-path", str(share), "--readonly",
            "--sandbox", "none", "--cache", "always", "--no-announce-submounts",
            "--log-level", "error",
        ]  # fmt: skip
        with (self._directory / "share.log").open("wb") as log:
            self._processes.append(subprocess.Popen(argv, stdout=log, stderr=log))
        while not share.exists():
            if self._processes[0].poll() is not None:
                raise AssertionError((self._directory / "share.log").read_text())
            time.sleep(_POLL_SECONDS)
        self._processes.append(
            subprocess.Popen(self._qemu_argv(share, script), stdin=subprocess.DEVNULL)
        )

    def reports_of(self, node_id: str) -> list[dict[str, object]]:
        """Wait for a test's last report and return all of them."""
        while not any(r["when"] == "teardown" for r in self._reports.get(node_id, [])):
            ended = self._processes[-1].poll() is not None
            if self._read_reports() == 0 and ended:
                raise AssertionError(f"the machine ended before the test did\n{self._last_words()}")
            time.sleep(_POLL_SECONDS)
        return self._reports[node_id]

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()

    def _read_reports(self) -> int:
        """Read the whole lines written since the last call; return the number of bytes."""
        if not self._output.exists():
            return 0
        with self._output.open("rb") as file:
            file.seek(self._seen)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]
        self._seen += len(data)
        for line in data.decode(errors="replace").splitlines():
            if line.startswith(MARK):
                report = json.loads(line.removeprefix(MARK))
                self._reports.setdefault(report["nodeid"], []).append(report)
        return len(data)

    def _last_words(self) -> str:
        files = [p for p in (self._console, self._output) if p.exists()]
        return "\n".join(p.read_text(errors="replace")[-_TAIL_CHARS:] for p in files)

    def _qemu_argv(self, share: Path, script: Path) -> list[str]:
        initramfs = self._directory / "initramfs"
        init = self._directory / "init"
        subprocess.run(
            [shutil.which("musl-gcc") or "cc", "-static", "-Os", "-s", "-o", init, _INIT],
            check=True,
        )
        modules = collect_modules([self._kernel_modules()], _MODULES)
        initramfs.write_bytes(build_initramfs(init.read_bytes(), modules))
        options = f"{_KERNEL_OPTIONS} tsc_early_khz={_tsc_khz()} hpcc.run={script}"
        return [
            *_DIE_WITH_US,
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
            "-no-reboot", "-nic", "none",
            "-M", "microvm,rtc=on,acpi=on,memory-backend=mem", "-m", f"{_MEMORY_MIB}M",
            "-object", f"memory-backend-memfd,id=mem,size={_MEMORY_MIB}M,share=on",
            "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,+svm,+npt", "-smp", "2",
            *(["-bios", str(self._assets.firmware)] if self._assets.firmware else []),
            "-kernel", str(self._assets.kernel), "-initrd", str(initramfs), "-append", options,
            "-chardev", f"file,id=console,path={self._console}", "-serial", "chardev:console",
            "-device", "virtio-serial-device", "-chardev", f"file,id=port,path={self._output}",
            "-device", "virtserialport,chardev=port,name=hpcc.test",
            "-chardev", f"socket,id=share,path={share}",
            "-device", "vhost-user-fs-device,chardev=share,tag=host",
        ]  # fmt: skip

    def _kernel_modules(self) -> Path:
        """Download and return the guest kernel's modules; guests themselves keep only a few."""
        package = "linux-image-" + self._assets.vmlinux.parent.name.partition("linux-image-")[2]
        target = self._cache / "nested" / package
        if not target.exists():
            work = self._directory / "kernel"
            work.mkdir(mode=0o755)
            subprocess.run(["apt-get", "download", "-qq", package], cwd=work, check=True)
            subprocess.run(["dpkg-deb", "-x", *work.glob("*.deb"), work / "root"], check=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(work / "root", target)
        return next(target.glob("**/lib/modules/*"))


def _script(node_ids: Sequence[str], rootdir: Path) -> str:
    arguments = "\n".join(f"'{n}' \\" for n in node_ids)
    variables = {
        "PATH": f"{Path(sys.executable).parent}:{_PATH}",
        "HOME": os.environ.get("HOME", "/"),
        "TMPDIR": _SCRATCH,
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        INSIDE_VARIABLE: "1",
        DESCRIPTOR_VARIABLE: "3",
    } | {n: os.environ[n] for n in ("XDG_CACHE_HOME", "CI") if n in os.environ}
    exports = "\n".join(f"export {name}='{value}'" for name, value in variables.items())
    return (
        f"exec 3>&1\n{exports}\ncd '{rootdir}'\n"
        f"exec '{sys.executable}' -m pytest -q -p no:cacheprovider"
        f" -p hpcc_testkit.guests.nested_report --basetemp {_SCRATCH}/t \\\n{arguments}\n\n"
    )


def _tsc_khz() -> int:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "cpu MHz":
            return int(float(value) * 1000)
    return 0


def hand_on(
    item: pytest.Item, nextitem: pytest.Item | None, find_machine: Callable[[], NestedMachine]
) -> None:
    """Report for `item` what the same test did in the emulated machine."""
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    found: list[dict[str, object]] = []
    call = pytest.CallInfo.from_call(
        lambda: found.extend(find_machine().reports_of(item.nodeid)),
        when="call",
        reraise=(KeyboardInterrupt, pytest.exit.Exception),
    )
    if call.excinfo is not None:
        hook.pytest_runtest_logreport(report=pytest.TestReport.from_item_and_call(item, call))
    for data in found:
        report = hook.pytest_report_from_serializable(config=item.config, data=data)
        hook.pytest_runtest_logreport(report=report)
    # Tears down the fixtures of earlier modules and directories that the next test is not in.
    item.session._setupstate.teardown_exact(nextitem)  # noqa: SLF001 - as pytest's own protocol does
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
