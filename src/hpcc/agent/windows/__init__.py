"""The agent's machine on Windows."""
