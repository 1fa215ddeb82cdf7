"""Beamkeeper keeps every file that a beamline makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beamkeeper.client import Client as Client

__version__ = "0.1.0"
__all__ = ["Client", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the client when it is first asked for, so that `dm --help` stays quick."""
    if name == "Client":
        from beamkeeper.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
