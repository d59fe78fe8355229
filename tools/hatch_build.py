"""Builds the C parts of the wheel: the launcher, as the program `hpcc` beside `hpcc-cli`, and the
library of the daemon's hit path, beside the package.

With HPCC_TARGET=win_amd64 it builds the wheel for Windows: hpcc.exe and hpcc-service.exe, and
hpcc-agent.exe beside its source, all cross-built. That wheel has no library, which answers hits
over Unix sockets: on Windows hpcc.exe answers them itself.

`python tools/hatch_build.py OUTPUT` builds only the launcher.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # the program does not need hatchling
    BuildHookInterface = object  # type: ignore[assignment, misc]  # stands in for the base class only

ROOT = Path(__file__).resolve().parent.parent
COMMON = ["-std=c11", "-O2", "-s", "-D_GNU_SOURCE", "-Wall", "-Wextra"]
LIBRARY = "_hpcc_native.so"
# Fewer segments and pages for the kernel to map: each costs as much as several system calls, once
# per compile. Nothing makes the relocation segment of a static program read-only anyway.
STATIC = ["-Wl,-z,noseparate-code", "-Wl,-z,norelro", "-Wl,--build-id=none"]
# Tried in this order: a small static program starts five times as fast as a dynamic one.
CHOICES = [["musl-gcc", "-static"], ["cc", "-static"], ["gcc", "-static"], ["cc"], ["gcc"]]

TARGET_VARIABLE = "HPCC_TARGET"
WINDOWS_TARGET = "win_amd64"
AGENT_SOURCE = "guest/hpcc_agent.c"
# The wheel contains their sources, because they are built on the machine that runs guests.
GUEST_PROGRAMS = ("init.c", "hpcc_agent.c")
WINDOWS_COMPILER = "x86_64-w64-mingw32-gcc"
WINDOWS_RESOURCES = "x86_64-w64-mingw32-windres"
WINDOWS_FLAGS = [*COMMON[:3], *COMMON[4:], "-Werror", "-Wl,--no-insert-timestamp"]


def _constant(path: Path, pattern: str) -> str:
    found = re.search(pattern, path.read_text(), re.MULTILINE)
    if not found:
        raise SystemExit(f"{path.name}: nothing matches {pattern}")
    return found[1]


def definitions(root: Path, build_id: str = "") -> list[str]:
    """Return the definitions that tie the launcher to its daemon, from the daemon's sources."""
    version = _constant(root / "src/hpcc/__init__.py", r'^__version__: Final = "([^"]+)"')
    protocol = _constant(root / "src/hpcc/wire/launcher.py", r"^PROTOCOL_VERSION: Final = (\d+)$")
    build_id = build_id or f"{version}-{protocol}"
    return [f'-DHPCC_BUILD_ID="{build_id}"', f"-DHPCC_PROTOCOL={protocol}"]


