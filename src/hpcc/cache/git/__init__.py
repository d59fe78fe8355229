"""Which commit a clone is at, its ancestors, and the files of one: read without git.

A clone is hostile, and git in it would run what its configuration names. These parsers read a few
bytes at known places, and every size, depth and count has a limit before memory is used for it.
"""
