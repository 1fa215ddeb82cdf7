"""The settings that say where a facility's people come from."""

from __future__ import annotations

from pydantic import Field

from beamkeeper.config.values import LONGEST_HOURS, Number, Section, Whole


class People(Section):
    """Where a facility's people come from; without any of this, accounts are kept here."""

    authenticators: tuple[str, ...] = Field(
        default=(), description="Plugins that check passwords of accounts that come from a directory, in this order."
    )
    directory: str = Field(default="", description="The plugin that knows the facility's people; none where empty.")
    proposals: str = Field(default="", description="The plugin that knows the facility's proposals; none where empty.")
    accounts: str = Field(
        default="", description="The plugin that keeps the accounts of a directory server of ours, for --to-ldap."
    )
    sync_minutes: Number = Field(
        default=0.0, ge=0, le=LONGEST_HOURS * 60, description="Minutes between syncs by themselves; 0 for none."
    )
    may_leave_percent: Number = Field(
        default=5.0, ge=0, le=100, description="The most accounts, in percent, that one sync deactivates."
    )
    may_leave: Whole = Field(default=20, ge=0, le=10**7, description="So many it may deactivate in any case.")
