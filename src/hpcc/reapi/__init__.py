"""REAPI v2 as a pure core: canonical encoding and bounded parsing of what is in the key."""
