"""`make bench-corpus`: what share of real packages hits, beside ccache, with every output compared.

`packages.toml` lists source packages of the distribution. Each is built once with the bare
compiler, behind a program that records every compile (`recording`, `building`). The recorded
compiles are then run again in several scenarios (`scenarios`): bare, through ccache and through
hpcc (`replaying`). A program in the place of cc1 and as counts real compiler runs (`shims`).
"""
