"""Builds one read-only file system image from layers or distribution packages.

Equal inputs give equal bytes. Nothing from a layer is executed or written outside its tree.
"""
