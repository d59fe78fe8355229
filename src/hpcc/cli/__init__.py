"""Commands and their output; no logic."""
