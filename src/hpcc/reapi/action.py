"""Encodes and parses actions. The digest of an action is the key of a remote compile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from google.protobuf.duration_pb2 import Duration

from hpcc.core import Digest, ImageRef
from hpcc.reapi.command import parse_platform_image_or_none, platform_of
from hpcc.reapi.digests import digest_from_proto, digest_to_proto, parse_message
from hpcc.reapi.limits import MAX_ACTION_BYTES, ReapiError

# Raise it with any change that makes an old result wrong for a new request: of the encoding here,
# the include scan, the guest's layout or environment, or the flags that hpcc injects.
ACTION_FORMAT: Final = 2
# `Action.timeout` is in the key, so hpcc sends one constant. The worker sets the real limits.
TIMEOUT_SECONDS: Final = 600
# A stock client may ask for a timeout up to this.
MAX_TIMEOUT_SECONDS: Final = 3600
MAX_SALT_BYTES: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionSpec:
    """An action with every field checked."""

    command: Digest
    input_root: Digest
    # None if the action leaves the platform to its command, as in API 2.1 and earlier.
    image: ImageRef | None
    salt: bytes
    timeout_seconds: float = TIMEOUT_SECONDS
    do_not_cache: bool = False


def salt_of(*, agent_version: str, builder_version: str) -> bytes:
    """Return the salt of the current format: the versions that can also change an output."""
    return f"hpcc/{ACTION_FORMAT};agent={agent_version};builder={builder_version}".encode()


def encode_action(spec: ActionSpec) -> bytes:
    """Encode an action canonically; `Digest.of` the returned bytes is the cache key."""
    seconds = int(spec.timeout_seconds)
    message = pb.Action(
        command_digest=digest_to_proto(spec.command),
        input_root_digest=digest_to_proto(spec.input_root),
        timeout=Duration(seconds=seconds),
        do_not_cache=spec.do_not_cache,
        salt=spec.salt,
        platform=platform_of(spec.image) if spec.image is not None else None,
    )
    return message.SerializeToString(deterministic=True)


def parse_action(data: bytes) -> ActionSpec:
    """Parse an action from a hostile peer. An absent or zero timeout is `TIMEOUT_SECONDS`.

    Raises:
        ReapiError: a rule or a limit is broken; or the platform names an image that is not
            pinned, or has properties and no image.
    """
    message = parse_message(pb.Action, data, MAX_ACTION_BYTES)
    if len(message.salt) > MAX_SALT_BYTES:
        raise ReapiError(f"salt is longer than {MAX_SALT_BYTES} bytes")
    timeout = float(TIMEOUT_SECONDS)
    if message.HasField("timeout"):
        timeout = message.timeout.seconds + message.timeout.nanos / 1e9
        if not 0 <= timeout <= MAX_TIMEOUT_SECONDS:
            raise ReapiError(f"timeout must be at most {MAX_TIMEOUT_SECONDS} s", reason="timeout")
    return ActionSpec(
        command=digest_from_proto(message.command_digest),
        input_root=digest_from_proto(message.input_root_digest),
        image=parse_platform_image_or_none(message.platform),
        salt=message.salt,
        timeout_seconds=timeout or TIMEOUT_SECONDS,
        do_not_cache=message.do_not_cache,
    )


def image_of_action(data: bytes) -> tuple[ImageRef | None, Digest]:
    """Return an action's image (None if its command names it) and its command's digest.

    Raises:
        ReapiError: as `parse_action`.
    """
    spec = parse_action(data)
    return spec.image, spec.command
