"""clang and clang++: what they do otherwise than gcc.

The family of clang extends the family of gcc, because clang reads the same command line. This room
adds configuration files, clang's own version ranges and what clang prints differently. It may
import `hpcc.compilers.gnu`, never `hpcc.compilers.msvc`.
"""
