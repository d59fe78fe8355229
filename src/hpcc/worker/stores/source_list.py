"""The files that a compile had as inputs, from the digest of the input tree in its row."""

from __future__ import annotations

from dataclasses import dataclass

from hpcc.core import Digest, InputFile
from hpcc.reapi.tree import TreeWalk
from hpcc.worker.stores.retained import RetainedReader


@dataclass(frozen=True, slots=True)
class SourceList:
    """Files with their paths from the root of the tree, in order of path.

    `gone` has the directories that are not kept any more: what was in them is unknown.
    """

    files: tuple[InputFile, ...]
    gone: tuple[Digest, ...]


def read_sources(reader: RetainedReader, root: Digest) -> SourceList:
    """Return the files of an input tree. Each directory is checked against its digest.

    Raises:
        ReapiError: a directory is none of an input tree, or the tree is over a limit.
    """
    walk, gone = TreeWalk(root), set[Digest]()
    while wanted := sorted(set(walk.wanted) - gone):
        for digest in wanted:
            blob = reader.get_or_none(digest)
            if blob is None:
                gone.add(digest)
            else:
                walk.feed(digest, blob.data)
    return SourceList(tuple(sorted(walk.files, key=lambda f: f.path)), tuple(sorted(gone)))
