"""The scheduler's brain: which worker, among those that may. Pure: no clock, no chance, no I/O."""
