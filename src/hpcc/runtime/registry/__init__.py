"""The table of backends, and the choice of one for a worker."""
