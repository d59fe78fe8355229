"""The reader of docs/operate.md: what is typed where, and what is not typed by anybody."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import cast

import pytest

from hpcc_testkit.farm.booted import BootedMachine
from hpcc_testkit.operate.page import PageError, read_page
from hpcc_testkit.operate.typist import Typist

_PAGE = """# T

```sh
# on each machine: your addresses
A=a.example  B_C=reg/x@sha256:…
D=4                 # or 5
```

## One

```sh
# on s1 and s2, as root
cat > f.json <<END
{"a": "$A"}
END
status          # "2 live", or what it waits for
```

```json
{"no": "command"}
```

### Two

```
hpcc stats
```

```sh
# on d1, as yourself
login
```
"""


def test_the_blocks_of_a_page() -> None:
    page = read_page(_PAGE)
    assert page.site == {"A": "a.example", "B_C": "reg/x@sha256:…", "D": "4"}
    first, second = page.blocks
    assert (first.heading, first.machines, first.is_roots) == ("One", ("s1", "s2"), True)
    assert first.promised == ("2 live",)
    assert first.files == {"f.json": '{"a": "$A"}\n'}
    assert _PAGE.splitlines()[first.line - 1] == "# on s1 and s2, as root"
    assert (second.machines, second.is_roots, second.text) == (("d1",), False, "login\n")
    assert page.unmarked == (("Two", "hpcc stats"),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("```sh\nls\n", "does not end"),
        ("no block", "0 blocks of addresses"),
        (_PAGE + "```sh\n# on each machine: more\nE=1\n```\n", "2 blocks of addresses"),
    ],
)
def test_a_page_that_cannot_be_read(text: str, says: str) -> None:
    with pytest.raises(PageError, match=says):
        read_page(text)


@pytest.mark.parametrize("fence", ["```bash", "```shell", "  ```sh", "~~~"])
def test_commands_that_nobody_would_count_are_an_error(fence: str) -> None:
    with pytest.raises(PageError, match="another kind"):
        read_page(f"{_PAGE}{fence}\nrm -rf /\n{fence[:5].replace('b', '')}\n")


class _Shell:
    """A machine whose commands run here, with a separate home."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def spawn(self, *argv: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "--login", "-c", argv[-1]], env={"HOME": str(self._home), "PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("commands", "says"),
    [
        ("cat > f <<END\n$A\nEND\ntouch last", ""),
        ("cat > f <<'END'\n$A\n END\ntouch last", "did not run"),
        ("cat <<'END'\n$A\n END\ntouch last", "did not run"),
        ("cat <<END\n$A\n END\ntouch last", "here-document"),
        ("exit 0\ntouch last", "did not run"),
        ("false\ntouch last", "exit 1"),
        ("touch last\nfalse && true", "exit 1"),
    ],
)
def test_a_block_that_ended_well_has_run_all_its_commands(
    tmp_path: Path, commands: str, says: str
) -> None:
    site = "```sh\n# on each machine: yours\nA=a.example\n```\n"
    page = read_page(f"{site}```sh\n# on s1, as root\n{commands}\n```\n")
    machine = cast("BootedMachine", _Shell(tmp_path))
    typist = Typist(page, {"s1": machine}, {"A": "here"})
    if says:
        with pytest.raises(AssertionError, match=says):
            typist.type_all()
    else:
        typist.type_all()
        assert (tmp_path / "f").read_text() == "here\n"
        assert (tmp_path / "last").exists()


def test_what_a_login_shell_does_at_its_end_is_no_command_of_the_block(tmp_path: Path) -> None:
    (tmp_path / ".bash_logout").write_text("false\n")
    page = read_page("""```sh
# on each machine: yours
A=a.example
```
## One
```sh
# on s1, as yourself
pwd
```
## Two
```sh
# on s1, as yourself
pwd
```
""")
    typist = Typist(page, {"s1": cast("BootedMachine", _Shell(tmp_path))}, {"A": "here"})
    typist.type_all()
    assert typist.untyped() == []
    *blocks, in_all, since = typist.report("Two").splitlines()
    assert [line.rpartition(": ")[2] for line in blocks] == ["One", "Two"]
    assert in_all.endswith("in all")
    assert since.endswith("since 'Two'")
