"""clang and clang++: where they differ from gcc.

The family of clang extends the family of gcc, because clang reads the same command line. This room
adds configuration files, clang's own version ranges and clang's differences in output. It may
import `hpcc.compilers.gnu`, never `hpcc.compilers.msvc`.
"""
