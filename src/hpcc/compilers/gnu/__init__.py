"""The gcc family, and what clang has in common with it: flag rows and specs files."""
