"""A compiler's search path is asked once for all directories that cannot change it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hpcc.cache.base import tools
from hpcc.cache.base.files import FileMemo
from hpcc.cache.host.compiler_probe import CompilerProbe, Identity
from hpcc.cache.host.driver_answers import may_name_relative
from hpcc.cache.host.identity import Compilers
from hpcc.cache.replay.engine import open_engine
from hpcc.compilers.gnu.invocation import read_invocation
from hpcc.compilers.spec.table import Bypass


@pytest.mark.parametrize(
    "arguments",
    [
        (), (b"-m32", b"-nostdinc"), (b"-nostdinc++", b"-mcmodel=kernel"), (b"-B/opt/x/",),
        (b"-isysroot", b"/sdk"), (b"--sysroot=/sdk",), (b"--target=arm-none-eabi",),
        (b"-stdlib=libc++",), (b"-no-canonical-prefixes",),
    ],
)  # fmt: skip
def test_arguments_without_relative_names_mean_the_same_anywhere(
    arguments: tuple[bytes, ...],
) -> None:
    assert not may_name_relative(arguments, (None, b"/a:/b"))


@pytest.mark.parametrize(
    ("arguments", "lists"),
    [
        ((b"-Bx",), ()), ((b"-B", b"x"), ()), ((b"--sysroot=x",), ()), ((b"--sysroot", b"x"), ()),
        ((b"-isysroot", b"../sdk"), ()), ((b"-isysrootx",), ()), ((b"-specs=x",), ()),
        ((b"--specs=/a",), ()), ((b"-mmcu=avr5",), ()), ((b"-B../x",), ()), ((b"-B.\n/x",), ()),
        ((), (b"",)), ((), (b"/a:",)), ((), (b"/a;b",)), ((), (b"a",)), ((), (None, b"/a::/b")),
    ],
)  # fmt: skip
def test_relative_names_and_doubtful_arguments_are_asked_in_each_directory(
    arguments: tuple[bytes, ...], lists: tuple[bytes | None, ...]
) -> None:
    assert may_name_relative(arguments, lists)


class _Asker:
    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.compiler = os.fsencode(os.path.realpath(shutil.which("gcc") or "/usr/bin/gcc"))
        self.compilers = Compilers(FileMemo(lambda: 1 << 62), open_engine())
        self.env: dict[bytes, bytes] = {b"PATH": b"/usr/bin:/bin"}
        found = self.compilers.identify(self.compiler, self.env, lambda: False)
        assert isinstance(found, Identity)
        self.identity = found
        self.directories = [os.fsencode(tmp_path / name) for name in ("one", "two")]
        for directory in self.directories:
            os.mkdir(directory)
        self.asked = 0
        ask = tools.ask

        def counted(argv: list[bytes], *, env: Mapping[bytes, bytes], cwd: bytes) -> Any:
            self.asked += 1
            return ask(argv, env=env, cwd=cwd)

        monkeypatch.setattr("hpcc.cache.host.search_path.ask", counted)

    def paths(self, *arguments: bytes) -> list[tuple[bytes, ...]]:
        invocation = read_invocation(self.compiler, (*arguments, b"-c", b"a.c"))
        assert not isinstance(invocation, Bypass)
        return [
            self.compilers.search_path(
                self.identity, self.identity.family, self.compiler, invocation, self.env, directory
            )
            for directory in self.directories
        ]


@pytest.fixture
def asker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Asker:
    return _Asker(tmp_path, monkeypatch)


def test_two_directories_are_one_question(asker: _Asker) -> None:
    first, second = asker.paths(b"-O2", b"-Isub")
    assert first == second
    assert asker.asked == 1


def test_a_relative_argument_is_one_question_for_each_directory(asker: _Asker) -> None:
    asker.paths(b"--sysroot=sdk")
    assert asker.asked == 2


@pytest.mark.parametrize(
    ("name", "value"), [(b"CPATH", b"/none:"), (b"LIBRARY_PATH", b"."), (b"LIBRARY_PATH", b"")]
)
def test_a_relative_variable_is_one_question_for_each_directory(
    name: bytes, value: bytes, asker: _Asker
) -> None:
    asker.env[name] = value
    asker.paths()
    assert asker.asked == 2


def test_many_compiles_at_once_ask_once(asker: _Asker) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: asker.paths(b"-O2"), range(8)))
    assert len({paths for pair in found for paths in pair}) == 1
    assert asker.asked == 1


def test_many_compiles_at_once_identify_a_compiler_once(
    asker: _Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed = 0
    probe = CompilerProbe.probe

    def counted(self: CompilerProbe) -> object:
        nonlocal probed
        probed += 1
        return probe(self)

    monkeypatch.setattr(CompilerProbe, "probe", counted)
    env = {**asker.env, b"LANG": b"C", b"LD_LIBRARY_PATH": b"/none"}
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(
                lambda _: asker.compilers.identify(asker.compiler, env, lambda: False), range(8)
            )
        )
    assert probed == 1
    assert all(identity is found[0] for identity in found)
