"""A command in a mount namespace with the machine's programs and, at `/src`, one directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from hpcc.core import SOURCE_ROOT

# In a tmpfs: what an image has, without `/opt` and `/usr/src`, which belong to the machine.
_NAMESPACE: Final = """
set -e
mount -t tmpfs none "$1"
for name in bin sbin lib lib32 lib64 libx32 usr etc dev proc; do
    if [ -L "/$name" ]; then cp -P "/$name" "$1/$name"
    elif [ -d "/$name" ]; then mkdir "$1/$name"; mount --rbind "/$name" "$1/$name"; fi
done
[ ! -d "$1/usr/src" ] || mount -t tmpfs none "$1/usr/src"
mkdir "$1/src" "$1/tmp"
mount --bind "$2" "$1/src"
new=$1; shift 2
exec chroot "$new" /usr/bin/env -i "$@"
"""


def placed_command(
    argv: Sequence[str], source: Path, place: Path, cwd: str, env: Mapping[str, str]
) -> list[str]:
    """Return the command that runs `argv` with `source` at `/src`. It needs root.

    `place` is an empty directory, where the namespace has its root. `cwd` is relative to `/src`.
    """
    inside = f"{SOURCE_ROOT}/{cwd}".rstrip("/")
    words = [f"--chdir={inside}", *(f"{name}={value}" for name, value in env.items()), *argv]
    start = ["unshare", "--mount", "--propagation=private", "sh", "-c", _NAMESPACE, "sh"]
    return [*start, str(place), str(source), *words]
