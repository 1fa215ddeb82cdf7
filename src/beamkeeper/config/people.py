"""The settings that say where a facility's people come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from beamkeeper.config.values import LONGEST_HOURS, Number, Section, Whole
from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.groups import DEFAULT_NAME, check_group_name


def _group_name(value: str) -> str:
    try:
        return check_group_name(value)
    except InvalidError as error:
        raise ValueError(error.message) from error


GroupName = Annotated[str, AfterValidator(_group_name)]


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
    groups: str = Field(
        default="", description="The plugin that keeps a group for each experiment in a directory server."
    )
    group_name: GroupName = Field(
        default=DEFAULT_NAME, description="How groups are named: {experiment}, {station} and {number} are filled in."
    )
    first_gid: Whole = Field(
        default=0, ge=0, le=2**32 - 2, description="The first number for new groups; 0 where others make groups."
    )
    last_gid: Whole = Field(default=2**31 - 1, ge=0, le=2**32 - 2, description="The last such number.")
    foreign_members: Literal["report", "remove"] = Field(
        default="report", description="What is done with people in a group who were never of its experiment."
    )
    groups_minutes: Number = Field(
        default=10.0, ge=0, le=LONGEST_HOURS * 60, description="Minutes after which a group is compared again; 0 never."
    )
    sync_minutes: Number = Field(
        default=0.0, ge=0, le=LONGEST_HOURS * 60, description="Minutes between syncs by themselves; 0 for none."
    )
    may_leave_percent: Number = Field(
        default=5.0, ge=0, le=100, description="The most accounts, in percent, that one sync deactivates."
    )
    may_leave: Whole = Field(default=20, ge=0, le=10**7, description="So many it may deactivate in any case.")
