"""Finds the root of a project: the directory whose files a compile may need.

Problem: a farm gets the files below the root. A build of CMake runs in a build directory and reads
sources beside it, so the working directory is too small a root.

Rule: the root is, in this order,

- the directory with the nearest accepted `.hpcc` marker (`key.marker`);
- the nearest directory with a `.git`, `.hg` or `.jj`, found upward from the source and from the
  working directory. If the two searches disagree, the source's root counts only if it contains the
  working directory; else there is no root;
- what CMake's cache or a `compile_commands.json` in the build directory names, if neither search
  found anything.

A worktree is a root. A submodule is a part of its superproject. Git's environment variables and the
directory that a `.git` file names do not matter.

Example: `/home/u/proj/build` compiles `/home/u/proj/src/a.c`, and `/home/u/proj/.git` exists: the
root is `/home/u/proj`.

What must never happen: a root that another user could choose, or one that holds more than a
project. So each way has the marker's limits: owner, no link, no directory that everybody may write,
no boundary of a file system on the way; never the home directory, `/`, a directory of the system or
the root of a mount. A root that was found only marks: it adds no flag to a compile of this machine.
"""

from __future__ import annotations

import enum
import os
import posixpath
import re
import stat
from dataclasses import dataclass, field
from typing import Final

from hpcc.cache.base.levels import is_trusted, levels_above
from hpcc.cache.key.marker import READ_FLAGS, search_marker
from hpcc.cache.root.build_data import NAMES, named_root

# Directories of the system, and those that hold the directories of many projects or users.
_SYSTEM: Final = frozenset(
    b"/ /bin /boot /dev /etc /home /lib /lib32 /lib64 /media /mnt /opt /proc /root /run /sbin /srv"
    b" /sys /tmp /usr /usr/bin /usr/include /usr/lib /usr/libexec /usr/local /usr/local/bin"
    b" /usr/local/include /usr/local/lib /usr/local/share /usr/local/src /usr/sbin /usr/share"
    b" /usr/src /var /var/cache /var/lib /var/opt /var/tmp".split()
)
_BELOW: Final = tuple(
    b"/boot/ /dev/ /etc/ /lib/ /lib64/ /proc/ /sys/ /usr/include/ /usr/lib/ /usr/local/include/"
    b" /usr/share/".split()
)
_MAX_GITFILE: Final = 4096
_GITFILE: Final = re.compile(rb"gitdir: ([^\r\n\0]+)[\r\n]*")


class RootWay(enum.StrEnum):
    """How a root was found; the value is the name of the entry that shows it."""

    MARKER = ".hpcc"
    GIT = ".git"
    MERCURIAL = ".hg"
    JUJUTSU = ".jj"
    CMAKE = "CMakeCache.txt"
    COMMANDS = "compile_commands.json"


CONTROLS: Final = (RootWay.GIT, RootWay.MERCURIAL, RootWay.JUJUTSU)


@dataclass(frozen=True, slots=True)
class ProjectRoot:
    """A root. `path` is absolute, `witness` the entry that shows it."""

    path: bytes
    way: RootWay
    witness: bytes

    @property
    def is_marked(self) -> bool:
        """Whether a marker names it."""
        return self.way is RootWay.MARKER


@dataclass(slots=True)
class RootSearch:
    """The result of a search, and what it depended on.

    `absent` are names that must stay absent, `places` directories that must stay the same with
    owner and mode, `read` files whose content counts. `is_odd`: it met an entry that it refused.
    """

    root: ProjectRoot | None = None
    absent: dict[bytes, None] = field(default_factory=dict)
    places: dict[bytes, None] = field(default_factory=dict)
    read: dict[bytes, None] = field(default_factory=dict)
    is_odd: bool = False


def find_project_root(source: bytes, cwd: bytes, home: bytes) -> ProjectRoot | None:
    """Return the root of a compile of `source` in `cwd`; None if there is none.

    All three are absolute; `cwd` and `home` have no links.
    """
    marker = search_marker(cwd, home)
    if marker.marker is not None:
        root = marker.marker.root
        return ProjectRoot(root, RootWay.MARKER, posixpath.join(root, RootWay.MARKER.encode()))
    return None if marker.refusal else search_unmarked(source, cwd, home).root


