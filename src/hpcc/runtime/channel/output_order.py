"""Which output may come next: declared files in order, then directories with what is below them."""

from __future__ import annotations

from hpcc.core import MAX_OUTPUT_ENTRIES, CallerError, ExecRequest, check_guest_path


class OutputOrder:
    """Takes the path of each output that begins; hostile, as all that a guest says."""

    def __init__(self, request: ExecRequest) -> None:
        self._files, self._directories = request.outputs, request.output_directories
        self._next_file = self._next_directory = 0
        # The output directory that is being told of, and what was told below it.
        self._root = ""
        self._seen_directories: set[str] = set()
        self._seen_files: set[str] = set()
        self._entries = 0

    def take(self, path: str) -> bool:
        """Say whether this path may begin now."""
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
        """Whether this is an entry of the open directory, new, and in a directory told of."""
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
