"""What one execution's guest sent, gathered under suspicion, and what of it is kept."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hpcc.core import (
    MAX_STDIO_BYTES,
    Blob,
    Digest,
    ExecRequest,
    InputFile,
    IntegrityError,
    OutputEvent,
    ResultEvent,
    StdioEvent,
)
from hpcc.ports import BlobStore
from hpcc.reapi.command import CommandSpec
from hpcc.reapi.output_tree import encode_output_tree
from hpcc.reapi.result import ResultOutput


@dataclass(slots=True)
class GuestOutputCollector:
    """What a guest sent; everything in it is hostile until `check` passed it."""

    request: ExecRequest
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    result: ResultEvent | None = None
    # By path; that of a directory ends with "/".
    outputs: dict[str, tuple[bytes, bool]] = field(default_factory=dict)
    open_path: str = ""
    open_data: bytearray = field(default_factory=bytearray)
    output_bytes: int = 0

    def take(self, event: StdioEvent | ResultEvent | OutputEvent) -> None:
        """Add an event.

        Raises:
            IntegrityError: it is out of order, too much, or names a file nobody asked for.
        """
        match event:
            case StdioEvent(stream, data):
                sink = self.stdout if stream == "stdout" else self.stderr
                if self.result is not None or len(sink) + len(data) > MAX_STDIO_BYTES:
                    raise _broken("stdio")
                sink += data
            case ResultEvent():
                if self.result is not None:
                    raise _broken("second result")
                self.result = event
            case OutputEvent(path, data, is_executable, last):
                self._output(path, data, is_executable=is_executable, last=last)

    def _output(self, path: str, data: bytes, *, is_executable: bool, last: bool) -> None:
        self.output_bytes += len(data)
        is_next = path == self.open_path if self.open_path else path not in self.outputs
        if (
            self.result is None
            or not self._is_asked(path)
            or not is_next
            or self.output_bytes > self.request.limits.output_bytes
        ):
            raise _broken("output")
        self.open_path = path
        self.open_data += data
        if last:
            self.outputs[path] = (bytes(self.open_data), is_executable)
            self.open_path, self.open_data = "", bytearray()

    def _is_asked(self, path: str) -> bool:
        return path in self.request.outputs or any(
            path.startswith(f"{directory}/") for directory in self.request.output_directories
        )

    def files_below(self, directory: str) -> list[bytes]:
        """Return the files of an output directory."""
        return [
            data
            for path, (data, _) in self.outputs.items()
            if path.startswith(f"{directory}/") and not path.endswith("/")
        ]

    def tree(self, directory: str) -> bytes:
        """Encode an output directory as its `Tree`.

        Raises:
            CallerError: the guest told of one that cannot be.
        """
        files: list[InputFile] = []
        directories: list[str] = []
        root = f"{directory}/"
        for path, (data, is_executable) in self.outputs.items():
            below = path.removeprefix(root)
            if path in {root, below}:
                continue
            if below.endswith("/"):
                directories.append(below[:-1])
            else:
                files.append(InputFile(below, Digest.of(data), is_executable))
        return encode_output_tree(files, directories)

    def digests(self) -> dict[str, Digest]:
        """Return what each declared output is, as an audit row says it: a directory by its tree."""
        found = {
            path: Digest.of(self.outputs[path][0])
            for path in self.request.outputs
            if path in self.outputs
        }
        for directory in self.request.output_directories:
            if f"{directory}/" in self.outputs:
                found[directory] = Digest.of(self.tree(directory))
        return found

    def check(self) -> ResultEvent:
        if self.result is None or self.open_path:
            raise _broken("end")
        return self.result


async def keep_outputs(
    store: BlobStore, command: CommandSpec, collector: GuestOutputCollector
) -> tuple[ResultOutput, ...]:
    """Put what was asked for into the store; a directory as its files and its `Tree`.

    Raises:
        InfrastructureError: the store cannot take it.
        CallerError: the guest told of a directory that cannot be.
    """
    kept: list[ResultOutput] = []
    for spelled, path in zip(command.outputs, command.root_outputs(), strict=True):
        found = collector.outputs.get(path)
        if found is not None:
            data, is_executable = found
            kept.append(ResultOutput(spelled, (await _put(store, data)).digest, is_executable))
    for spelled, path in zip(command.directories, command.root_directories(), strict=True):
        if f"{path}/" not in collector.outputs:
            continue
        for data in collector.files_below(path):
            await _put(store, data)
        tree = await asyncio.to_thread(collector.tree, path)
        kept.append(ResultOutput(f"{spelled}/", (await _put(store, tree)).digest))
    return tuple(kept)


async def _put(store: BlobStore, data: bytes) -> Blob:
    blob = await asyncio.to_thread(Blob.of, data)
    await store.put(blob)
    return blob


def _broken(what: str) -> IntegrityError:
    return IntegrityError(f"the guest broke the protocol: {what}", reason="guest-protocol")
