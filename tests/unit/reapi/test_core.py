"""Encoding and hostile parsing of Directory, Command and Action."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb

from hpcc.core import (
    CallerError,
    Digest,
    GuestReuse,
    ImageDigest,
    ImageRef,
    InputFile,
    Isolation,
)
from hpcc.reapi.action import ActionSpec, encode_action, parse_action, salt_of
from hpcc.reapi.command import CommandSpec, encode_command, parse_command
from hpcc.reapi.digests import digest_to_proto
from hpcc.reapi.foreign import entry_action
from hpcc.reapi.limits import ReapiError
from hpcc.reapi.output_tree import encode_output_tree, output_tree_files
from hpcc.reapi.resource import parse_read_name, parse_write_name
from hpcc.reapi.result import ResultOutput, ResultRecord, encode_result, parse_result
from hpcc.reapi.tree import TreeBase, TreeWalk, build_tree, parse_directory

GOLDEN = Path(__file__).parents[2] / "golden" / "reapi_digests.json"
IMAGE = ImageRef("local/gcc", ImageDigest("sha256:" + "ab" * 32))
A, B = Digest.of(b"a"), Digest.of(b"b")


def command(**changes: object) -> CommandSpec:
    values: dict[str, object] = {
        "argv": ("gcc", "-c", "a.c", "-o", "out/a.o"),
        "env": (("PATH", "/usr/bin:/bin"), ("LC_ALL", "C")),
        "cwd": "",
        "outputs": ("out/a.o", "out/a.d"),
        "image": IMAGE,
        **changes,
    }
    return CommandSpec(**values)


def action_of(spec: CommandSpec, files: list[InputFile]) -> ActionSpec:
    return ActionSpec(
        command=Digest.of(encode_command(spec)),
        input_root=build_tree(files, [spec.cwd]).root,
        image=IMAGE,
        salt=salt_of(agent_version="1", builder_version="2"),
    )


FILES = [
    InputFile("a.c", A),
    InputFile("include/x.h", B),
    InputFile("include/sub/y.h", A),
    InputFile("tool.sh", B, is_executable=True),
]


def walked(root: Digest, blobs: Mapping[Digest, bytes]) -> TreeWalk:
    walk = TreeWalk(root)
    while wanted := walk.wanted:
        for digest in wanted:
            walk.feed(digest, blobs[digest])
    return walk


def walk_all(root: Digest, blobs: Mapping[Digest, bytes]) -> tuple[InputFile, ...]:
    return walked(root, blobs).files


def test_digests_are_those_of_the_golden_file() -> None:
    """A change here is a new key: raise ACTION_FORMAT in the same commit."""
    found = {
        "tree": str(build_tree(FILES).root),
        "empty-tree": str(build_tree([]).root),
        "command": str(Digest.of(encode_command(command()))),
        "command-in-directory": str(
            Digest.of(encode_command(command(cwd="build", outputs=("../out/a.o",))))
        ),
        "action": str(Digest.of(encode_action(action_of(command(), FILES)))),
    }
    assert found == json.loads(GOLDEN.read_text())


def test_order_of_files_env_and_outputs_does_not_matter() -> None:
    assert build_tree(FILES).root == build_tree(FILES[::-1]).root
    one = encode_command(command())
    assert one == encode_command(
        command(env=tuple(reversed(command().env)), outputs=tuple(reversed(command().outputs)))
    )


@pytest.mark.parametrize(
    "files",
    [
        [InputFile("a.c", B), *FILES[1:]],
        [InputFile("b.c", A), *FILES[1:]],
        [InputFile("a.c", A, is_executable=True), *FILES[1:]],
        FILES[1:],
    ],
    ids=["content", "name", "mode", "absent"],
)
def test_each_change_of_an_input_changes_the_action(files: list[InputFile]) -> None:
    assert encode_action(action_of(command(), files)) != encode_action(action_of(command(), FILES))


@pytest.mark.parametrize(
    "changes",
    [
        {"argv": ("gcc", "-O2", "-c", "a.c", "-o", "out/a.o")},
        {"env": (("PATH", "/usr/bin:/bin"), ("LC_ALL", "C.UTF-8"))},
        {"cwd": "include"},
        {"outputs": ("out/a.o",)},
        {"image": ImageRef("local/gcc", ImageDigest("sha256:" + "cd" * 32))},
    ],
    ids=["argv", "env", "cwd", "outputs", "image"],
)
def test_each_change_of_the_command_changes_it(changes: dict[str, object]) -> None:
    assert encode_command(command(**changes)) != encode_command(command())


def test_a_tree_reads_back_as_the_files_it_was_built_from() -> None:
    tree = build_tree(FILES, ["build/deep"])
    walked = walk_all(tree.root, tree.directories)
    assert sorted(walked, key=lambda f: f.path) == sorted(FILES, key=lambda f: f.path)


def test_directories_that_hold_nothing_are_found_at_each_of_their_places() -> None:
    tree = build_tree(FILES, ["build/deep", "include/none", "include/none2/x"])
    walk = walked(tree.root, tree.directories)
    assert sorted(walk.empty_directories) == ["build/deep", "include/none", "include/none2/x"]
    assert walked(build_tree([]).root, build_tree([]).directories).empty_directories == ()


def test_names_of_empty_directories_count_against_the_limit_of_paths() -> None:
    # Three levels hold the one below them many times, so that a small tree has many long paths.
    data, blobs = b"", {Digest.of(b""): b""}
    for count in (26, 26, 26, *[1] * 8):
        below = Digest.of(data)
        names = (f"{n:03}" + "x" * 240 for n in range(count))
        children = [pb.DirectoryNode(name=n, digest=digest_to_proto(below)) for n in names]
        data = pb.Directory(directories=children).SerializeToString()
        blobs[Digest.of(data)] = data
    with pytest.raises(ReapiError, match="paths of the input tree are too long"):
        walked(Digest.of(data), blobs)


def test_command_and_action_read_back() -> None:
    spec = command(env=tuple(sorted(command().env)), outputs=("out/a.d", "out/a.o"))
    # An output path may be either.
    assert parse_command(encode_command(spec)) == replace(spec, directories=spec.outputs)
    action = action_of(spec, FILES)
    assert parse_action(encode_action(action)) == action


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "nul\0", "x" * 256])
def test_a_directory_with_a_forbidden_name_is_refused(name: str) -> None:
    for message in (
        pb.Directory(files=[pb.FileNode(name=name, digest=digest_to_proto(A))]),
        pb.Directory(directories=[pb.DirectoryNode(name=name, digest=digest_to_proto(A))]),
    ):
        with pytest.raises(ReapiError):
            parse_directory(message.SerializeToString())


def node(name: str) -> pb.FileNode:
    return pb.FileNode(name=name, digest=digest_to_proto(A))


def subdirectory(name: str) -> pb.DirectoryNode:
    return pb.DirectoryNode(name=name, digest=digest_to_proto(A))


@pytest.mark.parametrize(
    "message",
    [
        pb.Directory(files=[node("b"), node("a")]),
        pb.Directory(files=[node("a"), node("a")]),
        pb.Directory(files=[node("a")], directories=[subdirectory("a")]),
        pb.Directory(symlinks=[pb.SymlinkNode(name="l", target="/etc/passwd")]),
        pb.Directory(files=[pb.FileNode(name="a", digest=pb.Digest(hash="zz", size_bytes=1))]),
        pb.Directory(files=[pb.FileNode(name="a", digest=pb.Digest(hash="a" * 64, size_bytes=-1))]),
        pb.Directory(files=[pb.FileNode(name="a")]),
    ],
    ids=["unsorted", "twice", "file-and-directory", "symlink", "bad-hash", "negative", "no-digest"],
)
def test_a_malformed_directory_is_refused(message: pb.Directory) -> None:
    with pytest.raises(ReapiError):
        parse_directory(message.SerializeToString())


def test_a_tree_of_endless_paths_is_refused() -> None:
    """Shared subtrees make long paths of few bytes: 200 MB of names out of 300 KB."""
    below = pb.Directory(files=[node(f"{i:0250}") for i in range(1000)]).SerializeToString()
    blobs = {Digest.of(below): below}
    for name in ("x" * 250, "y" * 250):
        level = pb.Directory(
            directories=[
                pb.DirectoryNode(name=f"{i}{name}"[:250], digest=digest_to_proto(Digest.of(below)))
                for i in range(9)
            ]
        ).SerializeToString()
        below = level
        blobs[Digest.of(level)] = level
    with pytest.raises(ReapiError) as refused:
        walk_all(Digest.of(below), blobs)
    assert refused.value.reason == "tree-limit"


def test_a_tree_that_is_its_own_child_many_times_is_refused() -> None:
    """A bomb: each level names the next a thousand times, 1000^3 directories in 3 messages."""
    leaf = pb.Directory(files=[node("a")]).SerializeToString()
    blobs = {Digest.of(leaf): leaf}
    below = Digest.of(leaf)
    for _ in range(3):
        level = pb.Directory(
            directories=[
                pb.DirectoryNode(name=f"{i:04}", digest=digest_to_proto(below)) for i in range(1000)
            ]
        ).SerializeToString()
        below = Digest.of(level)
        blobs[below] = level
    with pytest.raises(ReapiError):
        walk_all(below, blobs)


def test_a_tree_that_is_too_deep_is_refused() -> None:
    data = pb.Directory(files=[node("a")]).SerializeToString()
    blobs = {Digest.of(data): data}
    for _ in range(80):
        data = pb.Directory(
            directories=[pb.DirectoryNode(name="d", digest=digest_to_proto(Digest.of(data)))]
        ).SerializeToString()
        blobs[Digest.of(data)] = data
    with pytest.raises(ReapiError, match="deep"):
        walk_all(Digest.of(data), blobs)


@pytest.mark.parametrize(
    "files",
    [
        [InputFile("a", A), InputFile("a", B)],
        [InputFile("a", A), InputFile("a/b", B)],
        [InputFile("../a", A)],
        [InputFile("/a", A)],
        [InputFile("a//b", A)],
    ],
)
def test_a_tree_is_never_built_from_bad_paths(files: list[InputFile]) -> None:
    with pytest.raises(CallerError):
        build_tree(files)


def raw_command(**changes: object) -> bytes:
    values: dict[str, object] = {
        "arguments": ["gcc"],
        "platform": pb.Platform(
            properties=[pb.Platform.Property(name="container-image", value=IMAGE.platform_value)]
        ),
        **changes,
    }
    return pb.Command(**values).SerializeToString()


VARIABLE = pb.Command.EnvironmentVariable


@pytest.mark.parametrize(
    "data",
    [
        raw_command(arguments=[]),
        raw_command(arguments=["gcc", "a\0b"]),
        raw_command(environment_variables=[VARIABLE(name="A=B", value="")]),
        raw_command(environment_variables=[VARIABLE(name="", value="")]),
        raw_command(environment_variables=[VARIABLE(name="A"), VARIABLE(name="A")]),
        raw_command(output_paths=["../x"]),
        raw_command(output_paths=["/etc/passwd"]),
        raw_command(output_paths=["a", "a"]),
        raw_command(output_paths=[f"o{i}" for i in range(65)]),
        raw_command(working_directory="../x"),
        raw_command(working_directory="/"),
        raw_command(output_directories=["../d"]),
        raw_command(output_directories=["d", "d"]),
        raw_command(output_directories=["d", "d/e"]),
        raw_command(output_directories=["d"], output_files=["d/a.o"]),
        raw_command(output_directories=[f"o{i}" for i in range(65)]),
        raw_command(arguments=["x" * 3_000_000]),
        raw_command(
            platform=pb.Platform(
                properties=[pb.Platform.Property(name="container-image", value="docker://gcc:12")]
            )
        ),
        raw_command(
            platform=pb.Platform(properties=[pb.Platform.Property(name="privileged", value="1")])
        ),
        b"\xff\xff\xff",
    ],
)
def test_a_malformed_command_is_refused(data: bytes) -> None:
    with pytest.raises(ReapiError):
        parse_command(data)


def test_an_output_may_climb_within_the_root() -> None:
    spec = parse_command(raw_command(working_directory="build/x", output_paths=["../../out/a.o"]))
    assert spec.root_outputs() == ("out/a.o",)


def test_a_platform_may_be_left_to_the_action() -> None:
    assert parse_command(raw_command(platform=pb.Platform())).image is None


def test_output_directories_of_old_clients_are_honoured() -> None:
    spec = parse_command(raw_command(output_files=["a.o"], output_directories=["d"]))
    assert (spec.outputs, spec.directories) == (("a.o",), ("d",))


def test_an_output_directory_is_a_tree_that_reads_back() -> None:
    data = encode_output_tree([InputFile("x/a", A, is_executable=True), InputFile("b", B)], ["e"])
    tree = pb.Tree.FromString(data)
    assert [d.name for d in tree.root.directories] == ["e", "x"]
    assert len(tree.children) == 2
    assert output_tree_files(data) == {A, B}
    assert pb.Tree.FromString(encode_output_tree([], [])) == pb.Tree(root=pb.Directory())


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff",
        pb.Tree(root=pb.Directory(files=[pb.FileNode(name="a")] * 10_001)).SerializeToString(),
        pb.Tree(root=pb.Directory(files=[pb.FileNode(name="a")])).SerializeToString(),
    ],
)
def test_a_stored_tree_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(ReapiError):
        output_tree_files(data)


def test_output_files_of_old_clients_are_honoured() -> None:
    assert parse_command(raw_command(output_files=["a.o"])).outputs == ("a.o",)


def test_a_result_reads_back() -> None:
    record = ResultRecord(
        exit_code=0,
        stdout=b"out",
        stderr=b"err",
        outputs=(ResultOutput("a.o", A, is_executable=False), ResultOutput("b", B, True)),
        isolation=Isolation.QEMU_TCG,
        reuse=GuestReuse.PRINCIPAL,
        guest_id="g1",
        guest_execs_before=3,
        worker="w1",
        image=IMAGE.digest.value,
        queued_at=1.5,
        started_at=2.25,
        completed_at=3.0,
        inline={"a.o": b"a"},
    )
    assert parse_result(encode_result(record)) == record


def test_a_result_without_our_labels_is_refused() -> None:
    with pytest.raises(ReapiError):
        parse_result(pb.ActionResult(exit_code=0).SerializeToString())


# Bytes that are not a message, and one label without a value.
@pytest.mark.parametrize("value", [b"\0\0", b"\n\5\n\1x\x12\0"])
def test_labels_of_the_right_type_with_other_bytes_are_refused(value: bytes) -> None:
    result = pb.ActionResult()
    labels = result.execution_metadata.auxiliary_metadata.add()
    labels.type_url, labels.value = "type.googleapis.com/google.protobuf.Struct", value
    with pytest.raises(ReapiError):
        parse_result(result.SerializeToString())


@pytest.mark.parametrize(
    "name",
    ["", "acme", "acme/blobs/x", f"acme/blobs/{A}/x", f"a/b/blobs/{A}", f"/blobs/{A}",
     f"acme/compressed-blobs/zstd/{A}", "acme/blobs/" + "a" * 600],
)  # fmt: skip
def test_a_malformed_read_name_is_refused(name: str) -> None:
    with pytest.raises(ReapiError):
        parse_read_name(name)


def test_resource_names_read_back() -> None:
    assert parse_read_name(f"acme/blobs/{A}") == ("acme", A)
    assert parse_write_name(f"acme/uploads/u-1/blobs/{A}") == ("acme", A)
    assert parse_write_name(f"acme/uploads/u-1/blobs/{A}/meta") == ("acme", A)
    with pytest.raises(ReapiError):
        parse_write_name(f"acme/blobs/{A}")


def test_a_directory_is_encoded_as_protobuf_does() -> None:
    sizes = (0, 1, 127, 128, 16_383, 16_384, 1 << 40)
    files = [
        InputFile(name, Digest(f"{size:064x}", size), is_executable=size % 2 == 1)
        for name, size in zip(
            ("a", "b" * 200, "Z", "é", "\U0001f600", "z.h", "~"), sizes, strict=True
        )
    ]
    tree = build_tree([*files, InputFile("dir/x", A), InputFile("dir2/y", B)])
    for data in tree.directories.values():
        message = pb.Directory.FromString(data)
        assert message.SerializeToString(deterministic=True) == data
        parse_directory(data)
    root = pb.Directory.FromString(tree.directories[tree.root])
    names = [f.path for f in sorted(files, key=lambda f: f.path.encode())]
    assert [f.name for f in root.files] == names
    by_name = {f.path: f for f in files}
    for file in root.files:
        known = by_name[file.name]
        assert (file.digest.size_bytes, file.is_executable) == (
            known.digest.size_bytes, known.is_executable,
        )  # fmt: skip


def test_a_tree_made_from_a_base_is_the_tree_of_all_its_files() -> None:
    shared = [InputFile("inc/a.h", A), InputFile("inc/deep/b.h", B), InputFile("src/c.h", A)]
    base = TreeBase(shared)
    for own in (
        [InputFile("src/main.c", B)],
        [InputFile("main.c", B)],
        [InputFile("inc/deep/er/main.c", B), InputFile("inc/z.c", A)],
    ):
        whole = build_tree([*shared, *own], ["build/x"])
        made = base.with_files(own, ["build/x"])
        assert made.root == whole.root
        assert dict(made.directories) == dict(whole.directories)
        assert set(made.changed) < set(made.directories)
    # The base is as it was.
    assert base.with_files([]).root == build_tree(shared).root


def test_a_file_that_is_in_the_base_already_is_refused() -> None:
    base = TreeBase([InputFile("inc/a.h", A)])
    for path in ("inc/a.h", "inc", "inc/a.h/b"):
        with pytest.raises(ReapiError):
            base.with_files([InputFile(path, B)])


def test_the_action_of_an_entry_is_the_same_for_all_versions() -> None:
    """Readers of one version look for what writers of another stored."""
    command, action = entry_action("v1/default/ab/abcd")
    parsed = pb.Command.FromString(command.data)
    assert list(parsed.arguments) == ["hpcc-remote-cache-entry", "v1/default/ab/abcd"]
    assert pb.Action.FromString(action.data).command_digest.hash == command.digest.hash
    assert str(action.digest) == (
        "2fb50453b798c52bf080448e37977c7ebb07c23c3f8443cca9f33fd26cabda90/138"
    )
