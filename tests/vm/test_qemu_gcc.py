"""A real toolchain image in a guest: equal objects, the compiler's errors, and its description."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from hpcc.cache.host.host_toolchains import ask_compiler
from hpcc.core import ExecLimits, ImageRef, Level, compare
from hpcc.images.store import ImageStore
from hpcc.images.toolchains import probe_guest
from hpcc.ports import GuestSpec, SystemClock
from hpcc.runtime.assets.assets import GuestAssets
from hpcc.runtime.qemu.backend import QemuConfig, QemuRuntime
from hpcc.runtime.vm.command_line import recorded_line
from hpcc.runtime.vm.vm import VmGuest
from hpcc_testkit.farm.machine import Machine
from hpcc_testkit.guests.guest_contract import MemoryBlobs, Outcome, request, run

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

ENV = (("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LC_ALL", "C"))
HEADER = b'#define WORD "from a header"\n'
SOURCE = b'#include <stdio.h>\n#include "w.h"\nint main(void) { return puts(WORD) < 0; }\n'


@pytest.fixture(scope="module")
def image(shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    machine = Machine(tmp_path_factory.mktemp("image"), shared_cache)
    done = machine.hpcc("image", "build-debian", "--if-missing", "gcc", "g++", timeout=900)
    ref = ImageRef.parse(done.stdout.strip().splitlines()[-1])
    store = ImageStore(shared_cache / "images", SystemClock())
    try:
        prepared = store.get(ref.digest)
        assert prepared is not None
        return prepared.path
    finally:
        store.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest(
    assets: GuestAssets, guests_directory: Path, spec: GuestSpec, image: Path
) -> AsyncIterator[VmGuest]:
    config = QemuConfig(accelerator="tcg", directory=guests_directory)
    wanted = GuestSpec(image=spec.image, image_path=image, memory_mib=768, boot_timeout_seconds=120)
    async with QemuRuntime(config, assets, SystemClock()).guest(wanted) as booted:
        yield booted


async def compile_(
    guest: VmGuest, source: bytes, *flags: str, limits: ExecLimits | None = None
) -> Outcome:
    req = request(
        "gcc", "-c", "src/a.c", "-o", "obj/a.o", "-Iinc", "-MD", "-ffile-prefix-map=/src=.", *flags,
        inputs=[("src/a.c", source), ("inc/w.h", HEADER)], outputs=("obj/a.o", "obj/a.d"), env=ENV,
        limits=limits or ExecLimits(memory_bytes=512 << 20),
    )  # fmt: skip
    return await run(guest, req, MemoryBlobs(source, HEADER))


def large_source(functions: int = 200) -> bytes:
    lines = ["#include <stdlib.h>", "struct s { int a; struct s *next; };"]
    for i in range(functions):
        lines += [
            f"int f{i}(struct s *p, int n) {{",
            f"  int acc = {i};",
            "  for (int i = 0; i < n; i++) {",
        ]
        lines += [
            f"    if (p && (p->a ^ i) % {i % 7 + 2} == 0) acc += p->a * {i + 1} - i;",
            "    else acc ^= (acc << 3) + i;",
        ]
        lines += [
            f"    switch ((acc + i) % 3) {{ case 0: acc += {i}; break; default: acc ^= 0x55; }}"
        ]
        lines += ["    if (p) p = p->next;", "  }", "  return acc;", "}", ""]
    return "\n".join(lines).encode()


@pytest.mark.nightly
async def test_the_same_compile_gives_the_same_object(guest: VmGuest) -> None:
    first, second = [await compile_(guest, SOURCE, "-g", "-O2") for _ in range(2)]
    assert first.result.exit_code == 0, first.stderr
    assert first.outputs["obj/a.o"].startswith(b"\x7fELF")
    assert first.outputs == second.outputs
    assert b"inc/w.h" in first.outputs["obj/a.d"]
    assert b"/src/" not in first.outputs["obj/a.o"]


async def test_an_error_of_the_compiler_is_the_compilers_own(guest: VmGuest) -> None:
    done = await compile_(guest, b"int main(void) { return x; }\n")
    assert (done.result.exit_code, done.result.reason) == (1, "")
    assert set(done.outputs) <= {"obj/a.d"}  # gcc writes the dependency file all the same
    assert b"src/a.c:1:25: error:" in done.stderr


async def test_a_compiler_without_memory_is_a_limit_and_not_an_error_of_the_user(
    guest: VmGuest,
) -> None:
    # Pages of a program count for whom they are read for. Below the limit the kernel would read
    # those of a compiler that nobody used yet again and again, and kill nothing.
    assert (await compile_(guest, SOURCE)).result.exit_code == 0
    limits = ExecLimits(memory_bytes=12 << 20)
    done = await compile_(guest, large_source(), "-O2", limits=limits)
    assert done.result.reason == "memory"


async def test_its_kernel_was_started_with_the_line_of_its_rows(guest: VmGuest) -> None:
    done = await run(guest, request("cat", "/proc/cmdline", env=ENV))
    line = recorded_line(done.stdout.decode())
    assert line == guest.identity.kernel_command_line
    assert "mitigations=auto" in line.split()


@pytest.mark.nightly
async def test_the_images_compiler_says_what_it_is_as_the_hosts_own_does(guest: VmGuest) -> None:
    found = await probe_guest(guest)
    assert not guest.is_lost
    there = next(t for t in found if "gcc" in t.names)
    assert there.family == "gcc"
    assert f"gcc-{there.major}" in there.names
    places = {directory for directory, _ in there.headers}
    assert {"(predefined macros)", "/usr/include"} <= places
    assert found == await probe_guest(guest)
    # The image is made of this system's packages, and this one of them is here, too.
    name = f"gcc-{there.major}"
    here, files = ask_compiler(f"/usr/bin/{name}".encode(), name.encode(), b"/usr/bin:/bin")
    assert "/usr/include/stdio.h" in files
    assert compare(name, here.toolchain, found).level is Level.EXACT
