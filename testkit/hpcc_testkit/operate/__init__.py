"""Runs the commands of docs/operate.md on machines with systemd, as an operator who types them."""
