"""`python -m hpcc.cli`: the same as `hpcc-cli`."""

from hpcc.cli import main

raise SystemExit(main())
