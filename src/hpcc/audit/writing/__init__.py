"""Turns what waits for a trail into records on its disk, in groups that are synced together."""
