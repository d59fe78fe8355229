"""Makes the Debian and RPM packages of hpcc from its wheel (docs/adr/0111).

    python -m packages fetch
    python -m packages build --wheel FILE --out DIRECTORY [--kind deb] [--package NAME]

The problem: a farm's machines are kept by a package manager, and no distribution has the libraries
that a client and a farm need in versions that work. So the packages bring them: the wheels that
requirements.lock pins, whose digests are checked, unpacked and otherwise unchanged.

The rule: `table` says what packages there are, `layout` what is in each, as a list of entries.
`deb` and `rpm` give the same entries to the tools of the two families, `dpkg-deb` and `rpmbuild`.
Nothing is compiled here and nothing depends on the time, the user or the directory, so that
everybody who has the wheel gets the same bytes.

    /usr/bin/hpcc                     a link to the next
    /usr/lib/hpcc/bin/                launcher, hpcc-cli, and a link to the distribution's python3
    /usr/lib/hpcc/pyvenv.cfg          makes it a virtual environment, apart from the system's
    /usr/lib/hpcc/python/             hpcc, and each library that fits every Python
    /usr/lib/hpcc/lib/python3.N/      a library for one version of Python

What must never happen: a package with a library whose digest is not in the lock file; an upgrade or
a removal that deletes what an operator wrote; a service that starts because it was installed.
"""
