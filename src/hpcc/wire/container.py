"""How a container's agent gets the values that a VM's agent reads from the kernel command line."""

from __future__ import annotations

from typing import Final

# The directory, in the container, of the host's listening socket. Removed after one connection.
CONTAINER_LINK_DIRECTORY: Final = "/run/link"
CONTAINER_LINK: Final = f"{CONTAINER_LINK_DIRECTORY}/agent"
# Environment variables of the agent.
CONTAINER_TOKEN_VARIABLE: Final = "HPCC_TOKEN"  # noqa: S105 - the variable's name, not a secret
CONTAINER_MEMORY_VARIABLE: Final = "HPCC_MEMORY_BYTES"
CONTAINER_PIDS_VARIABLE: Final = "HPCC_PIDS"
