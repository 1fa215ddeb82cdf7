"""What the tests of the site's catalogue share: who asks, and on which databases."""

from __future__ import annotations

import pytest

from beamkeeper.client import Client
from beamkeeper.db.base import new_uid
from beamkeeper.domain.users import Caller, Grant, Role
from beamkeeper.testing.services import Running

ADMINISTRATOR = Caller("ada", user_uid=new_uid(), grants=(Grant(user_uid=new_uid(), role=Role.ADMINISTRATOR),))

BOTH = pytest.mark.parametrize("site", ["sqlite", "postgresql"], indirect=True, scope="module")
"""With the site's catalogue on either database; the stations' are on SQLite."""


def people(site: Running) -> Client:
    """Return an administrator's client of the site's catalogue."""
    return site.as_(site.bootstrap.operator.token, station=site.settings.station.name)
