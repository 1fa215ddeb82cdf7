"""The plugins for people that the settings name, built once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from beamkeeper.config import Settings
from beamkeeper.core.authenticators import Authenticators
from beamkeeper.core.identity_providers import IdentityProviders
from beamkeeper.db import Database, StorageTransaction
from beamkeeper.engine.sync import Facility
from beamkeeper.engine.worker import Loop, Report
from beamkeeper.plugins import load
from beamkeeper.plugins.people import (
    ACCOUNTS,
    AUTHENTICATORS,
    DIRECTORIES,
    GROUP_KEEPERS,
    IDENTITY_PROVIDERS,
    PROPOSALS,
)


def authenticators(settings: Settings) -> Authenticators:
    """Return who checks passwords that are not kept here."""
    names = settings.people.authenticators
    return Authenticators({name: load.build(AUTHENTICATORS, name, settings.facility.get(name, {})) for name in names})


def identity_providers(settings: Settings) -> IdentityProviders:
    """Return who vouches for people."""
    return IdentityProviders(
        {name: load.build(IDENTITY_PROVIDERS, "oidc", options) for name, options in settings.oidc.items()}
    )


def facility(settings: Settings) -> Facility:
    """Return where people and proposals come from."""
    people = settings.people
    return Facility(
        source=people.directory,
        directory=_plugin(settings, DIRECTORIES, people.directory),
        proposals=load.build(PROPOSALS, people.proposals, settings.proposals.get(people.proposals, {}))
        if people.proposals
        else None,
        accounts=_plugin(settings, ACCOUNTS, people.accounts),
        every=timedelta(minutes=people.sync_minutes),
        may_leave_percent=people.may_leave_percent,
        may_leave=people.may_leave,
    )


def group_loops(settings: Settings, database: Database[StorageTransaction], report: Report) -> Sequence[Loop]:
    """Return what keeps groups of experiments, where the settings say how."""
    people = settings.people
    if not people.groups:
        return []
    from beamkeeper.engine.groups import GroupLoop, Keeping  # what is not used takes no memory

    keeping = Keeping(
        keeper=_plugin(settings, GROUP_KEEPERS, people.groups),
        template=people.group_name,
        first_gid=people.first_gid,
        last_gid=people.last_gid,
        is_foreign_removed=people.foreign_members == "remove",
        every=timedelta(minutes=people.groups_minutes),
    )
    return [GroupLoop(database, keeping, report=report)]


def _plugin(settings: Settings, group: str, name: str) -> Any:
    return load.build(group, name, settings.facility.get(name, {})) if name else None
