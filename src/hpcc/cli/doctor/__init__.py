"""`hpcc doctor` and `hpcc selftest`: what this machine has and lacks.

Every finding names what it costs and the command that fixes it. The checks change nothing on the
machine.
"""
