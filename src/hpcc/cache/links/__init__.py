"""Links that leave a record: what the linker read, what it wrote, and the digest of each.

Problem: objects have records, but nobody can say which of them a program consists of. Only the
linker knows which archives, startup files and shared libraries it opened.

Rule: a link is never cached. It runs as the user wrote it, with one more word that lets the linker
write the list of its inputs into a private file (`--dependency-file`). `command` decides which
commands may get that word, `linker` asks each linker whether it has it, `depfile` reads the list,
and `links` makes the record of it after the link has ended.

Example: `gcc main.o libnet.a -o app` opens some 15 files on Debian. The record has their digests
and that of `app`. A temporary object of link-time optimisation has none, and the record says so.

What must never happen: an output, a message or an exit code that the user's own command would not
have given, or a digest of other bytes than the linker's. So the launcher holds back what the link
prints, and if it fails, the user's own command runs instead. A file that changed since the link
began has no digest.
"""
