"""`hpcc doctor` and `hpcc selftest`: what this machine has and lacks."""
