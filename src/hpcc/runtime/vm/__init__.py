"""What every virtual machine backend shares: boot ladder, snapshots, warm start.

A snapshot is taken before anything of a tenant ran. It knows no backend.
"""
