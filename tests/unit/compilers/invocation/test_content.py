"""Which command lines have a content key, whose names show, and how depfiles are written anew."""

from __future__ import annotations

import pytest

from hpcc.compilers.gnu.family import GNU
from hpcc.compilers.invocation.content import content_form
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.invocation.share_text import respelled_depfile
from hpcc.compilers.scan.shown_names import BASE_TOKEN, NAME_TOKEN, visible_names
from hpcc.compilers.spec.table import Bypass


def _read(*words: str) -> Invocation:
    read = GNU.read(b"gcc", [w.encode() for w in words])
    assert not isinstance(read, Bypass), read
    return read


def _form(*words: str, is_clang: bool = False, major: int = 14) -> object:
    return content_form(_read(*words), is_clang=is_clang, major=major)


@pytest.mark.parametrize(
    "flags",
    [
        "-O2 -Wall -Wextra -fPIC -std=gnu11 -DNDEBUG -Iinc -isystem /opt/x -include c.h",
        "-g -O0 -MD -MF a.d -MT a.o -MP",
        "-Wp,-D_FORTIFY_SOURCE=2 -fno-strict-aliasing -mcmodel=kernel -nostdinc",
        "-fstack-usage -march=x86-64-v2 -fvisibility=hidden -pthread",
    ],
)
def test_proved_flags_have_a_form(flags: str) -> None:
    assert _form(*flags.split(), "-c", "a.c", "-o", "a.o") is not None


@pytest.mark.parametrize(
    "flag",
    [
        "-flto",
        "--coverage",
        "-gsplit-dwarf",
        "-frecord-gcc-switches",
        "-fprofile-generate",
        "-fsanitize-ignorelist=x",
        "-fprofile-prefix-map=/a=/b",
        "-Wa,-g",
        "-save-temps",
        "-specs=x",
        "-fsome-flag-of-tomorrow",
        "--sysroot=/opt/root",
    ],
)
def test_other_flags_have_none(flag: str) -> None:
    assert _form(flag, "-c", "a.c", "-o", "a.o") is None


@pytest.mark.parametrize(
    "flag",
    [
        "-fsanitize=address,undefined",
        "-gz",
        "-fsanitize-coverage=trace-pc",
    ],
)
def test_flags_that_write_file_names_keep_the_directory(flag: str) -> None:
    form = content_form(_read(flag, "-c", "a.c", "-o", "a.o"), is_clang=False, major=14)
    assert form is not None
    assert form.names_directory


def test_debug_information_keeps_the_directory_with_prefix_maps() -> None:
    words = ("-g", "-ffile-prefix-map=/a=/b", "-c", "a.c", "-o", "a.o")
    form = content_form(_read(*words), is_clang=False, major=14)
    assert form is not None
    assert form.names_directory


@pytest.mark.parametrize(
    "flag",
    ["-Wa,--noexecstack,-mtune=generic32", "--param=x=1", "-O2", "-ffile-prefix-map=/a=/b"],
)
def test_flags_that_write_no_name_leave_the_directory_out(flag: str) -> None:
    form = content_form(_read(flag, "-c", "a.c", "-o", "a.o"), is_clang=False, major=14)
    assert form is not None
    assert not form.names_directory


def test_a_compiler_that_was_not_asked_has_none() -> None:
    assert _form("-c", "a.c", "-o", "a.o", major=15) is None
    assert _form("-c", "a.c", "-o", "a.o", is_clang=True, major=16) is None


def test_clang_writes_names_into_openmp_regions() -> None:
    assert _form("-fopenmp", "-c", "a.c", "-o", "a.o") is not None
    assert _form("-fopenmp", "-c", "a.c", "-o", "a.o", is_clang=True, major=19) is None


@pytest.mark.parametrize("target", ["a b.o", "$(x).o", "./", "a#b.o", "a:b.o"])
def test_a_target_that_make_reads_in_another_way_has_none(target: str) -> None:
    assert _form("-MD", "-MT", target, "-c", "a.c", "-o", "a.o") is None


@pytest.mark.parametrize("target", ["./a.o", ".//a.o", "././a.o", "a.o"])
def test_gcc_leaves_the_directory_out_of_targets_and_clang_keeps_it(target: str) -> None:
    words = ("-MD", "-MT", target, "-c", "a.c", "-o", "b.o")
    for is_clang, major, expected in ((False, 14, b"a.o"), (True, 19, target.encode())):
        form = content_form(_read(*words), is_clang=is_clang, major=major)
        assert form is not None
        assert form.targets == (expected,)


