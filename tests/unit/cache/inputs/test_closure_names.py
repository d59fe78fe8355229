"""Which absent names a closure watches, and how few disk look-ups that takes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.twins import are_one_file, related_files
from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.inputs.closure import find_closure
from hpcc.cache.inputs.closure_types import Closure, ClosureRequest
from hpcc.cache.inputs.lookup import Lookup
from hpcc.compilers.scan.twins import TwinRule


@pytest.fixture
def memo() -> FileMemo:
    # A clock ahead: whatever a test writes is old enough for its stat to answer.
    return FileMemo(lambda: time.time_ns() + 10**11)


def _closure(memo: FileMemo, root: Path, *files: str, **changes: object) -> Closure:
    values: dict[str, object] = {
        "cwd": os.fsencode(root),
        "source": b"a.c",
        "files": tuple(f.encode() for f in ("a.c", *files)),
        "search": (b"one", b"two"),
        "forced": (),
        "started_ns": time.time_ns() + 10**10,
        "allow_date": False,
    }
    return find_closure(memo, ClosureRequest(**{**values, **changes}))  # type: ignore[arg-type]  # built by name above


def _absent(closure: Closure, root: Path) -> dict[str, frozenset[bytes]]:
    return {os.path.relpath(os.fsdecode(a.directory), root): a.files for a in closure.absences}


def _tree(root: Path, files: dict[str, str]) -> None:
    for name in ("one", "two/deep", "other"):
        (root / name).mkdir(parents=True)
    for name, text in files.items():
        (root / name).write_text(text)


def test_the_name_a_macro_gives_is_watched_beside_its_line_and_along_the_path(
    tmp_path: Path, memo: FileMemo
) -> None:
    _tree(
        tmp_path,
        {
            "a.c": '#include "two/m.h"\n#include "two/deep/x.h"\n',
            "two/m.h": "#include MACRO\n",
            "two/deep/x.h": "",
        },
    )
    absent = _absent(_closure(memo, tmp_path, "two/m.h", "two/deep/x.h"), tmp_path)
    # `#include MACRO` may have been deep/x.h, beside its line or from any directory of the path.
    assert b"deep" in absent["one"]
    (tmp_path / "one/deep").mkdir()
    again = _absent(_closure(memo, tmp_path, "two/m.h", "two/deep/x.h"), tmp_path)
    assert b"x.h" in again["one/deep"]
    (tmp_path / "one/deep").rmdir()
    (tmp_path / "a.c").write_text('#include "two/m.h"\n#include "two/deep/x.h"\n#include OTHER\n')
    (tmp_path / "deep").mkdir()
    beside_both = _absent(_closure(memo, tmp_path, "two/m.h", "two/deep/x.h"), tmp_path)
    assert b"x.h" in beside_both["deep"]


def test_a_file_that_nothing_names_is_watched_everywhere(tmp_path: Path, memo: FileMemo) -> None:
    _tree(tmp_path, {"a.c": '#include "other/y.h"\n', "other/y.h": "", "two/predef.h": ""})
    absent = _absent(_closure(memo, tmp_path, "other/y.h", "two/predef.h"), tmp_path)
    assert all(b"predef.h" in absent[name] for name in ("one", "other"))
    assert b"predef.h" not in absent["two"]


def test_data_is_an_input_wherever_it_is(tmp_path: Path, memo: FileMemo) -> None:
    _tree(tmp_path, {"a.c": "", "two/blob": "x"})
    closure = _closure(memo, tmp_path, data=(b"blob", b"deep/blob"))
    assert os.fsencode(tmp_path / "two/blob") in dict(closure.files)
    absent = _absent(closure, tmp_path)
    assert b"blob" in absent["one"] & absent["."]
    (tmp_path / "two/deep/blob").write_text("y")
    closure = _closure(memo, tmp_path, data=(b"blob", b"deep/blob"))
    assert os.fsencode(tmp_path / "two/deep/blob") in dict(closure.files)


def test_a_directory_in_the_place_of_a_header_may_stay_and_no_header_may_come(
    tmp_path: Path, memo: FileMemo
) -> None:
    _tree(tmp_path, {"a.c": "#include <h.h>\n", "two/h.h": ""})
    (tmp_path / "one/h.h").mkdir()
    assert b"h.h" in _absent(_closure(memo, tmp_path, "two/h.h"), tmp_path)["one"]
    (tmp_path / "one/h.h").rmdir()
    (tmp_path / "one/h.h").symlink_to("../other")
    with pytest.raises(UncacheableError) as caught:
        _closure(memo, tmp_path, "two/h.h")
    assert caught.value.reason == "directory-link"


@pytest.mark.parametrize(
    ("source", "text", "is_input"),
    [
        ("", "#pragma once\n", True),
        ("", "int x;\n", False),
        ("", '_Pragma("GCC diagnostic push") int x;  // once\n', False),
        ("", '_Pragma("once") int x;\n', True),
        ("#define P(x) _Pragma(#x)\n", "P(once) int x;\n", True),
        ('#define ONCE _Pragma("once")\n', "ONCE int x;\n", True),
        ("#import <other.h>\n", "int x;\n", True),
    ],
)
def test_a_twin_that_may_be_read_once_is_an_input(
    source: str, text: str, is_input: bool, tmp_path: Path, memo: FileMemo
) -> None:
    _tree(tmp_path, {"a.c": source + "#include <h.h>\n", "one/h.h": text, "two/h.h": text})
    for _ in range(2):  # the second time from memory
        closure = _closure(memo, tmp_path, "one/h.h", twin_rule=TwinRule.SECOND)
        assert (os.fsencode(tmp_path / "two/h.h") in dict(closure.files)) is is_input
        assert bool(closure.twins) is is_input
    if is_input:
        with pytest.raises(UncacheableError) as caught:
            _closure(memo, tmp_path, "one/h.h", twin_rule=None)
        assert caught.value.reason == "twin-headers"


def test_a_macro_of_the_arguments_may_make_any_file_be_read_once(
    tmp_path: Path, memo: FileMemo
) -> None:
    _tree(tmp_path, {"a.c": "#include <h.h>\n", "one/h.h": "X\n", "two/h.h": "X\n"})
    argument = b'-DX=_Pragma("once")'
    closure = _closure(memo, tmp_path, "one/h.h", twin_rule=TwinRule.SECOND, arguments=(argument,))
    assert closure.twins


@pytest.mark.parametrize("rule", [TwinRule.SECOND, TwinRule.INODE])
def test_the_relation_of_twins_is_compared_at_each_look_up(
    rule: TwinRule, tmp_path: Path, memo: FileMemo
) -> None:
    _tree(tmp_path, {"a.c": "#include <h.h>\n"})
    one, two = tmp_path / "one/h.h", tmp_path / "two/h.h"
    one.write_text("#pragma once\n")
    two.write_text("#pragma once\n")
    for path in (one, two):
        os.utime(path, ns=(10**18, 10**18 + 5))
    (twins,) = _closure(memo, tmp_path, "one/h.h", twin_rule=rule).twins
    assert twins.holds()
    os.utime(one, ns=(10**18, 10**18 + 900_000_000))  # the same second
    assert twins.holds()
    os.utime(one, ns=(10**18, 10**18 + 10**9))
    assert twins.holds() is (rule is TwinRule.INODE)
    two.unlink()
    assert not twins.holds()
    two.hardlink_to(one)
    assert twins.holds() is (rule is TwinRule.SECOND)


def test_names_of_one_file_are_related_where_a_link_could_part_them(
    tmp_path: Path, memo: FileMemo
) -> None:
    _tree(tmp_path, {"a.c": "#include <h.h>\n", "one/h.h": "#pragma once\n"})
    names = ("one/h.h", "two/../one/h.h")
    assert not _closure(memo, tmp_path, *names, twin_rule=None).twins
    (twins,) = _closure(memo, tmp_path, *names, twin_rule=TwinRule.SECOND).twins
    assert {os.fsencode(tmp_path / name) for name in names} <= set(twins.paths)
    assert are_one_file(twins)
    assert related_files((twins,)) == frozenset()
    spelled = ("one/h.h", "one/./h.h")
    assert not _closure(memo, tmp_path, *spelled, twin_rule=TwinRule.SECOND).twins
    (tmp_path / "two/h.h").symlink_to("../one/h.h")
    closure = _closure(memo, tmp_path, "one/h.h", twin_rule=TwinRule.SECOND)
    names = os.fsencode(tmp_path / "one/h.h"), os.fsencode(tmp_path / "two/h.h")
    assert [(t.rule, t.groups) for t in closure.twins] == [
        (TwinRule.SECOND, (names,)),
        (TwinRule.LINK, (names,)),
    ]


def test_a_link_is_not_said_to_be_a_file_itself(tmp_path: Path, memo: FileMemo) -> None:
    _tree(tmp_path, {"a.c": '#include "one/l.h"\n#include "one/f.h"\n', "one/f.h": ""})
    (tmp_path / "one/l.h").symlink_to("../two/deep/t.h")
    (tmp_path / "two/deep/t.h").write_text("")
    plain = _closure(memo, tmp_path, "one/l.h", "one/f.h").plain
    device = tmp_path.stat().st_dev
    assert plain == {os.fsencode(tmp_path / name): device for name in ("a.c", "one/f.h")}


def test_a_link_that_comes_while_a_file_is_read_is_seen(
    tmp_path: Path, memo: FileMemo, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "f.h", tmp_path / "other.h"
    path.write_text("")
    other.write_text("")
    real_open = os.open

    def open_after_a_change(name: bytes, flags: int) -> int:
        path.unlink()
        path.symlink_to("other.h")
        return real_open(name, flags)

    monkeypatch.setattr(os, "open", open_after_a_change)
    found = memo.examine(os.fsencode(path))
    monkeypatch.undo()
    assert found is not None
    assert not found.is_plain


def test_what_a_directory_lacks_is_asked_once_while_it_rests(
    tmp_path: Path, memo: FileMemo, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = memo.listing(os.fsencode(tmp_path))
    assert listing is not None
    names = frozenset({b"a", b".", b".."})
    assert listing.without(names) == {b"a"}
    monkeypatch.setattr(os.path, "lexists", lambda _p: pytest.fail("looked at a name"))
    assert listing.without(frozenset(names)) == {b"a"}
    assert memo.listing(os.fsencode(tmp_path)) is listing
    monkeypatch.undo()
    (tmp_path / "a").write_text("")
    fresh = memo.listing(os.fsencode(tmp_path))
    assert fresh is not None
    assert not fresh.without(names)


def _linked(root: Path, memo: FileMemo, *files: str) -> tuple[Closure, int]:
    """Return a closure, and how often all names were looked for."""
    rounds = 0
    add_all = Lookup.add_all

    def counted(self: Lookup, *args: object) -> None:
        nonlocal rounds
        rounds += 1
        add_all(self, *args)  # type: ignore[arg-type]  # passed on

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lookup, "add_all", counted)
        return _closure(memo, root, *files), rounds


@pytest.mark.parametrize("is_directory", [True, False])
def test_a_name_behind_a_link_that_another_compile_met_is_found_at_once(
    is_directory: bool, tmp_path: Path, memo: FileMemo
) -> None:
    _tree(tmp_path, {"a.c": "#include <link/h.h>\n", "other/h.h": "int x;\n"})
    if is_directory:
        (tmp_path / "one/link").symlink_to("../other")
    else:  # as `<asm/types.h>` on Debian
        (tmp_path / "one/link").mkdir()
        (tmp_path / "one/link/h.h").symlink_to("../../other/h.h")
    first, rounds = _linked(tmp_path, memo, "other/h.h")
    assert rounds == 2
    again, rounds = _linked(tmp_path, memo, "other/h.h")
    assert rounds == 1
    assert again.files == first.files
    assert (again.twins, again.existing, again.plain) == (first.twins, first.existing, first.plain)
    assert _absent(again, tmp_path) == _absent(first, tmp_path)
    assert os.fsencode(tmp_path / "one/link/h.h") in dict(again.files)


def test_a_name_behind_a_link_that_only_other_compiles_look_for_is_no_input(
    tmp_path: Path, memo: FileMemo
) -> None:
    _tree(tmp_path, {"a.c": "#include <link/h.h>\n", "other/h.h": "int x;\n"})
    (tmp_path / "one/link").symlink_to("../other")
    _linked(tmp_path, memo, "other/h.h")
    (tmp_path / "a.c").write_text('#include "other/h.h"\n')
    closure, _ = _linked(tmp_path, memo, "other/h.h")
    assert sorted(p for p, _ in closure.files) == [
        os.fsencode(tmp_path / name) for name in ("a.c", "other/h.h")
    ]
    assert not closure.twins


@pytest.mark.parametrize("change", ["elsewhere", "gone", "directory"])
def test_a_link_that_led_to_a_header_before_is_looked_at_again(
    change: str, tmp_path: Path, memo: FileMemo
) -> None:
    _tree(tmp_path, {"a.c": "#include <link/h.h>\n", "other/h.h": "int x;\n", "two/deep/h.h": ""})
    (tmp_path / "one/link").symlink_to("../other")
    _linked(tmp_path, memo, "other/h.h")
    (tmp_path / "one/link").unlink()
    if change == "elsewhere":
        (tmp_path / "one/link").symlink_to("../two/deep")
    elif change == "directory":
        (tmp_path / "one/link").mkdir()
    closure, _ = _linked(tmp_path, memo, "other/h.h")
    assert os.fsencode(tmp_path / "one/link/h.h") not in dict(closure.files)
    assert not closure.twins
    is_there = os.fsencode(tmp_path / "one/link/h.h") in closure.existing
    assert is_there is (change == "elsewhere")


def test_a_directory_with_a_dot_behind_it_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tree(tmp_path, {"a.c": '#include "b.h"\n#include <c.h>\n', "b.h": "", "two/c.h": ""})
    read: list[bytes] = []
    listdir = os.listdir

    def counted(path: bytes) -> list[bytes]:
        read.append(path)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", counted)
    # Its stat is too young to answer for it.
    closure = _closure(
        FileMemo(time.time_ns), tmp_path, "b.h", "two/c.h", search=(b".", b"one/.", b"two")
    )
    assert len(read) == len({os.path.normpath(path) for path in read})
    absent = {a.directory: a.files for a in closure.absences}
    root = os.fsencode(tmp_path)
    assert all(b"c.h" in absent[path] for path in (root + b"/.", root + b"/one/."))