def build_launcher(
    root: Path, output: Path, *, build_id: str = "", flags: tuple[str, ...] = ()
) -> str:
    """Compile launcher/hpcc.c; return the compiler that succeeded."""
    problems = []
    for choice in CHOICES:
        if not shutil.which(choice[0]):
            continue
        command = [
            *choice,
            *COMMON,
            *(STATIC if "-static" in choice else []),
            *flags,
            *definitions(root, build_id),
            str(root / "launcher/hpcc.c"),
            "-o",
            str(output),
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode == 0:
            output.chmod(0o755)
            if "-static" not in choice:
                print(
                    "hpcc: no static C library: the launcher is dynamic and starts slower",
                    file=sys.stderr,
                )
            return " ".join(choice)
        problems.append(f"{' '.join(choice)}: {result.stderr.strip()[-2000:]}")
    raise SystemExit(
        "hpcc needs a C compiler for its launcher: apt-get install gcc libc6-dev musl-tools\n"
        + "\n".join(problems)
    )


def build_windows(
    source: Path, output: Path, *flags: str, libraries: tuple[str, ...], resources: str = ""
) -> None:
    """Cross-build one C file; the same source always gives the same bytes.

    `resources` are those of `build_resources`; "": none.
    """
    parts = [*flags, str(source), *([resources] if resources else [])]
    command = [WINDOWS_COMPILER, *WINDOWS_FLAGS, *parts, "-o", str(output), *libraries]
    _run_mingw(command, source)


def build_resources(root: Path, name: str, output: Path) -> None:
    """Compile launcher/hpcc.rc, the manifest and the version of a program of this name."""
    source = root / "launcher/hpcc.rc"
    version = _constant(root / "src/hpcc/__init__.py", r'^__version__: Final = "([^"]+)"')
    numbers = [*re.findall(r"[0-9]+", version)[:3], "0", "0", "0"][:4]
    command = [
        WINDOWS_RESOURCES,
        *("-I", str(source.parent), "-O", "coff"),
        f"-DHPCC_NUMBERS={','.join(numbers)}",
        *(f'-DHPCC_VERSION=\\"{version}\\"', f'-DHPCC_NAME=\\"{name}\\"'),
        *(str(source), str(output)),
    ]
    _run_mingw(command, source)


def _run_mingw(command: list[str], source: Path) -> None:
    if not shutil.which(command[0]):
        raise SystemExit("hpcc.exe needs mingw-w64: apt-get install gcc-mingw-w64-x86-64-posix")
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SystemExit(f"hpcc cannot build {source.name}\n{result.stderr.strip()[-2000:]}")


def build_windows_launcher(root: Path, output: Path, *, flags: tuple[str, ...] = ()) -> None:
    """Compile launcher/hpcc_win.c with mingw-w64."""
    all_flags = (*flags, *definitions(root))
    source = root / "launcher/hpcc_win.c"
    libraries = ("-lshell32", "-ladvapi32")
    with tempfile.TemporaryDirectory(prefix="hpcc-resources-") as directory:
        resources = Path(directory, "hpcc.res.o")
        build_resources(root, "hpcc.exe", resources)
        build_windows(source, output, *all_flags, libraries=libraries, resources=str(resources))


def build_windows_service(root: Path, output: Path, *, flags: tuple[str, ...] = ()) -> None:
    """Compile launcher/hpcc_service.c with mingw-w64."""
    source = root / "launcher/hpcc_service.c"
    all_flags = ("-municode", *flags)
    with tempfile.TemporaryDirectory(prefix="hpcc-resources-") as directory:
        resources = Path(directory, "hpcc-service.res.o")
        build_resources(root, "hpcc-service.exe", resources)
        build_windows(
            source, output, *all_flags, libraries=("-ladvapi32",), resources=str(resources)
        )


def build_windows_cli(root: Path, output: Path) -> None:
    """Compile launcher/hpcc_cli.c with mingw-w64."""
    with tempfile.TemporaryDirectory(prefix="hpcc-resources-") as directory:
        resources = Path(directory, "hpcc-cli.res.o")
        build_resources(root, "hpcc-cli.exe", resources)
        source = root / "launcher/hpcc_cli.c"
        build_windows(source, output, "-municode", libraries=(), resources=str(resources))


def build_windows_agent(root: Path, output: Path) -> None:
    """Compile the first process of a Windows guest with mingw-w64."""
    build_windows(root / AGENT_SOURCE, output, libraries=("-lshell32",))


def build_native(root: Path, output: Path, *, flags: tuple[str, ...] = ()) -> None:
    """Compile native/replay.c to a shared library."""
    source = str(root / "native/replay.c")
    shared = ["-shared", "-fPIC", "-fvisibility=hidden"]
    problems = []
    for compiler in ("cc", "gcc"):
        if not shutil.which(compiler):
            continue
        command = [compiler, *COMMON, *shared, *flags, source, "-o", str(output)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode == 0:
            return
        problems.append(f"{compiler}: {result.stderr.strip()[-2000:]}")
    raise SystemExit("hpcc cannot build native/replay.c\n" + "\n".join(problems))


class CustomBuildHook(BuildHookInterface):  # type: ignore[misc, type-arg]  # see the import
    """Ships the launcher through shared_scripts: wheels and editable installs alike.

    The library is found by its module name, in both kinds of install (cache/replay/native.py).
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="hpcc-launcher-")
        target = os.environ.get(TARGET_VARIABLE, "")
        if target not in {"", WINDOWS_TARGET} or (target and version == "editable"):
            raise SystemExit(
                f"{TARGET_VARIABLE}={target}: only {WINDOWS_TARGET}, and only as a wheel"
            )
        if target:
            self._add_windows(build_data)
        else:
            self._add_native(version, build_data)
        build_data["pure_python"] = False
        # The tag names no Python version, because the compiled parts do not link with Python.
        platform = target or sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"

    def _add_windows(self, build_data: dict[str, Any]) -> None:
        launcher = Path(self._directory.name, "hpcc.exe")
        build_windows_launcher(Path(self.root), launcher)
        build_data["shared_scripts"][str(launcher)] = launcher.name
        service = Path(self._directory.name, "hpcc-service.exe")
        build_windows_service(Path(self.root), service)
        build_data["shared_scripts"][str(service)] = service.name
        agent = Path(self._directory.name, "hpcc-agent.exe")
        build_windows_agent(Path(self.root), agent)
        build_data["force_include"][str(agent)] = f"hpcc/runtime/_guest/{agent.name}"
        for name in GUEST_PROGRAMS:
            build_data["force_include"][str(Path(self.root, "guest", name))] = (
                f"hpcc/runtime/_guest/{name}"
            )

    def _add_native(self, version: str, build_data: dict[str, Any]) -> None:
        output = Path(self._directory.name, "hpcc")
        build_launcher(Path(self.root), output)
        build_data["shared_scripts"][str(output)] = "hpcc"
        library = Path(self._directory.name, LIBRARY)
        build_native(Path(self.root), library)
        if version != "editable":
            # In a source tree, also an editable install, the product finds them in guest/.
            for name in GUEST_PROGRAMS:
                build_data["force_include"][str(Path(self.root, "guest", name))] = (
                    f"hpcc/runtime/_guest/{name}"
                )
        kind = "force_include_editable" if version == "editable" else "force_include"
        build_data[kind][str(library)] = LIBRARY

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self._directory.cleanup()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    build_launcher(ROOT, Path(sys.argv[1]))