TEXT = (
    b'# 1 "/p/a.c"\nint a;\n# 1 "/p/a.h" 1\nconst char *h = "' + NAME_TOKEN + b'";\n'
    b'# 2 "/p/a.c" 2\nint b;\n# 1 "/p/with \\"quote\\".h" 1\n"' + NAME_TOKEN + b'"\n'
)


def test_the_files_whose_names_show_are_found_by_line_markers() -> None:
    found = visible_names(TEXT, b"/p/a.c", is_clang=False)
    assert found == (b"/p/a.h", b'/p/with "quote".h')
    assert visible_names(b'"' + BASE_TOKEN + b'"', b"a.c", is_clang=False) == (b"a.c",)
    assert visible_names(b"int x;", b"a.c", is_clang=True) == ()


@pytest.mark.parametrize(
    "text",
    [
        b"f(__builtin_FILE());",
        b"std::source_location x;",
        b'# 5 "' + NAME_TOKEN + b'"\nint n = sizeof("' + NAME_TOKEN + b'");\n',
    ],
)
def test_text_that_hides_its_names_shows_any(text: bytes) -> None:
    assert visible_names(text, b"a.c", is_clang=False) is None


ASSERT = (
    b'(static_cast <bool> (x) ? void (0) : __assert_fail ("x"\n# 1 "/p/a.h" 3 4\n'
    b", __builtin_FILE (), __builtin_LINE (), __extension__ __PRETTY_FUNCTION__))"
)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (b'{ f();\n# 1 "/p/a.h" 3 4\n', (b"/p/a.h",)),
        (b"if (y) {", (b"/p/a.h",)),
        (b"int f(int n = (", None),  # a default argument shows the file of the call
        (b"int f(int n = ((void)", None),
        (b"return y ? 1 : ", None),
    ],
)
def test_glibcs_assert_shows_the_file_in_which_it_stands(
    before: bytes, expected: tuple[bytes, ...] | None
) -> None:
    text = b'# 1 "/p/a.cc"\nint a;\n# 1 "/p/a.h" 1\n' + before + ASSERT + b";"
    text += b'\n# 2 "/p/a.cc" 2\n'
    assert visible_names(text, b"/p/a.cc", is_clang=False) == expected
    assert visible_names(text, b"/p/a.cc", is_clang=True) is None


def test_clangs_pretty_function_shows_any() -> None:
    assert visible_names(b"__PRETTY_FUNCTION__", b"a.c", is_clang=True) is None
    assert visible_names(b"__PRETTY_FUNCTION__", b"a.c", is_clang=False) == ()


def _renamed(name: bytes) -> bytes:
    return b"/longer/place" + name[2:] if name.startswith(b"/p/") else name


def test_a_depfile_gets_new_targets_and_names() -> None:
    data = b"a.o: /p/a.c /usr/include/stdio.h ../near.h\n/usr/include/stdio.h:\n"
    found = respelled_depfile(data, (b"a.o",), (b"x/b.o",), _renamed, is_clang=False)
    assert found == (
        b"x/b.o: /longer/place/a.c /usr/include/stdio.h ../near.h\n/usr/include/stdio.h:\n"
    )


def test_clang_14_writes_an_empty_line_before_each_rule_of_a_header() -> None:
    data = b"a.o: /p/a.c /p/h.h\n\n/p/h.h:\n"
    found = respelled_depfile(data, (b"a.o",), (b"b.o",), _renamed, is_clang=True)
    assert found == b"b.o: /longer/place/a.c /longer/place/h.h\n\n/longer/place/h.h:\n"


@pytest.mark.parametrize(
    "data",
    [
        b"other.o: /p/a.c\n",  # another target than the flags say
        b"a.o:  /p/a.c\n",  # a layout that is not understood
        b"a.o: /p/a.c",
        b"a.o: /p/a.c\nb.o: c.h\n",
        b"",
    ],
)
def test_a_depfile_that_is_not_understood_is_left(data: bytes) -> None:
    assert respelled_depfile(data, (b"a.o",), (b"b.o",), _renamed, is_clang=False) is None
