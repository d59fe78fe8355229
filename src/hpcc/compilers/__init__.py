"""What compilers' command lines, sources and dependency files mean. Pure: bytes in, values out.

Nothing here opens a file or starts a program; callers pass contents in. The rooms are imported
module by module, because a gcc hit must not load the modules for MSVC. A command line that is not
understood becomes a bypass with a reason, never a guess.
"""
