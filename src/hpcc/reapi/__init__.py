"""reapi."""
