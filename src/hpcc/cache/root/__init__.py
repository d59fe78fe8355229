"""Where a project's root is, how that was found, and which of its files may leave the machine.

`project_root` finds the root. `build_data` reads what a build system says about it. `ignored` tells
which files git leaves out; a root that was found without a marker never sends them.
`build_identity` says which build a compile belongs to; a guess goes by its root.
"""
