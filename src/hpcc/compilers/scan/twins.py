"""How compilers recognise two files of one content as one, if these ask to be read once.

GCC compares size, content and the time of the last change in whole seconds (libcpp, files.cc).
Clang compares device and inode, and may print one name for both (FileManager.cpp).
"""

from __future__ import annotations

import enum


class TwinRule(enum.Enum):
    """What two files of one content must share to be one file; the values are in manifests."""

    SECOND = b"s"  # the time of the last change in whole seconds
    INODE = b"i"  # device and inode
    PLACE = b"p"  # of a single file: its device and inode, because the object holds them
    TREE = b"t"  # of a directory: what Clang finds below it (`hpcc.cache.base.trees`)
    DIRECTORY = b"d"  # of search directories: which are one, and what is in place of others
    LINK = b"l"  # of a name behind a link: the real name, which GCC may write
