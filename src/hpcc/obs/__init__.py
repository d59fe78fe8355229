"""What people read: texts that are safe for a terminal, and log lines that nobody can forge.

Names in checkouts, images and answers of services are hostile. An escape sequence in one could
rewrite what a terminal shows, and a line end could add a line that hpcc never wrote.
"""
