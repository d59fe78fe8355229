"""The commit that a checkout is at, and the commits that it came from, the nearest first."""

from __future__ import annotations

from collections import deque
from typing import Final

from hpcc.cache.base.levels import levels_above
from hpcc.cache.git.objects import Commits
from hpcc.cache.git.reading import GitError
from hpcc.cache.git.refs import Repository, find_repository, read_head

# A developer is rarely further ahead of what CI has built.
MAX_ANCESTORS: Final = 64


def repository_of(directory: bytes, home: bytes) -> Repository:
    """Return the repository whose working tree a directory is in.

    Raises:
        GitError: there is none, or it is of a form that is not read.
    """
    for level in levels_above(directory, home):
        found = find_repository(level)
        if found is not None:
            return found
    raise GitError("there is no git repository here")


def head_of(directory: bytes, home: bytes) -> str:
    """Return the commit that the checkout around a directory is at, in hexadecimal.

    Raises:
        GitError: see `repository_of` and `read_head`.
    """
    return read_head(repository_of(directory, home)).decode()


def ancestors_of(
    directory: bytes, home: bytes, commit: str, limit: int = MAX_ANCESTORS
) -> tuple[str, ...]:
    """Return a commit and its ancestors by distance, at most `limit`.

    What a shallow or damaged repository lacks is left out, so the answer may hold only the commit.
    """
    start = commit.encode()
    found, seen, waiting = [start], {start}, deque([start])
    try:
        with Commits(repository_of(directory, home)) as commits:
            while waiting and len(found) < limit:
                for parent in commits.parents(waiting.popleft()):
                    if parent not in seen and len(found) < limit:
                        seen.add(parent)
                        found.append(parent)
                        waiting.append(parent)
    except GitError:
        pass
    return tuple(name.decode() for name in found)
