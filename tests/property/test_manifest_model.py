"""The direct manifest against a slow model, on a real tree that changes in every way.

The test injects time: `wait` makes all files old at once. It also waits for one tick of the file
system's clock, because a real daemon would see different times before and after a real wait.
Compiles that follow an edit at once begin at the kernel's stamp clock, as in the daemon.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hpcc.cache.base.counters import Counters
from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.stamps import CompileStart, take_start
from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.inputs.closure import find_closure
from hpcc.cache.inputs.closure_types import ClosureRequest
from hpcc.cache.results.results import Result, Results
from hpcc.store.private import PrivateStore
from hpcc_testkit.cache.clocks import TrustedClock
from hpcc_testkit.cache.include_model import (
    KINDS,
    Compiled,
    FailedError,
    Item,
    Preprocessor,
    UnknownError,
    render,
)
from hpcc_testkit.suite.examples import profile_name

_CLOCK = TrustedClock()
_KEY = b"k" * 32
_SOURCE = "src/main.c"
_SEARCH = ("one", "late", "two", "two/deep")
_DIRECTORIES = ("src", "one", "one/sub", "two", "two/deep", "two/sub", "late")
_NAMES = ("a.h", "b.h", "sub/c.h", "deep/a.h")
_TICK_SECONDS = 0.012
_QUIET_NS, _SHORT_NS = 3_000_000_000, 100_000_000
# A manifest keeps eight sets.
_SURE = 4

_ITEMS = st.builds(
    Item, st.sampled_from(KINDS), st.sampled_from(_NAMES), st.integers(min_value=0, max_value=2)
)
_CONTENTS = st.lists(_ITEMS, max_size=4).map(render)
_PLACES = st.builds(
    "{}/{}".format, st.sampled_from(_DIRECTORIES), st.sampled_from(("a.h", "b.h", "c.h"))
)
_FOLDERS = st.sampled_from(_DIRECTORIES[1:])

SEEN: Counter[str] = Counter()
"""What was met over all examples, so that a run in which nothing is ever stored cannot pass."""


class ManifestMachine(RuleBasedStateMachine):
    """Edits a tree and compiles; what the cache answers is compared with the model's result."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = Path(tempfile.mkdtemp(prefix="hpcc-model-"))
        self.root, self._saved = self._directory / "work", self._directory / "saved"
        self._ahead_ns = 0
        self._stored: list[object] = []
        self._start()

    def _start(self) -> None:
        """Rebuild the daemon's memory from its files on disk."""
        self._memo = FileMemo(self._now_ns)
        counters = Counters(str(self._directory / "counters.json"), now=lambda: 0.0)
        counters.close()
        store = PrivateStore(
            str(self._directory / "store"),
            max_size_bytes=1 << 30,
            max_entry_bytes=1 << 20,
            now=lambda: 0.0,
        )
        self._results = Results(store, self._memo, counters)

    def _now_ns(self) -> int:
        return time.time_ns() + self._ahead_ns

    def teardown(self) -> None:
        shutil.rmtree(self._directory)

    # ---- time ----

    @initialize(source=_CONTENTS, first=_CONTENTS, second=_CONTENTS)
    def begin(self, source: str, first: str, second: str) -> None:
        """Give every name a file somewhere, so that most compiles succeed."""
        for name in _DIRECTORIES[:-1]:
            (self.root / name).mkdir(parents=True, exist_ok=True)
        for name in _NAMES:
            (self.root / "two" / name).write_text("int v0;\n")
        (self.root / _SOURCE).write_text(source)
        (self.root / "one/a.h").write_text(first)
        (self.root / "two/b.h").write_text(second)

    @rule()
    def restart(self) -> None:
        self._start()

    @rule()
    def remember(self) -> None:
        if self._saved.exists():
            shutil.rmtree(self._saved)
        shutil.copytree(self.root, self._saved, symlinks=True)

    @precondition(lambda self: self._saved.exists())
    @rule(with_times=st.booleans())
    def go_back(self, with_times: bool) -> None:
        """Restore an earlier state, with new inodes."""
        with self._edit():
            shutil.rmtree(self.root)
            copy = shutil.copy2 if with_times else shutil.copyfile
            shutil.copytree(self._saved, self.root, symlinks=True, copy_function=copy)

    # ---- edits ----

    @contextlib.contextmanager
    def _edit(self) -> Iterator[None]:
        self._ahead_ns = 0
        # Skips an edit that the present tree does not allow (a directory in the way, a missing name).
        with contextlib.suppress(OSError):
            yield

    @rule(place=_PLACES, content=_CONTENTS)
    def write(self, place: str, content: str) -> None:
        with self._edit():
            (self.root / place).write_text(content)

    @rule(content=_CONTENTS)
    def write_source(self, content: str) -> None:
        with self._edit():
            (self.root / _SOURCE).write_text(content)

    @rule(place=_PLACES | st.just(_SOURCE), number=st.integers(0, 2))
    def change_quietly(self, place: str, number: int) -> None:
        """Change a file but keep inode, size and modification time."""
        path = self.root / place
        with self._edit():
            before, text = path.stat(), path.read_text()
            for old in range(3):
                text = text.replace(f"int v{old};", f"int v{number};")
            path.write_text(text)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    @rule(place=_PLACES, content=_CONTENTS)
    def replace(self, place: str, content: str) -> None:
        """Save as editors do: a new file with the old one's times takes the name."""
        path, aside = self.root / place, self.root / "aside"
        with self._edit():
            aside.write_text(content)
            if path.exists():
                os.utime(aside, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
            aside.replace(path)
        aside.unlink(missing_ok=True)

    @rule(place=_PLACES)
    def touch(self, place: str) -> None:
        with self._edit():
            os.utime(self.root / place)

    @rule(place=_PLACES)
    def delete(self, place: str) -> None:
        with self._edit():
            (self.root / place).unlink()

    @rule(old=_PLACES, new=_PLACES)
    def rename(self, old: str, new: str) -> None:
        with self._edit():
            (self.root / old).replace(self.root / new)

    @rule(place=_PLACES, leads_to=_PLACES)
    def link(self, place: str, leads_to: str) -> None:
        """Make a link, which may dangle or loop."""
        with self._edit():
            (self.root / place).symlink_to(self.root / leads_to)

    @rule(folder=_FOLDERS)
    def make_directory(self, folder: str) -> None:
        with self._edit():
            (self.root / folder).mkdir()

    @rule(place=_PLACES)
    def make_directory_in_place_of_a_header(self, place: str) -> None:
        with self._edit():
            (self.root / place).mkdir()

    @rule(folder=_FOLDERS)
    def remove_directory(self, folder: str) -> None:
        with self._edit():
            path = self.root / folder
            path.unlink() if path.is_symlink() else shutil.rmtree(path)

    @rule(folder=_FOLDERS, leads_to=_FOLDERS)
    def link_directory(self, folder: str, leads_to: str) -> None:
        with self._edit():
            (self.root / folder).symlink_to(self.root / leads_to)

    @rule(one=_FOLDERS, other=_FOLDERS)
    def exchange_directories(self, one: str, other: str) -> None:
        aside = self.root / "aside"
        with self._edit():
            (self.root / one).rename(aside)
            try:
                (self.root / other).rename(self.root / one)
            except OSError:
                aside.rename(self.root / one)
                raise
            aside.rename(self.root / other)

    @rule(place=_PLACES)
    def toggle_precompiled_header(self, place: str) -> None:
        path = self.root / f"{place}.gch"
        with self._edit():
            path.unlink() if path.exists() else path.write_text("")

    # ---- compiles ----

    @rule(asks_gcc=st.integers(0, 2).map(lambda n: n == 0))
    def compile_when_all_is_old(self, asks_gcc: bool) -> None:
        time.sleep(_TICK_SECONDS)
        self._ahead_ns = _QUIET_NS
        expected = self._model()
        if asks_gcc and not isinstance(expected, UnknownError):
            self._compare_with_gcc(expected)
        self._look_up(expected)

    @rule(times=st.integers(1, 2))
    def compile_soon_after(self, times: int) -> None:
        """Compile when files are old enough to be stored but too new for a memory of their stat."""
        if self._ahead_ns == 0:
            self._ahead_ns = _SHORT_NS
        for _ in range(times):
            self._look_up(self._model())

    @rule()
    def compile_at_once(self) -> None:
        self._look_up(self._model())

    @rule(content=_CONTENTS, place=_PLACES | st.just(_SOURCE))
    def edit_during_a_compile(self, content: str, place: str) -> None:
        """Rewrite a file after the compile has read it and before the compile ends."""
        self._ahead_ns = 0
        before, started_ns = self._model(), self._begin_now()
        with self._edit():
            (self.root / place).write_text(content)
        if isinstance(before, Compiled):
            self._keep(before, started_ns)
        # Whatever was kept, it must not answer for the tree as it is now.
        self._look_up(self._model())

    @invariant()
    def nothing_of_the_tree_is_touched(self) -> None:
        assert not (self.root / "aside").exists()

    def _begin_now(self) -> CompileStart:
        directories = (self.root, *(self.root / name for name in _DIRECTORIES))
        source = os.fsencode(self.root / _SOURCE)
        return take_start(_CLOCK, map(os.fsencode, directories), (source,))

    def _model(self) -> Compiled | Exception:
        try:
            return Preprocessor(self.root, _SEARCH).run(_SOURCE)
        except (FailedError, UnknownError) as error:
            return error

    def _look_up(self, expected: Compiled | Exception) -> None:
        state = self._state()
        found = self._results.find(_KEY)
        if found is not None:
            SEEN["hit"] += 1
            assert isinstance(expected, Compiled), f"a hit where the compile ends in {expected!r}"
            result = found.result
            assert result.object_data.decode().splitlines() == expected.output
            return
        assert state not in self._stored[:_SURE], (
            "a state that was stored came back, and was no hit"
        )
        SEEN["miss"] += 1
        started_ns = self._now_ns() if self._ahead_ns else self._begin_now()
        if isinstance(expected, Compiled) and self._keep(expected, started_ns):
            SEEN["stored at once"] += not self._ahead_ns
            self._stored = [state, *(s for s in self._stored if s != state)]

    def _keep(self, done: Compiled, started_ns: int) -> bool:
        try:
            closure = find_closure(
                self._memo,
                ClosureRequest(
                    cwd=os.fsencode(self.root),
                    source=_SOURCE.encode(),
                    files=tuple(map(os.fsencode, done.files)),
                    search=tuple(d.encode() for d in _SEARCH),
                    forced=(b"stdc-predef.h",),  # which GCC looks for everywhere, always
                    started_ns=started_ns,
                    allow_date=False,
                ),
            )
        except UncacheableError as error:
            SEEN[error.reason] += 1
            return False
        SEEN["stored"] += 1
        return self._results.keep(
            _KEY, closure, Result("\n".join(done.output).encode(), None, b"", b"")
        )

    def _state(self) -> object:
        """Return names, links and contents of the whole tree."""
        state: dict[str, object] = {}
        for directory, folders, files in os.walk(self.root):
            for name in (*folders, *files):
                path = Path(directory, name)
                if path.is_symlink():
                    state[str(path)] = os.readlink(path)
                else:
                    state[str(path)] = path.read_bytes() if path.is_file() else None
        return state

    def _compare_with_gcc(self, expected: Compiled | Exception) -> None:
        SEEN["asked GCC"] += 1
        search = [f"-I{directory}" for directory in _SEARCH]
        ended = subprocess.run(
            ["gcc", "-E", "-P", "-w", *search, _SOURCE],
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (ended.returncode == 0) == isinstance(expected, Compiled), ended.stderr
        if isinstance(expected, Compiled):
            assert re.findall(r"int \w+;", ended.stdout) == expected.output


@pytest.mark.timeout(1200)
def test_no_answer_differs_from_the_model_and_nothing_is_compiled_twice() -> None:
    SEEN.clear()
    run_state_machine_as_test(  # type: ignore[no-untyped-call]  # hypothesis leaves it untyped
        ManifestMachine,
        settings=settings(
            max_examples=int(os.environ.get("HPCC_MODEL_EXAMPLES", "60")),
            stateful_step_count=40,
            deadline=None,
            # Every `ci` run tries the same examples; a run with another number tries new ones.
            derandomize="HPCC_MODEL_EXAMPLES" not in os.environ and profile_name() == "ci",
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert (
        min(SEEN[name] for name in ("hit", "miss", "stored", "stored at once", "asked GCC")) > 0
    ), SEEN


def _edit_the_source(machine: ManifestMachine) -> None:
    machine.compile_when_all_is_old(asks_gcc=True)
    machine.write_source("int v1;\n")
    machine.compile_when_all_is_old(asks_gcc=True)


def _edit_meanwhile(machine: ManifestMachine) -> None:
    machine.edit_during_a_compile("int v2;\n", _SOURCE)


def _add_a_header(machine: ManifestMachine) -> None:
    machine.compile_when_all_is_old(asks_gcc=True)
    machine.write("one/b.h", "int v2;\n")
    machine.compile_when_all_is_old(asks_gcc=True)


def _add_a_directory(machine: ManifestMachine) -> None:
    machine.compile_when_all_is_old(asks_gcc=True)
    machine.make_directory("late")
    machine.write("late/b.h", "int v2;\n")
    machine.compile_when_all_is_old(asks_gcc=True)


def _ask_the_other_way(machine: ManifestMachine) -> None:
    machine.write_source("#if __has_include(<c.h>)\nint yes1;\n#else\nint no1;\n#endif\n")
    machine.write("two/c.h", "")
    machine.compile_when_all_is_old(asks_gcc=True)
    machine.delete("two/c.h")
    machine.compile_when_all_is_old(asks_gcc=True)


@pytest.mark.parametrize(
    ("script", "target", "wrong"),
    [
        (_edit_the_source, "base.manifest.InputSet.holds", lambda *_: True),
        (_edit_meanwhile, "inputs.closure.is_fresh", lambda *_: False),
        (_add_a_header, "base.manifest.Absence.holds", lambda *_: True),
        (_add_a_directory, "inputs.lookup.Lookup._missing_directory", lambda *_, **__: None),
        (_ask_the_other_way, "inputs.lookup.Lookup._exists", lambda *_, **__: True),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else value,
)
def test_the_model_notices_a_cache_that_looks_away(
    script: Callable[[ManifestMachine], None],
    target: str,
    wrong: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for is_wrong in (False, True):
        machine = ManifestMachine()
        try:
            machine.begin('#include "b.h"\nint v0;\n', "", "int v1;\n")
            if not is_wrong:
                script(machine)
                continue
            monkeypatch.setattr(f"hpcc.cache.{target}", wrong)
            with pytest.raises(AssertionError):
                script(machine)
        finally:
            machine.teardown()
