"""Hostile guests: attack programs, raw peers, and a harness that measures an attack."""
