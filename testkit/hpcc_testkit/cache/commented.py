"""C and C++ files that differ in the text of comments only, for real compilers."""

from __future__ import annotations

import random
import re
from typing import Final

# Slots: §L a line comment's text, §B text on one line of a block, §M the lines of a long block.
# Everything here shows lines, columns, blanks or spellings in the object or in a warning.
_BOTH: Final = """\
/*§M*/
#define STR(x) #x
#define XSTR(x) STR(x)
#define LONG(x, y) do { int z = (x); /*c*/ \\
    sink(z + (y)); } while (0)
#define TWO 2 //§L
#define THREE /*a*/ 3 /*§M*/
#ifndef GUARD_H //§L
#define GUARD_H /*§B*/
#if 0 /*§B*/
  it is off; "text" //§L
  'c' /*§M*/
#elif defined(X) /*b*/ || 1 /*§M*/
    //§L
#else //§L
#endif /*§B*/
#if 0
  'a <b>' //§L
#elif 'a' == '\\x61' /*<b//c>*/ && 1 \\
    || L'\\0' //§L
static const char lines[] = "a //b\\
  /*c*/ \\"d \\
"; //§L
#endif /*§B*/
extern void sink(int); //§L
extern const char *keep; /*§B*/
\t/*§M*/
static const char url[] = "http://x/*y*/"; //§L
static const char quote = '"'; /*c*/ //§L
static const char names[] = XSTR(a/*b*/+ c //§L
    + d /*§M*/
    /*e*/- f) "//" /*§M*/
    "/*"; //§L
#pragma GCC diagnostic push //§L
#pragma GCC diagnostic ignored "-Wunused-parameter" /*§B*/
int shift(int a, int b, int unused) /*§B*/
{ //§L
    int i; /*§B*/
    if (a) //§L
        sink(a); /*§B*/
    /*§M*/
    sink(b); //§L
    if (b) /*x*/ sink(1); /*§M*/
    for (i = 0; i < a; i++) /*§B*/
\tsink(i); //§L
        //§L
    sink(TWO / /*y*/ THREE); //§L
    switch (a) { //§L
    case 1: sink(1); /*§B*/
        __attribute__((fallthrough)); //§L
    case 2: //§L
        sink(2); break; /*§M*/
    }
    keep = names; keep = url; keep = lines; sink(quote); /*§B*/
    sink(__LINE__); /*§M*/
    sink(__LINE__ /*§M*/
        + __LINE__); LONG(a, /*z*/ b); //§L
    return (a << b) //§L
        + a / b; /*§B*/
}
#pragma GCC diagnostic pop /*§M*/
"""
_CXX: Final = """\
struct Item { Item(); ~Item(); int value; }; //§L
static Item one, two; /*§M*/
template <class T> T twice(T t) { return t + t; } /*§B*/
int uses(Item *item) { //§L
    static Item local; /*§B*/
    keep = __builtin_FUNCTION(); //§L
    sink(__builtin_LINE() /*a*/ + twice(item->value)); /*§M*/
    return local.value; } //§L
"""
_RAW: Final = """\
static const char raw[] = R"(a//b/*c)"; //§L
static const char more[] = R"x(a//"b"\\)"/*c)x"; /*§B*/
inline const char *raws() { return raw[0] ? raw : more; } /*§M*/
"""
_CXX20: Final = """\
#include <source_location> //§L
#ifdef __cpp_lib_source_location
inline int where(std::source_location at = /*§M*/
    std::source_location::current()) { return at.line() * 1'000 + at.column(); } //§L
int there() { /*b*/ return where(); } /*§B*/
#endif //§L
#define VA(a, ...) sink(a __VA_OPT__(+ /*c*/) __VA_ARGS__); /*§M*/
void optional() { VA(1, /*d*/ 2) VA(3) } //§L
"""
_END: Final = """\
#endif /* the end */
int last;
"""
_MOST: Final = 0.75
_AT_END: Final = re.compile(r"(?<=[;{}()0-9]) ?(?://§L|/\*§B\*/)(?=\n)")
_SLOT: Final = re.compile(r"§([LBM])")
_WORDS: Final = (
    "a", "text", "of", "prose", "it's", '"', "'", "''", '"quoted"', "#", "#endif", "#if 0",
    "#define B", "(", ")", ";", "{", "}", "/", "//", "*", "**", ">", "<b>", "?", "%:", 'R"(',
    ')"', "'c'", "1'0", "\t", "  ", "-", "=", "!", "case 2:", "NOSONAR", "TODO:",
    "clang-format off", "__LINE__", "_Pragma", "__FILE__", "nothing", "expected-error", "$",
    "&", ":", "||", "unused", "NOTREACHED", "$Id$", "[", "]", ".", "0", "#include <a>", "@param",
    "\\param", "\\", "\\0", "else", "break", "lint", "é", "ß", "日本", "😀", "??!", "%s\\n",
)  # fmt: skip


