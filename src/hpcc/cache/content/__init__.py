"""Content keys: the second look-up, for another output, build directory or place of the project.

`key` computes a key; `places` are what a key leaves out, and `maps` says what a user's prefix maps
make of them; `entries` is the format on disk; `names` finds out whose file names a compile writes
down. `hpcc.cache.results.contents` looks up and stores.
"""
