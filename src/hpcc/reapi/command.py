"""Encodes and parses commands of actions: argv, environment, outputs, and the image to run in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb

from hpcc.core import (
    MAX_ARGV_BYTES,
    MAX_OUTPUTS,
    CallerError,
    ImageRef,
    check_guest_path,
)
from hpcc.reapi.digests import parse_message
from hpcc.reapi.limits import MAX_COMMAND_BYTES, MAX_ENV, MAX_PROPERTIES, ReapiError

IMAGE_PROPERTY: Final = "container-image"
# Placement hints of stock clients, which are ignored here.
_IGNORED_PROPERTIES: Final = frozenset({"OSFamily", "Arch", "ISA", "Pool"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec:
    """A command with every field checked. `cwd` is "" for the root.

    `outputs` are paths of output files relative to `cwd`, as REAPI spells them; `root_outputs`
    are the same paths relative to the root. `directories` are paths, also relative to `cwd`, that
    may be output directories; a path can be in both.
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str
    outputs: tuple[str, ...]
    # None if the command leaves the platform to its action, as API 2.2 and later allow.
    image: ImageRef | None
    directories: tuple[str, ...] = ()

    def root_outputs(self) -> tuple[str, ...]:
        """Return `outputs` relative to the root.

        Raises:
            CallerError: a path leaves the root, or is not normal.
        """
        return tuple(check_guest_path(_resolve(self.cwd, o)) for o in self.outputs)

    def root_directories(self) -> tuple[str, ...]:
        """Return `directories` relative to the root; raises as `root_outputs`."""
        return tuple(check_guest_path(_resolve(self.cwd, d)) for d in self.directories)


def encode_command(spec: CommandSpec) -> bytes:
    """Encode a command canonically: sorted environment and outputs, image as platform property."""
    message = pb.Command(
        arguments=spec.argv,
        environment_variables=[
            pb.Command.EnvironmentVariable(name=n, value=v) for n, v in sorted(spec.env)
        ],
        output_paths=sorted(spec.outputs, key=str.encode),
        working_directory=spec.cwd,
        platform=platform_of(spec.image) if spec.image is not None else None,
    )
    return message.SerializeToString(deterministic=True)


def platform_of(image: ImageRef) -> pb.Platform:
    """Return the platform message that names an image."""
    return pb.Platform(
        properties=[pb.Platform.Property(name=IMAGE_PROPERTY, value=image.platform_value)]
    )


def parse_command(data: bytes) -> CommandSpec:
    """Parse a command from a hostile peer, with the output fields of API 2.0 or later.

    Raises:
        ReapiError: a rule or a limit is broken.
    """
    message = parse_message(pb.Command, data, MAX_COMMAND_BYTES)
    argv = tuple(message.arguments)
    if not argv or not argv[0]:
        raise ReapiError("command has no arguments")
    env = tuple((v.name, v.value) for v in message.environment_variables)
    _check_env(env)
    if sum(len(a.encode()) + 1 for a in argv) + sum(
        len(n.encode()) + len(v.encode()) + 2 for n, v in env
    ) > MAX_ARGV_BYTES or any("\0" in a for a in argv):
        raise ReapiError(f"argv and env exceed {MAX_ARGV_BYTES} bytes or hold a zero byte")
    outputs, directories = _outputs(message)
    spec = CommandSpec(
        argv=argv,
        env=env,
        cwd=_checked(message.working_directory) if message.working_directory else "",
        outputs=outputs,
        image=parse_platform_image_or_none(message.platform),
        directories=directories,
    )
    _check_outputs(spec)
    return spec


def image_of_command(data: bytes) -> ImageRef | None:
    """Return a command's image, or None if its action names it.

    Raises:
        ReapiError: as `parse_command`.
    """
    return parse_command(data).image


def parse_platform_image_or_none(platform: pb.Platform) -> ImageRef | None:
    """Return the pinned image of a platform; None for a platform without properties.

    Raises:
        ReapiError: there are several images or an unpinned one, properties without an image, or a
            property that hpcc does not support.
    """
    if not platform.properties:
        return None
    if len(platform.properties) > MAX_PROPERTIES:
        raise ReapiError("too many platform properties")
    images = [p.value for p in platform.properties if p.name == IMAGE_PROPERTY]
    others = {p.name for p in platform.properties} - {IMAGE_PROPERTY} - _IGNORED_PROPERTIES
    if others:
        raise ReapiError(f"unknown platform property {min(others)[:64]!r}", reason="platform")
    if len(images) != 1:
        raise ReapiError(f"platform needs exactly one {IMAGE_PROPERTY}", reason="platform")
    try:
        return ImageRef.parse(images[0])
    except CallerError as error:
        raise ReapiError(str(error), reason=error.reason) from error


def _check_env(env: Iterable[tuple[str, str]]) -> None:
    names = [n for n, _ in env]
    if len(names) > MAX_ENV or len(set(names)) != len(names):
        raise ReapiError(f"more than {MAX_ENV} environment variables, or one twice")
    if any(not n or "=" in n or "\0" in n or "\0" in v for n, v in env):
        raise ReapiError("an environment variable has an impossible name or value")


def _outputs(message: pb.Command) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the paths that may be files and those that may be directories.

    Each of the `output_paths` may be either.
    """
    files = tuple(message.output_paths) or tuple(message.output_files)
    directories = tuple(message.output_paths) or tuple(message.output_directories)
    for paths in (files, directories):
        if len(paths) > MAX_OUTPUTS or len(set(paths)) != len(paths):
            raise ReapiError(f"more than {MAX_OUTPUTS} outputs, or one twice")
    return files, directories


def _check_outputs(spec: CommandSpec) -> None:
    try:
        directories = spec.root_directories()
        paths = (*spec.root_outputs(), *directories)
    except CallerError as error:
        raise ReapiError("an output path leaves the input root", reason="bad-path") from error
    # Such an output would be in the result twice.
    if any(path.startswith(f"{directory}/") for directory in directories for path in paths):
        raise ReapiError("an output lies in an output directory", reason="output-directories")


def _checked(path: str) -> str:
    try:
        return check_guest_path(path)
    except CallerError as error:
        raise ReapiError(str(error), reason="bad-path") from error


def _resolve(cwd: str, path: str) -> str:
    """Join `cwd` and `path` as text. `..` may go up inside the root.

    Raises:
        ReapiError: the path goes above the root or is absolute.
    """
    if path.startswith("/"):
        raise ReapiError("an output path is absolute", reason="bad-path")
    parts = cwd.split("/") if cwd else []
    for part in path.split("/"):
        if part == "..":
            if not parts:
                raise ReapiError("an output path leaves the input root", reason="bad-path")
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)
