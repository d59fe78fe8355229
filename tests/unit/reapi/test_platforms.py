"""What an action may ask for, of a bot that offers some properties."""

from __future__ import annotations

import pytest
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb

from hpcc.reapi.limits import MAX_PROPERTIES, ReapiError
from hpcc.reapi.platforms import check_action_platform, check_command_platform, isa_names

OFFERED = {"OSFamily": frozenset({"linux"}), "ISA": frozenset(isa_names("x86_64"))}
IMAGE = ("container-image", "docker://r@sha256:1")


def of(*properties: tuple[str, str]) -> pb.Platform:
    return pb.Platform(properties=[pb.Platform.Property(name=n, value=v) for n, v in properties])


def check(action: pb.Platform | None, command: pb.Platform | None = None) -> None:
    check_action_platform(pb.Action(platform=action).SerializeToString(), OFFERED)
    check_command_platform(pb.Command(platform=command).SerializeToString(), OFFERED)


def test_what_is_offered_passes() -> None:
    check(of(IMAGE, ("OSFamily", "linux"), ("ISA", "x86-64")))
    check(None, of(IMAGE, ("ISA", "amd64")))
    check(None)


@pytest.mark.parametrize("is_command", [False, True])
@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (("network", "on"), "'network' is unknown to this worker, which knows ISA, OSFamily, cont"),
        (("OSFamily", "windows"), "OSFamily is 'windows', and this worker is linux"),
        (("ISA", "arm-a64"), "what the engine matches"),
        (("\x1b[2J" + "n" * 200, "v"), "unknown"),
        (("Pool", "fast"), "'Pool' is unknown"),
    ],
)
def test_what_is_not_offered_is_refused_and_says_what_to_do(
    asked: tuple[str, str], says: str, *, is_command: bool
) -> None:
    with pytest.raises(ReapiError, match="so that such actions get another worker") as caught:
        check(*((None, of(asked)) if is_command else (of(asked), None)))
    text = str(caught.value)
    assert says in text
    assert (caught.value.reason, text.isprintable()) == ("platform", True)
    assert len(text) < 500


def test_many_properties_are_refused() -> None:
    with pytest.raises(ReapiError, match="more than"):
        check(of(*[("ISA", "x86-64")] * (MAX_PROPERTIES + 1)))
