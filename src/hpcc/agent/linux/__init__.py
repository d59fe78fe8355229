"""The agent's machine on Linux."""
