"""The command of an action: argv, environment, outputs, and the image it must run in."""

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
# Placement hints of stock clients that change nothing here.
_IGNORED_PROPERTIES: Final = frozenset({"OSFamily", "Arch", "ISA", "Pool"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec:
    """A command with every field checked. `cwd` is "" for the root.

    `outputs` are relative to `cwd`, as REAPI spells them; `root_outputs` are the same files
    from the root. `directories` are those of both kinds of output that may be directories.
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str
    outputs: tuple[str, ...]
    # None in a command that leaves the platform to its action, as API 2.2 and after may.
    image: ImageRef | None
    directories: tuple[str, ...] = ()

    def root_outputs(self) -> tuple[str, ...]:
        return tuple(check_guest_path(_resolve(self.cwd, o)) for o in self.outputs)

    def root_directories(self) -> tuple[str, ...]:
        return tuple(check_guest_path(_resolve(self.cwd, d)) for d in self.directories)


def encode_command(spec: CommandSpec) -> bytes:
    """Encode canonically: sorted environment and outputs, image as platform property."""
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
    return pb.Platform(
        properties=[pb.Platform.Property(name=IMAGE_PROPERTY, value=image.platform_value)]
    )


def parse_command(data: bytes) -> CommandSpec:
    """Read a command from a hostile peer; `output_files` of API 2.0 clients are honoured.

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
    """Read where a command wants to run; see `parse_command`."""
    return parse_command(data).image


def parse_platform_image_or_none(platform: pb.Platform) -> ImageRef | None:
    """Return the pinned image of a platform; None for a platform that says nothing.

    Raises:
        ReapiError: several or an unpinned one, none beside other properties, or a property that
            we cannot honour.
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
    """Return what may be files and what may be directories: `output_paths` may be either."""
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
    # It would be in the result twice.
    if any(path.startswith(f"{directory}/") for directory in directories for path in paths):
        raise ReapiError("an output lies in an output directory", reason="output-directories")


def _checked(path: str) -> str:
    try:
        return check_guest_path(path)
    except CallerError as error:
        raise ReapiError(str(error), reason="bad-path") from error


def _resolve(cwd: str, path: str) -> str:
    """Join without a file system: `..` may climb within the root, never above it.

    Raises:
        ReapiError: it climbs above the root or is absolute.
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
