"""How a guest's object names the root: flags that set the name, and flags that no map covers."""

from __future__ import annotations

import pytest

from hpcc.compilers.clang.family import CLANG
from hpcc.compilers.gnu.family import GNU, GnuFamily
from hpcc.compilers.gnu.invocation import read_invocation
from hpcc.compilers.invocation.guest import GuestMap, NotPortableError
from hpcc.compilers.invocation.invocation import Invocation

ROOT = b"/home/u/p"
FOUND = GuestMap(ROOT, ROOT + b"/b", lambda path: path.startswith(b"/usr/"), ROOT)


def command(flags: str, family: GnuFamily = GNU, major: int = 12, guest: GuestMap = FOUND) -> str:
    compiler = b"clang" if family is CLANG else b"gcc"
    argv = (*flags.encode().split(), b"-c", b"/home/u/p/a.c", b"-o", b"a.o")
    found = read_invocation(compiler, argv)
    assert isinstance(found, Invocation)
    made = family.guest_command(found, guest, (major,), lambda _flags: True)
    assert set(made.injected) <= set(made.arguments)
    return b" ".join(made.arguments).decode()


def test_a_found_root_is_called_by_its_own_path() -> None:
    made = command("-g -I/home/u/p/i")
    assert (
        made == "-g -I/src/i -c /src/a.c -o a.o -ffile-prefix-map=/src=/home/u/p -Werror=date-time"
    )


def test_the_users_own_maps_win() -> None:
    assert command("-g -ffile-prefix-map=/home/u/p=.").startswith("-g -ffile-prefix-map=/src=. -c")
    assert "=/home/u/p" not in command("-g -ffile-prefix-map=/home/u/p=.")
    made = command("-g -fdebug-prefix-map=/home=/h")
    assert made.startswith("-fmacro-prefix-map=/src=/home/u/p -g -fdebug-prefix-map=/src=/h/u/p -c")
    made = command("-fmacro-prefix-map=/home/u/p/=")
    assert made.startswith("-fdebug-prefix-map=/src=/home/u/p -fmacro-prefix-map=/src/= -c")
    made = command("-fmacro-prefix-map=/home/u/p/src=S")
    assert made.startswith("-ffile-prefix-map=/src=/home/u/p -fmacro-prefix-map=/src/src=S -c")
    # A path whose name only begins like the root's is another one.
    assert "-ffile-prefix-map=/home/u/p2=x" in command("-ffile-prefix-map=/home/u/p2=x")
    # The compiler compares texts: /home/u/p is changed by a map for a part of its last name.
    assert "-fdebug-prefix-map=/src=Xp" in command("-fdebug-prefix-map=/home/u/=X")


@pytest.mark.parametrize(
    ("flags", "major"),
    [
        ("--coverage", 12), ("-fprofile-arcs", 12), ("-fprofile-generate", 14), ("-gdwarf-4", 12),
        ("-g", 10), ("-fsanitize=address", 12), ("-flto", 13), ("-ggdb3", 10), ("-g -gdwarf-2", 12),
    ],
)  # fmt: skip
def test_flags_that_write_names_past_the_maps_are_refused_by_name(flags: str, major: int) -> None:
    with pytest.raises(NotPortableError) as error:
        command(flags, major=major)
    assert (error.value.reason, error.value.detail) == (
        "names-in-output",
        flags.rsplit(maxsplit=1)[-1],
    )


@pytest.mark.parametrize("flags", ["-g -gdwarf-5", "-gdwarf-4 -gdwarf-5", "-g0", "-gz"])
def test_flags_that_only_look_like_these_travel(flags: str) -> None:
    assert "-ffile-prefix-map=/src=/home/u/p" in command(flags)


@pytest.mark.parametrize("flags", ["-g -fopenmp", "-flto", "-fdebug-prefix-map=/home/u/p/x=y"])
def test_clang_has_further_ones(flags: str) -> None:
    with pytest.raises(NotPortableError):
        command(flags, CLANG, 19)


def test_a_marker_accepts_all_of_them() -> None:
    marked = GuestMap(ROOT, ROOT + b"/b", FOUND.is_system)
    assert command("-gdwarf-4 -flto", guest=marked).endswith(
        "-ffile-prefix-map=/src=. -Werror=date-time"
    )


def test_a_root_with_an_equals_sign_cannot_be_mapped() -> None:
    odd = GuestMap(ROOT, ROOT, FOUND.is_system, b"/home/u=x/p")
    with pytest.raises(NotPortableError):
        command("-O2", guest=odd)
