"""From layers or distribution packages to one read-only file system image.

Equal inputs give equal bytes. Nothing from a layer is executed or written outside its tree.
"""
