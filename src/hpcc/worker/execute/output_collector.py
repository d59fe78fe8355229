"""Collects the outputs of one execution from a guest, checks them, and stores what was declared."""

from __future__ import annotations

import asyncio
import io
from dataclasses import dataclass, field
from typing import Final

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

_SMALL_BYTES: Final = 64 << 10


@dataclass(slots=True)
class GuestOutputCollector:
    """What a guest sent for one execution. All of it is hostile; `check` ends the collection."""

    request: ExecRequest
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    result: ResultEvent | None = None
    # Bytes and executable bit by path; the path of a directory ends with "/".
    outputs: dict[str, tuple[bytes, bool]] = field(default_factory=dict)
    open_path: str = ""
    # Its value is its buffer: an output of any size is in memory once.
    open_data: io.BytesIO = field(default_factory=io.BytesIO)
    output_bytes: int = 0

    def take(self, event: StdioEvent | ResultEvent | OutputEvent) -> None:
        """Add an event. The order is stdio, one result, then outputs file by file.

        Raises:
            IntegrityError: the event is out of order, exceeds a limit, or names a path that the
                action did not declare.
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
        if last and not self.open_data.tell():
            self.outputs[path] = (data, is_executable)
            self.open_path = ""
            return
        self.open_data.write(data)
        if last:
            self.outputs[path] = (self.open_data.getvalue(), is_executable)
            self.open_path, self.open_data = "", io.BytesIO()

    def _is_asked(self, path: str) -> bool:
        return path in self.request.outputs or any(
            path.startswith(f"{directory}/") for directory in self.request.output_directories
        )

    def files_below(self, directory: str) -> list[bytes]:
        """Return the contents of the files below an output directory, in the order of arrival."""
        return [
            data
            for path, (data, _) in self.outputs.items()
            if path.startswith(f"{directory}/") and not path.endswith("/")
        ]

    def tree(self, directory: str) -> bytes:
        """Encode an output directory as a REAPI `Tree`.

        Raises:
            CallerError: the paths that the guest sent do not form a valid directory.
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
        """Return the digests for the audit row, by path; a directory counts by its `Tree`."""
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
        """Return the result event.

        Raises:
            IntegrityError: the guest sent no result, or its last output is incomplete.
        """
        if self.result is None or self.open_path:
            raise _broken("end")
        return self.result


async def keep_outputs(
    store: BlobStore, command: CommandSpec, collector: GuestOutputCollector
) -> tuple[ResultOutput, ...]:
    """Store the declared outputs; a directory is stored as its files and its `Tree`.

    Returns the outputs that the guest sent, with paths as the command spells them.

    Raises:
        InfrastructureError: the store cannot take an output.
        CallerError: the paths that the guest sent do not form a valid directory.
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
    # A small one is digested sooner than another thread starts.
    is_small = len(data) <= _SMALL_BYTES
    blob = Blob.of(data) if is_small else await asyncio.to_thread(Blob.of, data)
    await store.put(blob)
    return blob


def _broken(what: str) -> IntegrityError:
    return IntegrityError(f"the guest broke the protocol: {what}", reason="guest-protocol")
