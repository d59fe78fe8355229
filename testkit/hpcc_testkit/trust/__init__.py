"""Black-box scenarios: each step by the bare compiler and through hpcc."""
