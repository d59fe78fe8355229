"""Harnesses of the compile cache: launchers, replays, models, random edits."""
