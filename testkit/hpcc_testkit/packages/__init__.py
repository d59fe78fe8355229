"""Packages of this tree, and a copy of this machine to install them on."""
