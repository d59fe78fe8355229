"""From layers or distribution packages to one read-only file system image."""
