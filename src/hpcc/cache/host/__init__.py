"""What the compiler of this machine is: programs, files and switches that decide its output."""
