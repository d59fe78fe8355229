"""What a source file's text reaches: include lines, data files, the include closure."""
