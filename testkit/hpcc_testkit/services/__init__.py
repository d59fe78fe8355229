"""Services that tests start on loopback: stores, databases, identity providers."""
