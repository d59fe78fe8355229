"""Parsers of hostile input: any bytes give a value or the one documented error."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from hpcc.core import CallerError, Digest, InputFile, check_guest_path
from hpcc.reapi.action import parse_action
from hpcc.reapi.command import parse_command
from hpcc.reapi.limits import ReapiError
from hpcc.reapi.resource import parse_read_name, parse_write_name
from hpcc.reapi.result import parse_result
from hpcc.reapi.tree import TreeWalk, build_tree, parse_directory

NAMES = st.text("abc.-", min_size=1, max_size=4).filter(lambda n: n not in {".", ".."})
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
DIGESTS = st.binary(max_size=3).map(Digest.of)
WILD = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
WILD_DIGESTS = st.builds(
    pb.Digest, hash=st.one_of(WILD, st.just("a" * 64)), size_bytes=st.integers(-2, 1 << 41)
)


@pytest.mark.parametrize("parse", [parse_action, parse_command, parse_directory, parse_result])
@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_value_or_a_reapi_error(
    parse: Callable[[bytes], object], data: bytes
) -> None:
    with suppress(ReapiError):
        parse(data)


@given(
    st.builds(
        pb.Directory,
        files=st.lists(st.builds(pb.FileNode, name=WILD, digest=WILD_DIGESTS), max_size=4),
        directories=st.lists(
            st.builds(pb.DirectoryNode, name=WILD, digest=WILD_DIGESTS), max_size=4
        ),
    )
)
def test_names_of_a_directory_that_parses_are_plain(message: pb.Directory) -> None:
    try:
        listing = parse_directory(message.SerializeToString())
    except ReapiError:
        return
    for name in [f.path for f in listing.files] + [n for n, _ in listing.directories]:
        assert "/" not in check_guest_path(name)


@given(
    st.builds(
        pb.Command,
        arguments=st.lists(WILD, max_size=3),
        working_directory=WILD,
        output_paths=st.lists(WILD, max_size=3),
        platform=st.just(
            pb.Platform(
                properties=[
                    pb.Platform.Property(
                        name="container-image", value="docker://a/b@sha256:" + "0" * 64
                    )
                ]
            )
        ),
    )
)
def test_outputs_of_a_command_that_parses_stay_in_the_root(message: pb.Command) -> None:
    try:
        command = parse_command(message.SerializeToString())
    except ReapiError:
        return
    for path in command.root_outputs():
        assert check_guest_path(path) == path


@pytest.mark.parametrize("parse", [parse_read_name, parse_write_name])
@given(name=st.text(max_size=100))
def test_any_resource_name_is_a_value_or_a_reapi_error(
    parse: Callable[[str], object], name: str
) -> None:
    with suppress(ReapiError):
        parse(name)


@given(st.dictionaries(PATHS, st.tuples(DIGESTS, st.booleans()), max_size=8))
def test_a_tree_is_what_it_was_built_from(content: dict[str, tuple[Digest, bool]]) -> None:
    files = [InputFile(path, digest, mode) for path, (digest, mode) in content.items()]
    try:
        tree = build_tree(files)
    except CallerError:
        paths = sorted(content)
        assert any(b.startswith(a + "/") for a in paths for b in paths)
        return
    walk = TreeWalk(tree.root)
    while wanted := walk.wanted:
        for digest in wanted:
            walk.feed(digest, tree.directories[digest])
    assert set(walk.files) == set(files)
    assert len(walk.files) == len(files)
