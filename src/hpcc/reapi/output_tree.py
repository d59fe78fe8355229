"""Output directories: encodes flat lists as a REAPI `Tree`, and lists the files of a stored one."""

from __future__ import annotations

from collections.abc import Iterable

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb

from hpcc.core import MAX_OUTPUT_ENTRIES, Digest, InputFile
from hpcc.reapi.digests import digest_from_proto, parse_message
from hpcc.reapi.limits import ReapiError
from hpcc.reapi.tree import build_tree

# Room for 10,000 entries, each with a digest and a name of 255 bytes, and their directories.
_MAX_BYTES = 16 << 20


def encode_output_tree(files: Iterable[InputFile], directories: Iterable[str]) -> bytes:
    """Encode an output directory canonically; paths are relative to it.

    `directories` lists every directory below it, also those that contain files.

    Raises:
        CallerError: a path is not normal, occurs twice, or is both a file and a directory.
    """
    tree = build_tree(files, directories)
    children = sorted(d for d in tree.directories if d != tree.root)
    message = pb.Tree(
        root=pb.Directory.FromString(tree.directories[tree.root]),
        children=[pb.Directory.FromString(tree.directories[d]) for d in children],
    )
    return message.SerializeToString(deterministic=True)


def output_tree_files(data: bytes) -> frozenset[Digest]:
    """Return the digests of all files that a `Tree` names.

    Raises:
        ReapiError: the bytes are not a `Tree`, or over a limit.
    """
    message = parse_message(pb.Tree, data, _MAX_BYTES)
    files = [f for d in (message.root, *message.children) for f in d.files]
    if len(files) > MAX_OUTPUT_ENTRIES:
        raise ReapiError(f"more than {MAX_OUTPUT_ENTRIES} files in one output directory")
    return frozenset(digest_from_proto(f.digest) for f in files)
