"""From a command line and a compiler's identity to a key, or the reason for a bypass."""
