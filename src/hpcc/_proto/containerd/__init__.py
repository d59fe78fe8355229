"""Generated; see tools/gen.py."""
