"""Guests as jailed Firecracker microVMs.

`plan` is the boot as data and is tested without KVM. It may not import another backend.
"""
