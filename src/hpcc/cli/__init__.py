"""Commands and their output, without logic."""
