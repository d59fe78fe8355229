"""cl, clang-cl and icx-cl: flag rows, quoting, dependency output, reproducible objects.

Each row names the compilers that accept it. A compile by gcc or clang does not load this room.
"""
