"""The clang family: what differs from gcc."""
