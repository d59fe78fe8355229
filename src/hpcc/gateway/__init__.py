"""One address for stock REAPI clients of a farm: authenticates by them, routes, passes bytes on."""

from hpcc.gateway._config import GatewayConfig
from hpcc.gateway._serve import RunningGateway, serve_gateway

__all__ = ["GatewayConfig", "RunningGateway", "serve_gateway"]
