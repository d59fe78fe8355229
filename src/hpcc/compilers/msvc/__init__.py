"""cl, clang-cl and icx-cl: flag rows, quoting, dependency output, reproducible objects.

Rows say which of these compilers accept them. Not loaded for a compile by gcc or clang.
"""
