"""Farms for tests: in one process, as real processes, as an operator sets one up."""
