"""Builds toolchain images from distribution packages, without a public registry.

mmdebstrap installs the packages into a temporary root and streams it out as one sorted tar with
fixed times. The same package versions give the same bytes, and so the same digest.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import signal
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.core import CallerError, ImageRef, InfrastructureError
from hpcc.images.assembly.apt import kept_options
from hpcc.images.assembly.host import HostSystem
from hpcc.images.assembly.layer_writer import write_zstd_layer
from hpcc.images.base.locks import exclusive_lock
from hpcc.images.oci.layout import NewLayer, OciLayout, blob_directory, write_layout
from hpcc.images.oci.manifest import host_architecture
from hpcc.images.oci.source import Progress
from hpcc.ports import Clock

DEFAULT_PACKAGES: Final = ("gcc", "g++")
# Compiling needs the C library's headers, which gcc only recommends.
_ALWAYS: Final = "libc6-dev"
_PACKAGE: Final = re.compile(r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9]+)?(?:=[A-Za-z0-9.+~:-]+)?")
_SUITE: Final = re.compile(r"[a-z][a-z0-9.-]{1,40}")
_MIRROR: Final = re.compile(r"https?://[^\s'\"\[\]]+")
_ENV: Final = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL=C.UTF-8",
)
_PASSED_ENV: Final = ("http_proxy", "https_proxy", "no_proxy", "TMPDIR", "HOME", "USER")
_MIN_TIMEOUT_SECONDS: Final = 3600.0
_MAX_NOTE_BYTES: Final = 1 << 20
_TERM_SECONDS: Final = 20.0
# Words in messages of mmdebstrap that do not help the person who waits.
_NOISE: Final = ("hook", "tempdir", "skipping", "done")
# Documentation is not needed to compile. Licences must stay.
_DPKG_OPTIONS: Final = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/i18n/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)
_NOTE_PACKAGES: Final = (
    'chroot "$1" dpkg-query -W -f \'${binary:Package}=${Version}\\n\' > "$1/hpcc-packages"'
)
_NOTE_TOOLCHAIN: Final = (
    'for c in gcc g++ clang clang++; do if test -x "$1/usr/bin/$c"; then '
    'printf "%s=%s\\n" "$c" "$(chroot "$1" "$c" -dumpfullversion 2>/dev/null '
    '|| chroot "$1" "$c" -dumpversion)"; '
    'printf "%s.target=%s\\n" "$c" "$(chroot "$1" "$c" -dumpmachine)"; fi; done '
    '> "$1/hpcc-toolchain"'
)
# Removes files that differ between builds, or that describe how this host reaches its mirrors.
_CLEAN: Final = (
    'rm -rf "$1/hpcc-packages" "$1/hpcc-toolchain" "$1"/var/log/* "$1"/var/cache/* '
    '"$1"/var/lib/apt/* "$1"/var/lib/dpkg/*-old "$1/etc/machine-id" "$1/etc/resolv.conf" '
    '"$1/etc/hostname" "$1/etc/apt/apt.conf.d/99mmdebstrap" "$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap" '
    '"$1/etc/apt/sources.list" "$1"/etc/apt/sources.list.d/*'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianRequest:
    """What to build. An empty `suite` is the host's; an empty `mirror` uses the host's sources."""

    packages: tuple[str, ...] = DEFAULT_PACKAGES
    name: str = "localhost/hpcc/debian-gcc"
    suite: str = ""
    mirror: str = ""

    def __post_init__(self) -> None:
        """Check the names, so that none can be read as an option or a shell word.

        Raises:
            CallerError: a package, suite or mirror has another form.
        """
        for package in self.packages:
            if not _PACKAGE.fullmatch(package):
                raise CallerError(f"not a package name: {package[:100]!r}", reason="package-name")
        if self.suite and not _SUITE.fullmatch(self.suite):
            raise CallerError(f"not a suite: {self.suite[:100]!r}", reason="suite-name")
        if self.mirror and not _MIRROR.fullmatch(self.mirror):
            raise CallerError(f"not a mirror: {self.mirror[:200]!r}", reason="mirror-name")

    @staticmethod
    def name_for(packages: tuple[str, ...]) -> str:
        """Return a repository name made from the packages."""
        if set(packages) <= set(DEFAULT_PACKAGES):
            return "localhost/hpcc/debian-gcc"
        plain = sorted({re.sub(r"[:=].*", "", name) for name in packages})
        words = re.sub(r"[^a-z0-9]+", "-", "-".join(plain).replace("+", "x")).strip("-")
        return f"localhost/hpcc/debian-{words}"[:200].rstrip("-")

    def label(self, suite: str) -> str:
        """Return the request as one canonical line, by which an image is found again."""
        packages = sorted({*self.packages, _ALWAYS})
        return f"suite={suite} mirror={self.mirror or 'host'} packages={','.join(packages)}"


async def build_debian(
    request: DebianRequest,
    layouts: Path,
    *,
    host: HostSystem,
    clock: Clock,
    progress: Progress,
) -> tuple[ImageRef, OciLayout]:
    """Build an image and store its layout as a directory, named by digest, in `layouts`.

    Builds of one user wait for each other. A cancel or an error leaves no files.

    Raises:
        CallerError: a tool, a package or the right to build is missing; the text tells how to get
            it.
        InfrastructureError: mmdebstrap failed; the text has its last error messages.
    """
    suite = request.suite or host.suite
    if not suite:
        raise CallerError(
            "this system does not report its release: name one with --suite", reason="suite-name"
        )
    tool = host.which("mmdebstrap")
    if tool is None:
        raise CallerError(
            "mmdebstrap is missing: sudo apt-get install mmdebstrap", reason="missing-tool"
        )
    mode = host.mode()
    async with exclusive_lock(layouts / "build.lock", clock):
        work = await asyncio.to_thread(_new_work, layouts)
        try:
            build = _Build(request, suite=suite, host=host, work=work)
            return await build.run(tool, mode, layouts, progress)
        except OSError as error:
            raise InfrastructureError(
                f"cannot write to {layouts}: {error.strerror}", reason="disk"
            ) from error
        finally:
            await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)


def _new_work(layouts: Path) -> Path:
    """Create a directory for one build, and delete those of killed builds.

    The caller holds the build lock.
    """
    for leftover in layouts.glob("new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix="new-", dir=layouts))


class _Build:
    def __init__(self, request: DebianRequest, *, suite: str, host: HostSystem, work: Path) -> None:
        self._request, self._suite, self._host, self._work = request, suite, host, work
        self._temporary: Path | None = None

    async def run(
        self, tool: str, mode: str, layouts: Path, progress: Progress
    ) -> tuple[ImageRef, OciLayout]:
        (self._work / "apt.conf").write_text(await self._apt_options(), encoding="utf-8")
        layout = self._work / "layout"
        guard = await self._guard(mode)
        layer = await self._stream([*guard, tool, *self._arguments(mode)], layout, progress)
        digest = write_layout(
            layout,
            name=self._request.name,
            architecture=host_architecture(),
            layers=(layer,),
            env=_ENV,
            labels={
                "io.hpcc.toolchain": self._note("toolchain"),
                "io.hpcc.packages": self._note("packages"),
                "io.hpcc.request": self._request.label(self._suite),
            },
        )
        target = layouts / digest.hex
        if not target.exists():
            layout.rename(target)
        return ImageRef(self._request.name, digest), OciLayout(target)

    async def _guard(self, mode: str) -> list[str]:
        """Return a command prefix that ends mmdebstrap's processes and mounts with this process.

        As root, mmdebstrap mounts into its new root, and a kill would leave those mounts on the
        host. So it runs in separate mount and process namespaces, with a temporary directory that
        the build deletes. The other modes create such namespaces themselves, or mount nothing.
        """
        setpriv, unshare = self._host.which("setpriv"), self._host.which("unshare")
        guard = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
        if mode != "root" or unshare is None:
            return guard
        guard += [unshare, "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        # A container may lack the right to unshare. Then mmdebstrap cannot mount either.
        process = await asyncio.create_subprocess_exec(
            *guard, "true", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        if await process.wait() != 0:
            return guard[:3] if setpriv else []
        self._temporary = self._work / "root"
        self._temporary.mkdir()
        return guard

    def _arguments(self, mode: str) -> list[str]:
        request, notes = self._request, self._work
        arguments = [
            f"--mode={mode}",
            "--variant=essential",
            "--format=tar",
            # That step would recreate directories whose owner depends on the host. _CLEAN cleans.
            "--skip=cleanup/apt",
            f"--include={','.join(sorted({*request.packages, _ALWAYS}))}",
            f"--aptopt={notes / 'apt.conf'}",
            *(f"--dpkgopt={option}" for option in _DPKG_OPTIONS),
        ]
        hooks = (
            _NOTE_PACKAGES,
            _NOTE_TOOLCHAIN,
            f"download /hpcc-packages {shlex.quote(str(notes / 'packages'))}",
            f"download /hpcc-toolchain {shlex.quote(str(notes / 'toolchain'))}",
            _CLEAN,
        )
        arguments += [f"--customize-hook={hook}" for hook in hooks]
        arguments += [self._suite, "-"]
        if request.mirror:
            return [*arguments, f"deb {request.mirror} {self._suite} main"]
        sources = self._host.sources(self._suite)
        if sources:
            path = notes / "hpcc.sources"
            path.write_text("\n".join(s.to_deb822() for s in sources), encoding="utf-8")
            arguments.append(str(path))
        return arguments

    async def _apt_options(self) -> str:
        """Return apt options for mmdebstrap, with the host's settings for mirrors and proxies."""
        options = 'APT::Install-Recommends "false";\nAcquire::Languages "none";\n'
        apt_config = self._host.which("apt-config")
        if apt_config is None:
            return options
        process = await asyncio.create_subprocess_exec(
            apt_config, "dump", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(30):
            dump, _ = await process.communicate()
        return options + kept_options(dump.decode("utf-8", "replace"))

    async def _stream(self, argv: list[str], layout: Path, progress: Progress) -> NewLayer:
        """Run mmdebstrap and stream its tar into the compressed layer."""
        progress("starting mmdebstrap", 0, 0)
        read_fd, write_fd = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_fd,
                stderr=asyncio.subprocess.PIPE,
                env=self._environment(),
                start_new_session=True,
            )
        except BaseException:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
        assert process.stderr is not None
        complaints: list[str] = []
        try:
            async with asyncio.timeout(_MIN_TIMEOUT_SECONDS), asyncio.TaskGroup() as group:
                writing = group.create_task(
                    asyncio.to_thread(write_zstd_layer, read_fd, blob_directory(layout), progress)
                )
                async for line in process.stderr:
                    _report(line.decode("utf-8", "replace").strip(), complaints, progress)
                status = await process.wait()
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        except TimeoutError as error:
            raise InfrastructureError("mmdebstrap took too long", reason="timeout") from error
        finally:
            await _end(process)
        if status != 0:
            raise _failed(status, complaints)
        return writing.result()

    def _environment(self) -> dict[str, str]:
        passed = {
            k: v for k, v in self._host.env.items() if k.lower() in _PASSED_ENV or k in _PASSED_ENV
        }
        path = f"{self._host.env.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"
        fixed = {"PATH": path, "LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": "0"}
        if self._temporary is not None:
            fixed["TMPDIR"] = str(self._temporary)
        return {**passed, **fixed}

    def _note(self, name: str) -> str:
        """Return what a hook wrote about the image, sorted and bounded: the image is hostile."""
        with (self._work / name).open("rb") as file:
            text = file.read(_MAX_NOTE_BYTES).decode("utf-8", "replace")
        return "\n".join(sorted(text.split()))


def _report(line: str, complaints: list[str], progress: Progress) -> None:
    kind, _, text = line.partition(": ")
    if kind in {"E", "W", "Err"} or "Unable to locate package" in line:
        complaints.append(line[:300])
        del complaints[:-20]
    elif kind == "I" and text and not any(word in text for word in _NOISE):
        progress(text.rstrip(".")[:80], 0, 0)


def _failed(status: int, complaints: list[str]) -> Exception:
    unknown = [line for line in complaints if "Unable to locate package" in line]
    if unknown:
        return CallerError(f"{unknown[0].removeprefix('E: ')}", reason="package-name")
    last = "; ".join(c for c in complaints if c.startswith("E"))[:600] or "no message"
    return InfrastructureError(f"mmdebstrap failed ({status}): {last}", reason="mmdebstrap-failed")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Give mmdebstrap time to undo its mounts and directories, then kill it."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(_TERM_SECONDS):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
