"""What compilers' command lines, sources and dependency files mean. Pure: bytes in, values out."""
