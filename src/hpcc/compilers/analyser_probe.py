"""What clang-tidy and cppcheck report about themselves for the probe: one script on host and guest.

Problem: an analyser preprocesses to no file, so the probe of a compiler cannot ask it. A finding
depends on the tool's own release, on the headers that it reads and on the files that it brings.

Rule: a shell script runs the tool once, lets it name those files, and concatenates them with their
names. One digest stands for all of it. Two tools with the same version, build and digest read the
same, under the same names, as far as the probe reaches. cppcheck tells no build, so its program is
part of the digest.

Example: `clang-tidy-19` reads the C++ headers of the probe's source. The first line of the output
is their names, and their contents follow.

What must never happen: an analyser keeps an image from being understood. The script therefore ends
with status 0 whatever the tool does, and without an output nothing is compared. An image in which
files beside the tool decide about findings, such as `/.clang-tidy`, gets no answer at all: no
client sends what such a file would judge.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from hpcc.core import CallerError, Family

TIDY_NAME: Final = re.compile(r"clang-tidy(?:-[0-9][0-9.]*)?")
CPPCHECK_NAME: Final = re.compile(r"cppcheck(?:-[0-9][0-9.]*)?")
EVERYTHING: Final = "(everything that the probe reads)"
# cppcheck checks for the platform of its flags and is the same program for each.
ANY_TARGET: Final = "any"
_LIST: Final = "probe.d"
# Behind `probe`: program, source, output. A name without a slash in the depfile is a target.
_TIDY: Final = """
for d in '' /usr /usr/include /usr/lib /usr/local /usr/local/include; do
  [ -e "$d/.clang-tidy" ] && exit 0
done
[ -e /.clang-format ] && exit 0
[ -e /_clang-format ] && exit 0
"$1" '--config={}' '--checks=-*,misc-unused-alias-decls' --extra-arg=-v \
  '--extra-arg=-Wp,-MD,probe.d' "$2" -- -xc++ >/dev/null || exit 0
set -f
n=
for w in $(cat probe.d); do
  case $w in */"$2") ;; /*) n="$n $w" ;; esac
done
{ echo $n; cat $n </dev/null; } >"$3"
exit 0
"""
_CPPCHECK: Final = """
[ -e /files.txt ] && exit 0
"$1" --debug-lookup=all --xml -q /dev/null >probe.d || exit 0
p=$(command -v "$1")
n=
l=
while read -r w; do
  case $w in "looking for library '/"*"/std.cfg'") ;; *) continue ;; esac
  w=${w#*\\'}
  w=${w%/std.cfg\\'}
  [ -e "$w/cppcheck.cfg" ] && exit 0
  [ -e "${w%/*}/cppcheck.cfg" ] && exit 0
  n="$n $w"
  for f in "$w"/*.cfg; do [ -f "$f" ] && n="$n $f" && l="$l $f"; done
done <probe.d
{ echo $n; cat $p $l </dev/null; } >"$3"
exit 0
"""
_SCRIPTS: Final[dict[Family, str]] = {"clang-tidy": _TIDY, "cppcheck": _CPPCHECK}
_CPPCHECK_VERSION: Final = re.compile(rb'<cppcheck version="(\d{1,6}(?:\.\d{1,6}){0,3})"')
_MAX_FILES: Final = 4096


def analyser_kind(name: str) -> Family | None:
    """Return the family of an analyser with this name; None for other programs."""
    if TIDY_NAME.fullmatch(name):
        return "clang-tidy"
    return "cppcheck" if CPPCHECK_NAME.fullmatch(name) else None


def analyser_probe(kind: Family, program: str, source: str, output: str) -> tuple[str, ...]:
    """Return the command of the probe: the shell, with the program as an argument."""
    return "sh", "-c", _SCRIPTS[kind], "probe", program, source, output


def cppcheck_version(about: bytes) -> str:
    """Return the version that cppcheck's XML shows.

    Raises:
        CallerError: it shows none.
    """
    found = _CPPCHECK_VERSION.search(about)
    if found is None:
        raise CallerError("no answer of cppcheck", reason="toolchain")
    return found[1].decode()


def digest_of_probe(text: bytes) -> tuple[tuple[str, str], ...]:
    """Return what stands for the headers of an analyser: one digest; empty without an output."""
    is_whole = len(text.partition(b"\n")[2]) > 0
    return ((EVERYTHING, hashlib.sha256(text).hexdigest()),) if is_whole else ()


def files_of_probe(text: bytes) -> frozenset[str]:
    """Return the files that a probe of this machine named.

    Raises:
        CallerError: there are too many of them.
    """
    names = text.partition(b"\n")[0].split(b" ")
    if len(names) > _MAX_FILES:
        raise CallerError("the probe reads too many files", reason="toolchain")
    return frozenset(n.decode("utf-8", "surrogateescape") for n in names if n.startswith(b"/"))
