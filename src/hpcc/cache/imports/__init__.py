"""Units that import compiled interfaces of Clang's, on a farm.

The interfaces are made on this machine and hold its paths. A guest gets them as they are, with the
sources that they name, and a table that shows these sources to Clang under the names of this
machine.
"""
