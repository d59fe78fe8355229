"""How the agent of a container is told what a machine's kernel command line would say."""

from __future__ import annotations

from typing import Final

# The host's listening socket in the container; gone from its directory once it has a connection.
CONTAINER_LINK_DIRECTORY: Final = "/run/link"
CONTAINER_LINK: Final = f"{CONTAINER_LINK_DIRECTORY}/agent"
# Variables of the agent's environment.
CONTAINER_TOKEN_VARIABLE: Final = "HPCC_TOKEN"  # noqa: S105 - the variable's name, not a secret
CONTAINER_MEMORY_VARIABLE: Final = "HPCC_MEMORY_BYTES"
CONTAINER_PIDS_VARIABLE: Final = "HPCC_PIDS"
