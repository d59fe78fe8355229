"""`python -m hpcc.cli`: the same as `hpcc-cli`."""

from hpcc.cli.main import main

raise SystemExit(main())