def template(language: str, standard: str) -> str:
    """Return a file with slots for the text of comments, for one language and standard."""
    text = _BOTH
    if language == "c++":
        text += _CXX
        if standard not in {"c++98", "gnu++98"}:
            text += _RAW
        if standard == "c++20":
            text += _CXX20
    text += _END
    return re.sub(r"//§L", "/*§B*/", text) if standard == "c89" else text


def filled(text: str, chance: random.Random) -> bytes:
    """Return the template with a text in each slot; a block keeps its lines and their blanks.

    Some comments at the end of a line of code are left out.
    """
    text = _AT_END.sub(lambda match: match[0] if chance.random() < _MOST else "", text)
    return _SLOT.sub(lambda slot: _text(slot[1], chance), text).encode()


def in_other_lines(text: str, chance: random.Random) -> bytes:
    """Return the template with comments and empty lines between its lines of code, too."""
    lines: list[str] = []
    for line in text.split("\n"):
        if chance.random() > _MOST and (not lines or not lines[-1].endswith("\\")):
            indentation = line[: len(line) - len(line.lstrip())]
            lines += chance.choice(
                [[""], [indentation + "/*§B*/"], [indentation + " /*§B", indentation + "x§B*/"]]
            )
        lines.append(line)
    return filled("\n".join(lines), chance)


def indented(chance: random.Random) -> bytes:
    """Return a file whose comments may decide whether GCC calls an indentation misleading."""
    blanks = ("", "  ", "    ", "      ", "\t", " \t")
    body, after = chance.choice(blanks), chance.choice(blanks)
    middle = [
        chance.choice(blanks) + chance.choice(["// a", "/* b */", "/* c\n" + body + "d */", ""])
        for _ in range(chance.randint(0, 3))
    ]
    if chance.random() > _MOST:
        middle.insert(0, chance.choice(blanks) + "#if 1\n  // e\n#endif")
    guard = chance.choice(["if (a)", "while (a--)", "for (;;)", "if (a) ; else"])
    lines = [
        "void g(void);",
        "void f(int a) {",
        "  " + guard,
        f"{body}g();",
        *middle,
        f"{after}g();",
    ]
    return "\n".join([*lines, "}", ""]).encode()


def _text(kind: str, chance: random.Random) -> str:
    if kind == "M":
        return _words(chance) + "\n  " + _line(chance).lstrip() + "\n\t" + _line(chance)
    return _words(chance)


def _line(chance: random.Random) -> str:
    """Return a line of a comment. One that looks like a directive would keep its text."""
    text = _words(chance, 1)
    return " x" + text if text.lstrip().startswith(("#", "%")) else text


def _words(chance: random.Random, least: int = 0) -> str:
    words = [chance.choice(_WORDS) for _ in range(chance.randint(least, 7))]
    text = chance.choice(["", " "]).join(words).replace("/*", "/ *").replace("*/", "* /")
    # A trigraph or a backslash at the end of a line leaves a file without a form.
    text = re.sub(r"\?(?!\?!)", "? ", text)
    text = text.strip(" \t*/!<\\") or "x"
    return " " + text + chance.choice(["", " ", "  "])
