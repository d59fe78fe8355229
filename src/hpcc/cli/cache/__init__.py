"""Commands about this user's cache and daemon."""
