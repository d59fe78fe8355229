"""What a guest sent of one compile, checked as it comes."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpcc.core import MAX_STDIO_BYTES, IntegrityError, OutputEvent, ResultEvent, StdioEvent


@dataclass(slots=True)
class Harvest:
    """What a guest sent; everything in it is hostile until `check` passed it."""

    allowed: frozenset[str]
    max_output_bytes: int
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    result: ResultEvent | None = None
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
            or path not in self.allowed
            or not is_next
            or self.output_bytes > self.max_output_bytes
        ):
            raise _broken("output")
        self.open_path = path
        self.open_data += data
        if last:
            self.outputs[path] = (bytes(self.open_data), is_executable)
            self.open_path, self.open_data = "", bytearray()

    def check(self) -> ResultEvent:
        if self.result is None or self.open_path:
            raise _broken("end")
        return self.result


def _broken(what: str) -> IntegrityError:
    return IntegrityError(f"the guest broke the protocol: {what}", reason="guest-protocol")
