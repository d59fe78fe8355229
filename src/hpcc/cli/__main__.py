"""`python -m hpcc.cli`: the same as `hpcc-cli`."""

from hpcc.cli._main import main

raise SystemExit(main())
