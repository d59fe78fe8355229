"""Finds out whose file names a compile may write into its object.

Without debug information a file's name reaches the object only through `__FILE__` and what is like
it. The text does not show whether such a macro is expanded: <assert.h> mentions it everywhere. So
the preprocessor is asked once, with another value for these macros, and its line markers tell in
which files the value stands.
"""

from __future__ import annotations

from typing import Final

from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.content.entries import ContentEntry, Names
from hpcc.cache.content.key import ContentKey
from hpcc.cache.content.places import BUILD_MARK, CWD_MARK, ROOT_MARK, Places
from hpcc.cache.inputs.discovery import answer_about
from hpcc.cache.key.prepare import Prepared
from hpcc.compilers.scan.shown_names import names_arguments
from hpcc.core.reasons.uncacheable import UncacheableReason

_SECONDS: Final = 60.0
_MAX_NAMES: Final = 2000


def ask_names(prepared: Prepared, places: Places) -> tuple[bytes, ...] | Names:
    """Run the preprocessor; return the files whose names show, with marks for the places.

    `Names.ANY` if it fails, or if something else than these macros may show a name.
    """
    family = prepared.family
    argv = family.expansion_command(
        prepared.request.compiler, prepared.invocation, keeps_lines=True
    )
    reason = UncacheableReason.EXPANSION_FAILED
    try:
        text = answer_about(prepared, [*argv, *names_arguments()], lambda: False, reason, _SECONDS)
    except UncacheableError:
        return Names.ANY
    found = family.visible_names(text, prepared.invocation.source)
    if found is None or len(found) > _MAX_NAMES:
        return Names.ANY
    return tuple(places.mark(name) if name.startswith(b"/") else name for name in found)


def moved_marks(key: ContentKey, made_at: Places, *, has_maps: bool) -> frozenset[bytes]:
    """Return the marks of the places whose files have another name than where a result was made.

    `has_maps`: the compiler replaces the root in all names. So do the user's maps (`content.maps`).
    A relative name is the same, because the key holds all relative names as they are spelled.
    """
    places = key.places
    is_cwd_same = places.cwd == made_at.cwd
    is_root_same = places.root == made_at.root
    is_build_same = places.build == made_at.build
    if has_maps:
        # The maps make the root's part equal; the part below it may differ.
        is_root_same = True
        is_cwd_same |= _inside(places, places.cwd) == _inside(made_at, made_at.cwd) is not None
        is_build_same |= (
            _inside(places, places.build) == _inside(made_at, made_at.build) is not None
        )
    marks = ((CWD_MARK, is_cwd_same), (ROOT_MARK, is_root_same), (BUILD_MARK, is_build_same))
    moved = {mark for mark, is_same in marks if not is_same}
    return (key.absolute & moved) - key.maps.replaced(places, made_at)


def may_move(entry: ContentEntry, moved: frozenset[bytes]) -> bool:
    """Tell whether a result shows no name of a file in a place that has another name now."""
    if not moved:
        return True
    if isinstance(entry.names, Names):
        return False
    return not any(name[: len(CWD_MARK)] in moved for name in entry.names)


def _inside(places: Places, directory: bytes) -> bytes | None:
    root = places.root or places.cwd
    return directory[len(root) :] if (directory + b"/").startswith(root + b"/") else None
