"""Evidence for tests: libraries, trails, evidence files, and what somebody may do to them."""
