"""Which backends there are, and the choice of one for a worker."""
