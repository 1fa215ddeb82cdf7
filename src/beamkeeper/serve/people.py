"""The plugins for people that the settings name, built once."""

from __future__ import annotations

from beamkeeper.config import Settings
from beamkeeper.core.authenticators import Authenticators
from beamkeeper.plugins import load
from beamkeeper.plugins.people import AUTHENTICATORS


def authenticators(settings: Settings) -> Authenticators:
    """Return who checks passwords that are not kept here."""
    names = settings.people.authenticators
    return Authenticators({name: load.build(AUTHENTICATORS, name, settings.facility.get(name, {})) for name in names})
