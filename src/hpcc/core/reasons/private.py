"""Why a result is kept only for the checkout that made it: `private.REASON`."""

from __future__ import annotations

from typing import Final

from hpcc.core.reasons.reason import Reason

_RENAME: Final = "Move the checkout to another directory."
_MARKER: Final = "Repair the `.hpcc` file."


class PrivateReason(Reason, prefix="private"):
    """A `.hpcc` marker asks for sharing, and this result cannot be shared."""

    # fmt: off
    ANALYSER = (
        "analyser", "a report of clang-tidy or cppcheck", "Nothing to do.",
        "It shows names of this checkout, and filters compare them. So each checkout makes its own,"
        " once.")
    BORDER = (
        "border", "a name leads out of the checkout, such as `../../x.h`",
        "Use names below the root, or put the marker higher.",
        "On Windows. In another checkout it would lead elsewhere.")
    COMPRESSED_DEBUG = (
        "compressed-debug", "compressed sections, which cannot be searched for paths",
        "Compile with `-gz=none`.")
    COMPUTED_INCLUDE = (
        "computed-include", "an #include of a macro, and a source that names a directory above",
        "Write the header's name literally.", "The directory is one above the checkout.")
    DIRECTORY_SPELLING = (
        "directory-spelling", "the shell spells the directory through a link",
        "`cd` to the directory's real name.", "Compilers record `$PWD`.")
    EMBEDS_INODE = (
        "embeds-inode", "the object holds device and inode of a source", "Nothing to do.",
        "Clang names OpenMP's target regions by them.")
    EMBEDS_PATH = (
        "embeds-path", "the object holds the path of the checkout or of the home directory",
        "Remove the path from macros and sources.")
    ENVIRONMENT = (
        "environment", "a variable or the compiler's name holds the path of the checkout",
        "Unset the variable, or use a compiler outside the checkout.",
        "`CPATH` and its like also count.")
    EXCLUDED = "excluded", "left out by the marker", "Change `exclude` in the marker."
    FAILS_WITH_MAPS = (
        "fails-with-maps", "it compiles only without prefix maps", "Nothing to do.",
        "The command failed with them several times.")
    FLAGS = (
        "flags", "flags that are not proved to give one object in every checkout",
        "Leave the unusual flags out.")
    INPUT_CHANGED = (
        "input-changed", "a source changed meanwhile", "Nothing to do: the next compile is shared.")
    LINKED_DIRECTORY = (
        "linked-directory", "a search directory is a link", "Name the directory itself.",
        "The order of the search path would depend on where links lead.")
    MAPS_REFUSED = (
        "maps-refused", "the compiler does not take the prefix maps", "Use a newer compiler.")
    MSVC = (
        "msvc", "clang-cl: results stay in their checkout", "Nothing to do.",
        "This is about what this machine compiled.")
    NEIGHBOUR = (
        "neighbour", "reads a directory whose name begins like the root's", _RENAME,
        "A file such as `ROOT-2/x.h` was read.")
    MODULES = (
        "modules", "a compiled interface of a C++20 module is written, or one is read that was made"
        " without prefix maps",
        "Nothing to do: what imports it is shared, if its own compile may be.",
        "Clang's interfaces hold the checkout's path, and GCC's its directory and the time. So each"
        " checkout makes its own, once.")
    NVCC = (
        "nvcc", "an object of nvcc, which never has the same bytes twice", "Nothing to do.",
        "Each holds the process id of its nvcc. Names of kernels in unnamed namespaces, and of "
        "relocatable device code, hold a hash of the source's real path, too.")
    OBJECT_FORMAT = (
        "object-format", "no object that can be searched for paths", "Nothing to do.")
    ORIGIN = (
        "origin", "another object with the precompiled header or interface of another checkout",
        "Nothing to do: the result is kept for this checkout.",
        "The two were made from the same files, and each checkout goes on with its own.")
    PCH = (
        "pch", "a precompiled header is made, or one is used that was made without prefix maps",
        "Nothing to do: its users are shared, if its own compile may be.",
        "GCC's never have the same bytes twice, and all hold the checkout's path. So each checkout"
        " makes its own, once.")
    ROOT = (
        "root", "the root is the home directory, holds system headers or has an odd name", _RENAME,
        "The root may also not be `/`. Its name may hold letters, digits, blanks and `._+~@-`.")
    ROOT_IN_ARGUMENT = (
        "root-in-argument", "a flag that does not take a path holds the path of the checkout",
        "Use a relative path in flags such as `-D`.")
    ROOT_IN_SOURCE = (
        "root-in-source", "a source names the checkout", "Use relative names in sources.")
    SYSTEM_DIRECTORY = (
        "system-directory",
        "-isystem leads over `..`, `./` or a link: compilers call such headers otherwise",
        "Name the directory without `..`, `./` and links.",
        "Headers behind `-isystem` and with `#pragma GCC system_header` count, too.")
    TEXT = (
        "text", "a message or the depfile names the checkout in a way that cannot be rendered",
        "Fix the cause of the warning.", "hpcc cannot write the text for another checkout.")
    UNPROVED_COMPILER = (
        "unproved-compiler", "a version of a compiler for which nothing is proved, or Clang 14 and"
        " an absolute name of a file in the project",
        "Use GCC 12 to 14, or Clang 17 or 19.")
    MARKER_KEY = (
        "marker-key", "the marker holds a key that it may not hold", _MARKER)
    MARKER_KIND = (
        "marker-kind", "the marker is neither a file nor a directory; a link does not count",
        "Put a file there.")
    MARKER_OWNER = (
        "marker-owner", "the marker belongs to somebody else", "`chown` it to yourself.")
    MARKER_SIZE = "marker-size", "the marker is too large", _MARKER
    MARKER_SYNTAX = "marker-syntax", "the marker is not TOML", _MARKER
    MARKER_UNREADABLE = (
        "marker-unreadable", "the marker cannot be read", "Give yourself the right to read it.")
    MARKER_VALUE = (
        "marker-value", "a value in the marker has another form than the cookbook says", _MARKER)
    MARKER_VERSION = (
        "marker-version", "the marker is of a version that this hpcc does not know",
        "Update hpcc, or change `version` in the marker.")
    MARKER_WRITABLE = (
        "marker-writable", "everybody may write the marker", "`chmod o-w .hpcc`")
    # fmt: on
