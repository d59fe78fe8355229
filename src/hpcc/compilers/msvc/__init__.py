"""cl, clang-cl and icx-cl: flag rows, quoting, dependency output, reproducible objects."""
