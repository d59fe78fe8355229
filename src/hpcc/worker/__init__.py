"""The worker: REAPI v2 in front, guests behind, a row for everything it releases."""
