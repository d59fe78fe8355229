"""Scenarios of files that were written a moment before the compile, or while it ran."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hpcc_testkit.trust.steps import Edit, Scenario, run_tool, step, write

_COMMAND: Final = "%ROOT%/tools/{cc} -Iinc -c main.c -o main.o"
# A compiler that changes the header in place after it has read it, if a file asks for that.
_FLIPPING: Final = """
#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int n, char **v) {{
  int status = 0, is_compile = 0;
  for (int i = 1; i < n; i++) is_compile |= !strcmp(v[i], "main.c");
  v[0] = "/usr/bin/{cc}";
  if (!is_compile || access("flip", F_OK)) return execv(v[0], v);
  pid_t child = fork();
  if (!child) _exit(execv(v[0], v));
  waitpid(child, &status, 0);
  int fd = open("inc/v.h", O_WRONLY);
  if (pwrite(fd, "2", 1, 10) != 1) return 1;
  close(fd);
  unlink("flip");
  return WEXITSTATUS(status);
}}
"""


def _use(scenario: str, cc: str) -> Edit:
    """Write another text for each scenario: equal texts hit each other by content."""
    return write("main.c", f"#include <v.h>\nint young_{scenario}_{cc} = V;\n")


def _value(number: int) -> Edit:
    return write("inc/v.h", f"#define V {number}\n")


def _compiler(cc: str) -> Edit:
    def edit(root: Path) -> None:
        write("tools/wrapper.c", _FLIPPING.format(cc=cc))(root)
        run_tool("gcc", "-s", "tools/wrapper.c", "-o", f"tools/{cc}")(root)

    return edit


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
        asks = _COMMAND.format(cc=cc)
        flip = write("flip", "")
        yield Scenario(
            name=f"young-header-changes-while-it-is-compiled-{cc}",
            steps=(
                step(asks, "miss", _use("flip", cc), _value(1), _compiler(cc)),
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
