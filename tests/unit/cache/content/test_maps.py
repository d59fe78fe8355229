"""What prefix maps make of the places of a key, and which line directives hide a name."""

from __future__ import annotations

import pytest

from hpcc.cache.content.maps import NO_MAPS, PlaceMaps, hides_line_names, place_maps
from hpcc.cache.content.places import BUILD_MARK, CWD_MARK, ROOT_MARK, Places
from hpcc.compilers.invocation.content import ContentForm, PrefixMap

HERE = Places(b"/x/p/build", b"/x/p")
THERE = Places(b"/y/clone/build", b"/y/clone")


def _maps(
    *pairs: tuple[bytes, bytes],
    places: Places = HERE,
    kind: bytes = b"file",
    is_debug: bool = True,
    spelled: bytes = b"",
    allowed: bool = True,
) -> PlaceMaps:
    maps = tuple(PrefixMap(kind, old, new) for old, new in pairs)
    form = ContentForm(maps, is_debug, False, (), maps=maps if allowed else ())
    return place_maps(form, places, spelled)


def test_a_map_of_the_root_is_the_same_in_each_clone() -> None:
    here, there = _maps((b"/x/p", b".")), _maps((b"/y/clone", b"."), places=THERE)
    assert here == there
    assert here.replace_places
    assert not here.shown
    assert here.in_macros == {CWD_MARK, ROOT_MARK}


@pytest.mark.parametrize(
    ("pairs", "shown"),
    [
        (((b"/x/p/", b""),), set()),
        (((b"/x/p/build/", b""),), {b"/x/p/build", b"/x/p"}),
        (((b"/x/p/build", b""),), {b"/x/p"}),
        (((b"/x/p/src", b""),), {b"/x/p/build", b"/x/p"}),
        (((b"/x", b""),), {b"/x/p/build", b"/x/p"}),
        (((b"", b"X"),), {b"/x/p/build", b"/x/p"}),
        (((b"/x/pq", b""),), {b"/x/p/build", b"/x/p"}),
        (((b".", b"here"),), {b"/x/p/build", b"/x/p"}),
    ],
)
def test_a_place_shows_unless_each_of_its_names_is_met(
    pairs: tuple[tuple[bytes, bytes], ...], shown: set[bytes]
) -> None:
    assert _maps(*pairs).shown == shown


def test_the_root_as_working_directory_shows_behind_a_map_with_a_slash() -> None:
    assert _maps((b"/x/p/", b""), places=Places(b"/x/p", b"")).shown == {b"/x/p"}
    assert not _maps((b"/x/p", b""), places=Places(b"/x/p", b"")).shown


def test_a_map_from_above_replaces_no_place_in_macros() -> None:
    found = _maps((b"/x", b"."), is_debug=False)
    assert not found.shown
    assert not found.in_macros
    assert not _maps((b"/x/p", b"."), is_debug=False).shown


def test_kinds_count_apart() -> None:
    assert _maps((b"/x/p", b"."), kind=b"debug").in_macros == frozenset()
    assert _maps((b"/x/p", b"."), kind=b"macro").shown == {b"/x/p/build", b"/x/p"}


def test_a_name_that_another_places_map_meets_is_in_the_key() -> None:
    """The map of /x/p makes ./build of one, and ./other of the other."""
    other = Places(b"/x/p/other", b"/x/p")
    assert _maps((b"/x/p", b".")).fields != _maps((b"/x/p", b"."), places=other).fields
    beside = Places(b"/x/p-build", b"/x/p"), Places(b"/x/p-other", b"/x/p")
    one, two = (_maps((b"/x/p", b"."), places=p).fields for p in beside)
    assert one != two
    # A map of another directory of the root meets neither.
    own = (_maps((b"/x/p/src", b"s"), (p.cwd, b"b"), places=p).fields for p in (HERE, other))
    assert len(set(own)) == 1


def test_without_debug_information_the_rest_of_a_name_counts_where_one_shows() -> None:
    other = Places(b"/y/clone/other", b"/y/clone")
    here, there, elsewhere = (
        _maps((places.root, b"."), places=places, is_debug=False) for places in (HERE, THERE, other)
    )
    assert here == there == elsewhere
    assert here.replaced(HERE, THERE) == {CWD_MARK, ROOT_MARK}
    assert here.replaced(HERE, other) == {ROOT_MARK}


def test_the_build_directory_is_a_place_of_its_own() -> None:
    places = Places(b"/b/one/sub", b"/x/p", b"/b/one")
    found = _maps((b"/x/p", b"."), (b"/b/one", b"b"), places=places)
    assert not found.shown
    assert found.in_macros == {CWD_MARK, ROOT_MARK, BUILD_MARK}
    moved = Places(b"/c/sub", b"/x/p", b"/c")
    assert found == _maps((b"/x/p", b"."), (b"/c", b"b"), places=moved)
    deeper = Places(b"/c/sub2", b"/x/p", b"/c")
    assert found != _maps((b"/x/p", b"."), (b"/c", b"b"), places=deeper)


def test_what_a_map_writes_and_where_nothing_is_known_is_text() -> None:
    assert _maps((b"/x/p", b"/x/p/src")).texts == (b"/x/p/src",)
    for found in (_maps((b"/x/p", b"."), allowed=False), _maps((b"/x/p", b"."), spelled=b"/l")):
        assert found.texts == (b"/x/p", b".")
        assert not found.replace_places
        assert not found.in_macros
    assert _maps() == NO_MAPS


@pytest.mark.parametrize(
    "text",
    [
        b'#line 5 "gen.y"\n# 7 "a.c" 1 3\n#line 9\n# 1\r\n',
        b"#define line 4\n#if 0\n#endif\nint a; // # 5\n#linear\n",
        b'const char *p = "#line X";\n',
        b"",
    ],
)
def test_plain_line_directives_hide_nothing(text: bytes) -> None:
    assert not hides_line_names(text)


@pytest.mark.parametrize(
    "text",
    [
        b'#line 5 "\\057x/gen.y"\n',
        b"#line 5 NAME\n",
        b"#line LINE\n",
        b'# 5 "\\057x"\n',
        b'int a;\r#line 5 "\\057x"\n',
        b'/* a\n */ #line 5 "\\057x"\n',
        b"#/**/line 5 NAME\n",
        b"# /* b */ 5 NAME\n",
        b"%:line 5 NAME\n",
        b"??=line 5 NAME\n",
        b"#li\\\nne 5 NAME\n",
        b'#line 5 "/x/\\\np/gen.y"\n',
        b"#li??/\nne 5 NAME\n",
        b'#line 5 "??/057x"\n',
    ],
)
def test_a_directive_that_may_hide_a_name_is_found(text: bytes) -> None:
    assert hides_line_names(text)
