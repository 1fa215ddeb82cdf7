"""The typed Python client; everything outside of the services uses it, and nothing else."""

from beamkeeper.client.api import Client as Client
from beamkeeper.client.http import Http as Http

__all__ = ["Client", "Http"]
