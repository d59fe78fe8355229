"""Every rule for a request to a guest: the host checks it before sending, the guest on arrival."""

from __future__ import annotations

import dataclasses
import math

import pytest

from hpcc.core import (
    MAX_ARGV_BYTES,
    MAX_INPUTS,
    MAX_OUTPUTS,
    CallerError,
    Digest,
    ExecLimits,
    ExecRequest,
    InputFile,
    InputPart,
)
from hpcc.wire.exec_frames import MAX_INPUT_BYTES, check_exec_request

DIGEST = Digest.of(b"")
GOOD = ExecRequest(
    exec_id="unit-1",
    argv=("cc", "-c", "src/a.c"),
    env=(("PATH", "/bin"), ("EMPTY", "")),
    cwd="src",
    inputs=(InputFile("src/a.c", DIGEST), InputFile("include/a.h", DIGEST)),
    outputs=("obj/a.o", "obj/a.d"),
    output_directories=("dwo",),
    input_directories=("empty", "include/none"),
    limits=ExecLimits(),
)
LIMITS = [f.name for f in dataclasses.fields(ExecLimits)]


def inputs(*paths: str) -> tuple[InputFile, ...]:
    return tuple(InputFile(path, DIGEST) for path in paths)


def sized(size: int) -> InputFile:
    return InputFile("big.c", dataclasses.replace(DIGEST, size_bytes=size))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"exec_id": "x" * 128},
        {"cwd": ""},
        {"outputs": (), "output_directories": ()},
        {"inputs": ()},
        {"inputs": (sized(MAX_INPUT_BYTES),)},
        {"argv": ("cc", "")},
        {"argv": ("x" * (MAX_ARGV_BYTES - 1),), "env": ()},
        # Paths that only begin alike.
        {"inputs": inputs("a", "ab/c", "a.b")},
        {"outputs": tuple(f"o{n}" for n in range(MAX_OUTPUTS))},
        {"outputs": ("obj",), "output_directories": ("obj",)},
    ],
)
def test_what_is_just_within_the_rules_is_sent(changes: dict[str, object]) -> None:
    check_exec_request(dataclasses.replace(GOOD, **changes))  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"exec_id": ""}, "bad exec id"),
        ({"exec_id": "x" * 129}, "bad exec id"),
        ({"exec_id": "a/b"}, "bad exec id"),
        ({"exec_id": "a\n"}, "bad exec id"),
        ({"argv": ()}, "argv is empty"),
        ({"argv": ("", "x")}, "argv is empty"),
        ({"argv": ("cc", "\udc80")}, "not UTF-8"),
        ({"argv": ("x" * MAX_ARGV_BYTES,), "env": ()}, "larger than"),
        ({"argv": ("cc",), "env": (("N", "x" * MAX_ARGV_BYTES),)}, "larger than"),
        ({"argv": ("cc", "a\0b")}, "zero byte"),
        ({"env": (("A", "x\0"),)}, "zero byte"),
        ({"env": (("", "x"),)}, "bad variable name"),
        ({"env": (("A=B", "x"),)}, "bad variable name"),
        ({"inputs": inputs("a.c", "b.c", "a.c")}, "occurs twice"),
        ({"inputs": inputs("a", "a/b")}, "used as a directory"),
        ({"inputs": inputs("a", "a/b/c/d")}, "used as a directory"),
        ({"inputs": inputs("src")}, "used as a directory"),
        ({"inputs": inputs("obj")}, "used as a directory"),
        ({"inputs": inputs("dwo"), "output_directories": ("dwo/x",)}, "used as a directory"),
        ({"inputs": inputs("empty")}, "used as a directory"),
        ({"inputs": inputs("a"), "input_directories": ("a/b",)}, "used as a directory"),
        ({"inputs": (sized(MAX_INPUT_BYTES + 1),)}, "is larger than"),
        ({"input_directories": ("e",) * (MAX_INPUTS + 1)}, "more than"),
        ({"output_directories": ("d", "d")}, "an output directory occurs twice"),
        ({"output_directories": ("d", "d/e")}, "has another output in it"),
        ({"output_directories": ("obj",)}, "has another output in it"),
        ({"outputs": tuple(f"o{n}" for n in range(MAX_OUTPUTS + 1))}, "more than"),
        ({"output_directories": tuple(f"d{n}" for n in range(MAX_OUTPUTS + 1))}, "more than"),
    ],
)  # fmt: skip
def test_each_broken_rule_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(CallerError, match=said):
        check_exec_request(dataclasses.replace(GOOD, **changes))  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize("path", ["/a", "../a", "a/../b", "a//b", "a\0b", "./a"])
