"""What an analyser tells about itself: names, versions, and one digest of all that it reads."""

from __future__ import annotations

import pytest

from hpcc._proto import scheduler_pb2 as pb
from hpcc.compilers.analyser_probe import EVERYTHING, files_of_probe
from hpcc.compilers.probe import header_files, probe_command, probe_kind, read_probe
from hpcc.core import CallerError, ImageDigest, ImageToolchains, Toolchain, compare
from hpcc.rpc.scheduler.toolchain_messages import image_message, image_or_none

TIDY_ABOUT = b"Debian clang version 19.1.7 (3+b1)\nTarget: x86_64-pc-linux-gnu\n"
CPPCHECK_ABOUT = b'<results version="2">\n    <cppcheck version="2.17.1"/>\n'
TEXT = b"/usr/include/stdio.h /usr/include/math.h\nint puts(const char *);\n"
GCC = Toolchain(names=("gcc",), family="gcc", version="14.2.0", target="x86_64-linux-gnu")


def test_names_of_analysers() -> None:
    names = ("clang-tidy", "clang-tidy-19", "cppcheck", "clang-tidy-diff", "clang-19", "tidy")
    assert list(map(probe_kind, names)) == ["clang-tidy", "clang-tidy", "cppcheck", "", "c", ""]


def test_the_shell_gets_names_as_arguments_and_never_as_code() -> None:
    words = probe_command("clang-tidy", "/x/$(touch y)", "probe.cc", "probe.i")
    assert words[:2] == ("sh", "-c")
    assert words[3:] == ("probe", "/x/$(touch y)", "probe.cc", "probe.i")
    assert "/x/" not in words[2]


def test_an_answer_is_read() -> None:
    tidy = read_probe(("clang-tidy-19",), TIDY_ABOUT, TEXT)
    assert (tidy.family, tidy.version, tidy.target) == (
        "clang-tidy", "19.1.7", "x86_64-pc-linux-gnu",
    )  # fmt: skip
    ((name, digest),) = tidy.headers
    assert name == EVERYTHING
    cppcheck = read_probe(("cppcheck",), CPPCHECK_ABOUT, TEXT)
    assert (cppcheck.family, cppcheck.version) == ("cppcheck", "2.17.1")
    assert header_files("cppcheck", TEXT) == {"/usr/include/stdio.h", "/usr/include/math.h"}
    # Other names with the same contents are another answer.
    moved = read_probe(("clang-tidy-19",), TIDY_ABOUT, TEXT.replace(b"/usr/", b"/opt/", 1))
    assert moved.headers[0][1] != digest
    assert compare("clang-tidy-19", tidy, (tidy,)).is_alike
    assert not compare("clang-tidy-19", tidy, (moved,)).is_alike


@pytest.mark.parametrize("text", [b"", b"\n", b"/usr/include/stdio.h\n"])
def test_without_contents_nothing_is_the_same(text: bytes) -> None:
    found = read_probe(("clang-tidy",), TIDY_ABOUT, text)
    assert found.headers == ()
    assert not compare("clang-tidy", found, (found,)).is_alike


def test_nonsense_is_no_analyser() -> None:
    for names, about in ((("cppcheck",), TIDY_ABOUT), (("clang-tidy",), CPPCHECK_ABOUT)):
        with pytest.raises(CallerError):
            read_probe(names, about, TEXT)
    with pytest.raises(CallerError):
        files_of_probe(b"/x " * 5000 + b"\n")


def test_an_earlier_client_reads_the_compilers_and_no_analyser() -> None:
    tidy = read_probe(("clang-tidy",), TIDY_ABOUT, TEXT)
    found = ImageToolchains(ImageDigest("sha256:" + "ab" * 32), (GCC, tidy))
    message = image_message(found)
    assert [t.family for t in message.compilers] == ["gcc"]
    assert image_or_none(message) == found
    flood = pb.ImageToolchains(image=message.image)
    flood.compilers.extend([message.compilers[0]] * 8)
    flood.analysers.extend([message.analysers[0]] * 9)
    assert image_or_none(flood) is None
