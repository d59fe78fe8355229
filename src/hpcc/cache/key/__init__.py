"""From a command line and a compiler's identity to a key, or the reason for a bypass.

The key must contain everything that can change the output and is known before the compile. This
room should be pure; `.importlinter` lists the imports that still do I/O, and no more may be added.
"""
