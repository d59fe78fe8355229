"""Finds the shared action that is nearest to an action of the caller, for `hpcc explain`.

Problem: an action's digest is a hash of everything, so nobody finds the almost equal one. And what
a caller learns of a colleague's action must not be more than its own tree shows.

Rule: when a result is shared, its action is noted under a name that image, source and compiler
determine, in a small object beside the claims. It is a list of action digests and no more. So
nothing in it has to be believed: an action counts if the worker has a shared result of it that
this caller may get, and if its command has the same name. Both actions are then outlined from the
command and the tree in the tenant's store, by the code that outlines entries of a remote cache
(`hpcc.cache.signed.outline`). A difference names inputs of the caller and spellings of flags.

Example: CI's compile of src/a.c is shared. Ann's has another config.h. The answer is the path of
Ann's config.h, and how many other inputs are equal.

What must never happen: a private action of a colleague is compared, or one of another tenant.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from hpcc.cache.base.fields import encode_fields
from hpcc.cache.key.command_outline import CommandOutline, outline_parts, short_hash
from hpcc.cache.signed.outline import (
    Here,
    Outline,
    OutlineDifference,
    compare,
    input_outlines,
    nearer,
)
from hpcc.compilers.families import family_of
from hpcc.compilers.invocation.guest import GUEST_ROOT
from hpcc.compilers.spec.table import Bypass
from hpcc.core import Digest, HpccError, ImageDigest
from hpcc.ports import ActionCache, BlobStore
from hpcc.reapi.action import ActionSpec
from hpcc.reapi.command import CommandSpec
from hpcc.reapi.result import ResultRecord
from hpcc.reapi.tree import TreeWalk
from hpcc.worker.stores.near_actions import noted

_FORMAT: Final = b"farm-outline-1"
# As for a remote cache: beyond that there is no outline.
_MAX_INPUTS: Final = 4096
# Outlines hold a compiler. Here both sides have the same image.
_COMPILER: Final = b""
_SAME_COMPILER: Final = short_hash(b"compiler", _COMPILER, 8)


class OwnAction(NamedTuple):
    """An action with its command, as read from the tenant's store."""

    action: ActionSpec
    command: CommandSpec


async def find_nearest(
    own: tuple[Digest, OwnAction],
    image: ImageDigest,
    cache: ActionCache,
    blobs: BlobStore,
    *,
    shared: Callable[[Digest], Awaitable[ResultRecord]],
    read: Callable[[Digest], Awaitable[OwnAction]],
) -> tuple[OutlineDifference, ResultRecord] | None:
    """Return how the nearest shared action differs, with its result; None if there is none.

    `shared` returns the result of an action if this caller may get it, and `read` its parts. Both
    raise an `HpccError` for any other action.

    Raises:
        HpccError: the caller's own action is not here any more.
    """
    digest, mine = own
    name = name_of(mine.command, image)
    if name is None:
        return None
    here = await _here(name, mine, blobs)
    found = {}
    for other in await noted(cache, name):
        if other == digest or here is None:
            continue
        try:
            record = await shared(other)
            theirs = await read(other)
            if name_of(theirs.command, image) != name:
                continue
            there = await _there(name, theirs, blobs, record)
        except HpccError:
            continue  # it is gone, or not for this caller
        if there is not None:
            found[compare(here, "", there)] = record
    nearest = nearer(found)
    return None if nearest is None else (nearest, found[nearest])


def name_of(command: CommandSpec, image: ImageDigest) -> bytes | None:
    """Return the name of a command's source and compiler; None if hpcc cannot read the command."""
    argv = [word.encode() for word in command.argv]
    invocation = family_of(argv[0], tuple(argv[1:])).read(argv[0], argv[1:])
    if isinstance(invocation, Bypass):
        return None
    source = posixpath.normpath(posixpath.join(command.cwd.encode(), invocation.source))
    return hashlib.sha256(
        encode_fields([_FORMAT, image.value.encode(), source, posixpath.basename(argv[0])])
    ).digest()


def _outlined(name: bytes, one: OwnAction) -> CommandOutline | None:
    command = one.command
    argv = [word.encode() for word in command.argv]
    invocation = family_of(argv[0], tuple(argv[1:])).read(argv[0], argv[1:])
    assert not isinstance(invocation, Bypass)  # it has a name
    pairs = sorted(f"{key}={value}".encode() for key, value in command.env)
    # The salt has the versions of hpcc.
    environment = encode_fields([one.action.salt, *pairs])
    return outline_parts(name, invocation, GUEST_ROOT, command.cwd.encode(), environment)


async def _files(root: Digest, blobs: BlobStore) -> dict[bytes, bytes] | None:
    """Return digests by path; None if the tree has too many files for an outline."""
    walk = TreeWalk(root)
    while wanted := walk.wanted:
        for digest in wanted:
            walk.feed(digest, (await blobs.get(digest)).data)
        if len(walk.files) > _MAX_INPUTS:
            return None
    return {file.path.encode(): bytes.fromhex(file.digest.hash) for file in walk.files}


async def _here(name: bytes, one: OwnAction, blobs: BlobStore) -> Here | None:
    command, files = _outlined(name, one), await _files(one.action.input_root, blobs)
    return None if command is None or files is None else Here(command, _COMPILER, files)


async def _there(
    name: bytes, one: OwnAction, blobs: BlobStore, record: ResultRecord
) -> Outline | None:
    command, files = _outlined(name, one), await _files(one.action.input_root, blobs)
    if command is None or files is None:
        return None
    at, inputs = int(record.completed_at), input_outlines(files.items())
    return Outline(at, command, _SAME_COMPILER, inputs)
