"""Build packs: all results of a commit's build as one download, so that look-ups are local.

A pack is a signed index and content-defined chunks in the team's remote cache. Its signature only
says who may fill the disk. Each record in it has a separate signature, which is checked when a
compile uses it.
"""
