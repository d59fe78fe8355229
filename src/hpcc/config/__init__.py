"""Configuration: files and variables in, frozen values out."""
