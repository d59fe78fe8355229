"""Which output may come next: declared files in order, then directories and their content."""

from __future__ import annotations

from hpcc.core import MAX_OUTPUT_ENTRIES, CallerError, ExecRequest, check_guest_path


class OutputOrder:
    """Checks the path of each output that begins. The paths are hostile, as all guest data."""

    def __init__(self, request: ExecRequest) -> None:
        self._files, self._directories = request.outputs, request.output_directories
        self._next_file = self._next_directory = 0
        # The output directory whose entries now arrive, and the paths seen below it.
        self._root = ""
        self._seen_directories: set[str] = set()
        self._seen_files: set[str] = set()
        self._entries = 0

    def take(self, path: str) -> bool:
        """Return whether this path may begin now.

        A path that ends in `/` is a directory. The entries of a directory follow it. Each path may
        come once, and there may be at most `MAX_OUTPUT_ENTRIES` entries of directories.
        """
        if path.endswith("/"):
            return self._directory(path[:-1])
        if self._root:
            return self._below(path)
        try:
            self._next_file = self._files.index(path, self._next_file) + 1
        except ValueError:
            return False
        self._seen_files.add(path)
        return True

    def _directory(self, path: str) -> bool:
        try:
            at = self._directories.index(path, self._next_directory)
        except ValueError:
            return self._below(path, is_directory=True)
        if path in self._seen_files:
            return False  # it came as a file
        self._root, self._next_directory = path, at + 1
        self._seen_directories = {path}
        return self._count()

    def _below(self, path: str, *, is_directory: bool = False) -> bool:
        """Return whether this is a new entry of the open directory whose own parent has come."""
        try:
            check_guest_path(path)
        except CallerError:
            return False
        is_new = path not in self._seen_directories and path not in self._seen_files
        if not is_new or path.rpartition("/")[0] not in self._seen_directories:
            return False
        (self._seen_directories if is_directory else self._seen_files).add(path)
        return self._count()

    def _count(self) -> bool:
        self._entries += 1
        return self._entries <= MAX_OUTPUT_ENTRIES
