"""clang-tidy: its own options, the compile command that it analyses, and its configuration files.

clang-tidy holds a Clang: it takes a command line of Clang, behind `--` or from a compilation
database, and reads the sources as that Clang does. So its family inherits Clang's.
"""
