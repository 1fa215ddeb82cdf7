"""The settings that say where a facility's people come from."""

from __future__ import annotations

from pydantic import Field

from beamkeeper.config.values import Section


class People(Section):
    """Where a facility's people come from; without any of this, accounts are kept here."""

    authenticators: tuple[str, ...] = Field(
        default=(), description="Plugins that check passwords of accounts that come from a directory, in this order."
    )
