"""The gcc family, and what clang shares with it: flag rows and specs files.

Each row names the documentation it was written from. A flag without a row is `unknown-flag`.
"""