@pytest.mark.parametrize(
    "where", ["cwd", "outputs", "output_directories", "inputs", "input_directories"]
)
def test_no_path_leads_out_of_the_guests_tree(where: str, path: str) -> None:
    values: dict[str, object] = {"cwd": path, "inputs": inputs(path)}
    with pytest.raises(CallerError):
        check_exec_request(dataclasses.replace(GOOD, **{where: values.get(where, (path,))}))  # type: ignore[arg-type]  # by name


def test_more_inputs_than_a_header_holds_are_refused() -> None:
    one = InputFile("a.c", DIGEST)
    with pytest.raises(CallerError, match="more than"):
        check_exec_request(dataclasses.replace(GOOD, inputs=(one,) * (MAX_INPUTS + 1)))


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", [0, -1])
def test_every_limit_is_positive(name: str, value: int) -> None:
    limits = dataclasses.replace(ExecLimits(), **{name: value})
    with pytest.raises(CallerError, match="a limit is missing"):
        check_exec_request(dataclasses.replace(GOOD, limits=limits))


@pytest.mark.parametrize("seconds", [math.inf, math.nan, -math.inf])
def test_a_time_limit_is_a_number_of_seconds(seconds: float) -> None:
    limits = ExecLimits(wall_seconds=seconds)
    with pytest.raises(CallerError, match="a limit is missing"):
        check_exec_request(dataclasses.replace(GOOD, limits=limits))


def test_the_smallest_limits_are_limits() -> None:
    limits = dataclasses.replace(ExecLimits(), **dict.fromkeys(LIMITS, 1))
    check_exec_request(dataclasses.replace(GOOD, limits=limits))


def parts(*files: tuple[InputFile, ...]) -> tuple[InputPart, ...]:
    return tuple(InputPart(DIGEST, some) for some in files)


def test_the_files_of_a_part_are_checked_once() -> None:
    seen: list[tuple[InputFile, ...]] = []
    (part,) = parts(inputs("a", "b"))
    for _ in range(3):
        part.check(seen.append)
    assert seen == [part.files]


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ((inputs("a"), inputs("a")), "occurs twice"),
        ((inputs("a"), inputs("a/b")), "used as a directory"),
        ((inputs("b/c/d"), inputs("b")), "used as a directory"),
        ((inputs("obj"),), "used as a directory"),
        ((inputs("a"), inputs("../b")), "not a normal relative path"),
        ((inputs("a"), (sized(MAX_INPUT_BYTES + 1),)), "is larger than"),
    ],
)
def test_parts_break_the_same_rules_each_time(
    pieces: tuple[tuple[InputFile, ...], ...], said: str
) -> None:
    files = tuple(file for piece in pieces for file in piece)
    request = dataclasses.replace(GOOD, inputs=files, parts=parts(*pieces))
    for _ in range(2):
        with pytest.raises(CallerError, match=said):
            check_exec_request(request)


def test_parts_are_the_inputs() -> None:
    first, second = inputs("a", "b"), inputs("c")
    check_exec_request(
        dataclasses.replace(GOOD, inputs=(*first, *second), parts=parts(first, second))
    )
    for others in ((first,), (second, first), (first, second, second), (first, inputs("d"))):
        with pytest.raises(CallerError, match="parts of a request are not its inputs"):
            check_exec_request(
                dataclasses.replace(GOOD, inputs=(*first, *second), parts=parts(*others))
            )
