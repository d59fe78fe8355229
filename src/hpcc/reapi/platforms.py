"""Compares the platform that an action asks for with what a worker offers to a foreign engine.

hpcc's own clients name an image, and a worker ignores placement hints of others. An engine chooses
a bot by properties, and may be configured to compare only some of them. What it did not compare is
compared here: an action that asks for another system must not run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb

from hpcc.reapi.command import IMAGE_PROPERTY
from hpcc.reapi.digests import parse_message
from hpcc.reapi.limits import (
    MAX_ACTION_BYTES,
    MAX_COMMAND_BYTES,
    MAX_PROPERTIES,
    ReapiError,
)

_MAX_TEXT_CHARS: Final = 80
# The names that OSFamily, ISA and Arch have in REAPI's lexicon and among its clients.
_MACHINES: Final = {
    "x86_64": ("x86-64", "x86_64", "amd64"),
    "amd64": ("x86-64", "x86_64", "amd64"),
    "aarch64": ("arm-a64", "aarch64", "arm64"),
    "arm64": ("arm-a64", "aarch64", "arm64"),
}


def isa_names(machine: str) -> tuple[str, ...]:
    """Return how a machine's ISA is called, REAPI's name first; `machine` is that of `uname -m`."""
    return _MACHINES.get(machine.lower(), (machine.lower(),))


def check_action_platform(action: bytes, offered: Mapping[str, frozenset[str]]) -> None:
    """Check an action's platform; `offered` has the values of each property but the image.

    Raises:
        ReapiError: a property, or a value of one, is not offered; the text says what to do.
    """
    _check_all(parse_message(pb.Action, action, MAX_ACTION_BYTES).platform, offered)


def check_command_platform(command: bytes, offered: Mapping[str, frozenset[str]]) -> None:
    """Check a command's platform, as `check_action_platform` does.

    REAPI lets the action's replace it, but an engine may have chosen by either.
    """
    _check_all(parse_message(pb.Command, command, MAX_COMMAND_BYTES).platform, offered)


def _check_all(platform: pb.Platform, offered: Mapping[str, frozenset[str]]) -> None:
    if len(platform.properties) > MAX_PROPERTIES:
        raise ReapiError(f"more than {MAX_PROPERTIES} platform properties", reason="platform")
    for asked in platform.properties:
        if asked.name != IMAGE_PROPERTY:
            _check(asked.name, asked.value, offered)


def _check(name: str, value: str, offered: Mapping[str, frozenset[str]]) -> None:
    values = offered.get(name)
    if values is None:
        known = ", ".join(sorted({IMAGE_PROPERTY, *offered}))
        raise ReapiError(
            f"platform property {_short(name)} is unknown to this worker, which knows {known}:"
            " remove it from the client's execution properties, or let the engine match it, so that"
            " such actions get another worker",
            reason="platform",
        )
    if value not in values:
        raise ReapiError(
            f"platform property {name} is {_short(value)}, and this worker is"
            f" {' or '.join(sorted(values))}: add {name} to what the engine matches, so that such"
            " actions get another worker",
            reason="platform",
        )


def _short(text: str) -> str:
    return repr(text[:_MAX_TEXT_CHARS])