def search_unmarked(source: bytes, cwd: bytes, home: bytes) -> RootSearch:
    """Search for a root that no marker names. Never raises."""
    search = RootSearch()
    try:
        at = os.path.realpath(posixpath.dirname(source))
    except (OSError, ValueError):
        return search
    ways_up = (tuple(levels_above(at, home)), tuple(levels_above(cwd, home)))
    known: dict[bytes, ProjectRoot | None] = {}
    of_source, of_cwd = (_controlled(levels, home, search, known) for levels in ways_up)
    if of_source is not None or of_cwd is not None:
        is_one = of_source == of_cwd or (of_source is not None and of_source.path in ways_up[1])
        search.root = of_source if is_one else None
    else:
        search.root = _of_build(ways_up, home, search)
    return search


def _controlled(
    levels: tuple[bytes, ...],
    home: bytes,
    search: RootSearch,
    known: dict[bytes, ProjectRoot | None],
) -> ProjectRoot | None:
    """Return the nearest root under version control among `levels`, nearest first."""
    submodule: ProjectRoot | None = None
    for directory in levels:
        if directory not in known:
            known[directory] = _look(directory, home, search)
        found = known[directory]
        if found is None:
            continue
        if found.witness in search.read and _is_submodule(found.witness):
            submodule = submodule or found
            continue
        return found
    return submodule


def _look(directory: bytes, home: bytes, search: RootSearch) -> ProjectRoot | None:
    """Return the root that an entry of this directory shows, and note what that depends on."""
    search.places[directory] = None
    for way in CONTROLS:
        entry = posixpath.join(directory, way.encode())
        try:
            status = os.lstat(entry)
        except (OSError, ValueError):
            search.absent[entry] = None
            continue
        is_file = stat.S_ISREG(status.st_mode) and way is RootWay.GIT
        if not (is_file or stat.S_ISDIR(status.st_mode)) or not is_trusted(status):
            search.is_odd = True
            return None
        (search.read if is_file else search.places)[entry] = None
        return ProjectRoot(directory, way, entry) if may_be_root(directory, home) else None
    return None


def _is_submodule(gitfile: bytes) -> bool:
    """Tell whether the `.git` file of a submodule is at this path. Does not go where it leads."""
    try:
        fd = os.open(gitfile, READ_FLAGS)
    except OSError:
        return False
    try:
        data = os.read(fd, _MAX_GITFILE + 1)
    except OSError:
        return False
    finally:
        os.close(fd)
    found = _GITFILE.fullmatch(data)
    if found is None:
        return False
    above = found[1].split(b"/")[:-1]
    return b"modules" in above and above[-1] != b"worktrees"


def _of_build(
    ways_up: tuple[tuple[bytes, ...], tuple[bytes, ...]], home: bytes, search: RootSearch
) -> ProjectRoot | None:
    """Return the root that the nearest build data above the working directory names."""
    of_source, of_cwd = ways_up
    for directory in of_cwd:
        for name in NAMES:
            data = posixpath.join(directory, name)
            if not os.path.lexists(data):
                search.absent[data] = None
                continue
            search.read[data] = None
            root = named_root(data)
            is_above = root in of_source and root in of_cwd
            if is_above and may_be_root(root, home) and _is_own(root):
                return ProjectRoot(root, RootWay(name.decode()), data)
            if root:
                return None
    return None


def _is_own(directory: bytes) -> bool:
    try:
        return os.stat(directory).st_uid == os.geteuid()
    except OSError:
        return False


def may_be_root(directory: bytes, home: bytes) -> bool:
    """Tell whether a directory may be a root that no marker names.

    The home directory, a directory of the system and the root of a mount may not.
    """
    if directory == home or directory in _SYSTEM or directory.startswith(_BELOW):
        return False
    try:
        return not os.path.ismount(directory)
    except (OSError, ValueError):
        return False
