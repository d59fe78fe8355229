"""clang-cl for a guest on Linux: its arguments, its environment, and what makes objects equal.

Which flags are added follows the image's compiler where the farm has said what that is, else this
machine's. One of the same version is asked first: a flag that it does not take in silence is left
out.
"""

from __future__ import annotations

import os
import posixpath
import tempfile
from collections.abc import Mapping, Sequence
from typing import Final

from hpcc.cache.base.tools import ask
from hpcc.cache.base.uncacheable import absolute
from hpcc.cache.host import msvc
from hpcc.cache.key.prepare import Prepared
from hpcc.compilers.invocation.guest import GUEST_ROOT, GuestMap, NotPortableError, guest_text
from hpcc.compilers.msvc.clang_cl_guest import INJECTED_CL, clang_cl_guest_arguments, client_notes
from hpcc.compilers.msvc.invocation import CL_DRIVER_MODE
from hpcc.compilers.msvc.repro import reproducible_flags
from hpcc.core import Toolchain

_MAX_REMEMBERED: Final = 256
# Search paths, which a guest can have. All else that Visual Studio's prompts set leads to
# installations of this machine (LLVM's MSVCPaths.cpp).
_PATHS: Final = (b"INCLUDE", b"EXTERNAL_INCLUDE")
_HARMLESS: Final = frozenset({b"CL", b"_CL_", b"LIB", b"LIBPATH", b"VSLANG", *_PATHS})
_ELSEWHERE: Final = msvc.MSVC_ENV - _HARMLESS


class ClangCl:
    """Turns compiles into a guest's. Thread-safe: the worst of a race is double work."""

    def __init__(self) -> None:
        self._accepted: dict[tuple[bytes, tuple[bytes, ...]], bool] = {}

    def arguments(
        self, prepared: Prepared, guest: GuestMap, image: Sequence[Toolchain] | None
    ) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """Return what follows the program's name, and which of it was added.

        Raises:
            NotPortableError: the image has no such compiler, or see `clang_cl_guest_arguments`.
        """
        version = msvc.image_version(prepared.request, image)
        host = (prepared.identity.major,)
        is_same = version is None or version[:1] == host

        def accepts(flags: tuple[bytes, ...]) -> bool:
            return not is_same or self._accepts(prepared, flags)

        flags = reproducible_flags(
            prepared.invocation, version or host, GUEST_ROOT, is_clang=True, accepts=accepts
        )
        injected = (*flags, *INJECTED_CL)
        return clang_cl_guest_arguments(prepared.invocation, guest, injected), injected

    def _accepts(self, prepared: Prepared, flags: tuple[bytes, ...]) -> bool:
        key = (prepared.identity.digest, flags)
        known = self._accepted.get(key)
        if known is None:
            known = takes_in_silence(prepared.request.compiler, prepared.request.env, flags)
            if len(self._accepted) >= _MAX_REMEMBERED:
                self._accepted.clear()
            self._accepted[key] = known
        return known


def takes_in_silence(compiler: bytes, env: Mapping[bytes, bytes], flags: tuple[bytes, ...]) -> bool:
    """Compile an empty file with debug information and these flags: is there any complaint?"""
    with tempfile.TemporaryDirectory(prefix="hpcc-cl-") as name:
        directory = os.fsencode(name)
        source = posixpath.join(directory, b"empty.c")
        mode = (CL_DRIVER_MODE, b"-c", b"-Z7", b"-Foempty.obj")
        try:
            with open(source, "wb"):
                pass
            argv = [compiler, *mode, *flags, b"--", b"empty.c"]
            answer = ask(argv, env=msvc.own_environment(env), cwd=directory)
        except OSError:
            return False
    return answer.exit_code == 0 and not (answer.stdout or answer.stderr)


def check_environment(env: Mapping[bytes, bytes]) -> None:
    """Refuse variables that lead to an installation of this machine.

    Raises:
        NotPortableError: there is one.
    """
    if not _ELSEWHERE.isdisjoint(env):
        raise NotPortableError("environment")


def guest_environment(env: Mapping[bytes, bytes], guest: GuestMap) -> dict[bytes, bytes]:
    """Return INCLUDE and EXTERNAL_INCLUDE as the guest must spell them.

    Raises:
        NotPortableError: a directory there is none of the project or the system.
    """
    return {
        name: b";".join(guest.spell_directory(d) for d in env[name].split(b";") if d)
        for name in _PATHS
        if env.get(name)
    }


def search_variables(prepared: Prepared) -> tuple[bytes, ...]:
    """Return what a key must hold beside the arguments; nothing for gcc and clang."""
    if not msvc.is_of(prepared.invocation):
        return ()
    return tuple(prepared.request.env.get(name, b"") for name in _PATHS)


def environment_directories(prepared: Prepared) -> tuple[bytes, ...]:
    """Return the directories that search variables name."""
    values = search_variables(prepared)
    return tuple(d for value in values for d in value.split(b";") if d)


def client_stdout(prepared: Prepared, text: bytes, root: bytes) -> bytes:
    """Return a guest's stdout as this machine's own compile would write it."""
    shown = guest_text(text, root)
    if not msvc.separates_streams(prepared.invocation):
        return shown
    own = root.rstrip(b"/") + b"/"

    def is_here(name: bytes) -> bool:
        is_own = not name.startswith(b"/") or name.startswith(own)
        return is_own or os.path.exists(absolute(prepared.cwd, name))

    return client_notes(shown, is_here)
