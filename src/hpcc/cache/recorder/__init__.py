"""The flight recorder: what each build's compiles did and when, in bounded files.

Problem: a developer asks after a slow build what it waited for, and does not want to build again.
So the daemon records always. The record must cost next to nothing, and must not grow.

Rule: the hit path appends one note to a bounded queue, as it does for `hpcc explain`. A thread
turns the notes into frames and appends them to a file of the build, every two seconds while there
are any. `compiles` has the value that is recorded, `part_bytes` the bytes of a file, `recorder`
writes, `reading` reads, and `report` computes what `hpcc report` shows.

What must never happen: a file that grows without bound, a reader that shows a frame whose checksum
is wrong, or a compile that fails or waits because its record could not be written.
"""
