"""`hpcc image`: toolchain images."""
