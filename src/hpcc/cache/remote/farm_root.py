"""The root of a compile for a farm: which files may be sent, and what the object calls it.

A marker's root is called `.` in the object, and so is the working directory where no root was
found. A root that was found is called by its own path, so that the object has the bytes that the
image's compiler would write on this machine.
"""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass

from hpcc.cache.content.entries import Names
from hpcc.cache.content.names import ask_names
from hpcc.cache.content.places import Places
from hpcc.cache.key.marker import Marker
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.remote.guest_paths import installed_files
from hpcc.cache.root.project_root import RootSearch, search_unmarked
from hpcc.compilers.invocation.content import is_proved_in_guests
from hpcc.compilers.invocation.guest import RELATIVE, NotPortableError
from hpcc.compilers.invocation.invocation import Dialect
from hpcc.core.reasons.fallback import FallbackReason


@dataclass(frozen=True, slots=True)
class FarmRoot:
    """A root. `shown` is what objects call it; see `GuestMap`.

    `search` is what the search without a marker depended on; None if a marker decided.
    """

    path: bytes
    shown: bytes
    marker: Marker | None
    search: RootSearch | None

    @property
    def is_found(self) -> bool:
        """Whether it was found without a marker, so that fewer files may be sent."""
        return self.search is not None and self.search.root is not None

    @property
    def text(self) -> str:
        """The root for `hpcc explain`, with the way it was found and its name in objects."""
        way = ".hpcc" if self.marker is not None else "the working directory"
        if self.search is not None and self.search.root is not None:
            way = self.search.root.way
        return f"{os.fsdecode(self.path)} ({way}), called {os.fsdecode(self.shown)} in objects"


def farm_root(prepared: Prepared, home: bytes) -> FarmRoot:
    """Return the root of a compile; without any it is the working directory."""
    found = prepared.marker_status.search
    if found.marker is not None:
        return FarmRoot(found.marker.root, RELATIVE, found.marker, None)
    if found.refusal:
        return FarmRoot(prepared.cwd, RELATIVE, None, None)
    source = prepared.source
    if installed_files()(source):
        source = posixpath.join(prepared.cwd, b"source")  # the project builds what is installed
    search = search_unmarked(source, prepared.cwd, home)
    if search.root is None:
        return FarmRoot(prepared.cwd, RELATIVE, None, search)
    root = search.root.path
    if prepared.invocation.dialect is Dialect.MSVC:
        return FarmRoot(root, RELATIVE, None, search)  # its flags hide every path already
    return FarmRoot(root, spelled_root(prepared, root), None, search)


def shown_names(prepared: Prepared, places: Places) -> tuple[bytes, ...] | None:
    """Return all names of files that an object may show, with marks for the places.

    Asks the preprocessor. None if that is unknown, or if the object shows the working directory.
    """
    form = prepared.family.content_form(prepared.invocation, prepared.identity.major)
    if form is None or form.names_directory or not is_proved_in_guests(form):
        return None
    names = ask_names(prepared, places)
    return None if isinstance(names, Names) else names


def check_spelling(prepared: Prepared, root: FarmRoot) -> None:
    """Refuse a directory with two spellings, if the compiler would write both of them.

    Raises:
        NotPortableError: the shell spells the directory through a link, and an argument does not.
    """
    is_linked = root.shown not in {RELATIVE, root.path}
    if is_linked and any(root.path in argument for argument in prepared.invocation.arguments):
        detail = f"PWD names {os.fsdecode(root.shown)}, arguments name {os.fsdecode(root.path)}"
        raise NotPortableError(FallbackReason.DIRECTORY_SPELLING, detail)


def spelled_root(prepared: Prepared, root: bytes) -> bytes:
    """Return the root as this build spells it: compilers write $PWD if it is the directory."""
    pwd, cwd = prepared.request.env.get(b"PWD", b""), prepared.cwd
    if pwd == cwd or not pwd.startswith(b"/"):
        return root
    inside = cwd[len(root.rstrip(b"/")) :]
    try:
        if not os.path.samefile(pwd, cwd):
            return root
        start = pwd.removesuffix(inside)
        is_root = pwd.endswith(inside) and os.path.samefile(start or b"/", root)
    except (OSError, ValueError):
        return root
    # Another spelling below the root: nothing maps to it, and `check_spelling` refuses the rest.
    return start if is_root else b""
