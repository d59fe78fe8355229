"""Makes a release and checks one: what a reviewer asks of a supply chain (docs/adr/0072).

    python -m release make --out DIRECTORY [--version X] [--key FILE|trial]
    python -m release verify DIRECTORY --key PUBLIC
    python -m release licences [--update]
    python -m release audit [--required]

A release is a function of one commit, the build environment and the key. Nothing in it depends on
the time, the user, the directory or the machine's name. So everybody who has the commit can build
it again and compare each byte, and `verify` does that.

What must never happen: a release of a tree that differs from its commit; a release whose two
builds differ; an unsigned release that looks signed; a check that was not done and looks done.
"""
