"""Guests as QEMU microVMs, under KVM or emulated."""
