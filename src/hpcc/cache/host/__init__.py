"""What the compiler of this machine is: programs, files and switches that decide its output.

The answer enters the key of every local compile, so it must cover all that can change the output.
Programs are asked with a deadline, and answers are remembered as long as their files stay the same.
"""
