"""Scenarios of files that were written a moment before the compile, or while it ran."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hpcc_testkit.trust.steps import Edit, Scenario, run_tool, step, write

_COMMAND: Final = "{cc} -Btools/ -Iinc -c main.c -o main.o"
# An assembler whose object is the text that it reads. It runs after the compiler has read the
# header, and changes that in place if a file asks for it.
_FLIPPING: Final = """
#include <fcntl.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>
int main(int n, char **v) {
  for (int i = 1; i + 1 < n; i++) {
    if (strcmp(v[i], "-o")) continue;
    int from = open(v[n - 1], O_RDONLY), to = open(v[i + 1], O_WRONLY | O_CREAT | O_TRUNC, 0644);
    while (sendfile(to, from, 0, 1 << 20) > 0) continue;
    if (access("flip", F_OK)) return 0;
    int fd = open("inc/v.h", O_WRONLY);
    if (pwrite(fd, "2", 1, 10) != 1) return 1;
    close(fd);
    unlink("flip");
  }
  return 0;
}
"""


def _use(scenario: str, cc: str) -> Edit:
    """Write another text for each scenario: equal texts hit each other by content."""
    return write("main.c", f"#include <v.h>\nint young_{scenario}_{cc} = V;\n")


def _value(number: int) -> Edit:
    return write("inc/v.h", f"#define V {number}\n")


def _assembler(root: Path) -> None:
    write("tools/as.c", _FLIPPING)(root)
    run_tool("gcc", "-s", "-w", "tools/as.c", "-o", "tools/as")(root)


def scenarios() -> Iterator[Scenario]:
    """Yield every scenario of this family."""
    for cc in ("gcc", "clang"):
        plain = f"{cc} -Iinc -c main.c -o main.o"
        yield Scenario(
            name=f"young-header-changes-in-the-same-tick-{cc}",
            steps=(
                step(plain, "miss", _use("tick", cc), _value(1)),
                step(plain, "nohit", _value(2), settles=False),
                step(plain, "nohit", _value(3), settles=False),
                step(plain, "nohit", _value(4), _value(5), settles=False),
                # Whether these were kept depends on the file system; they must be right.
                step(plain, "any", _value(2), settles=False),
                step(plain, "any", _value(5), _value(3), settles=False),
                step(plain, "nohit", _value(6), settles=False),
                step(plain, "hit", _value(1), settles=False),
            ),
        )
        asks = _COMMAND.format(cc=cc if cc == "gcc" else f"{cc} -fno-integrated-as")
        flip = write("flip", "")
        yield Scenario(
            name=f"young-header-changes-while-it-is-compiled-{cc}",
            steps=(
                step(asks, "miss", _use("flip", cc), _value(1), _assembler),
                step(asks, "nohit", _value(3), flip, settles=False),
                # The header is a 2 now, and the object of the step before was made from a 3.
                step(asks, "nohit", settles=False),
                step(asks, "nohit", _value(3), settles=False),
                step(asks, "nohit", _value(4), flip, settles=False),
                step(asks, "any", _value(2), settles=False),
                step(asks, "nohit", _value(4), settles=False),
                step(asks, "hit", _value(1), settles=False),
            ),
        )
