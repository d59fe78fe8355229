"""The `hpcc` command for everything that is not a compile.

Each command group is a room with a `register` function per module. Commands print and decide
nothing: what they show comes from the package that decides it. Heavy imports are inside handlers,
so that `hpcc --help` stays fast.
"""
