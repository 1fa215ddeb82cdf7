"""Where the services of a site's stations are, and who answers while the site cannot be reached."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from beamkeeper.domain.errors import DmError, MirrorBehindError, SettingsError, UnavailableError
from beamkeeper.domain.status import Service, StationServices

if TYPE_CHECKING:
    from beamkeeper.client.api import Client
    from beamkeeper.client.http import Http

REST_S = 30.0
"""For so long a site that did not answer is not asked again: each question would wait for its connection."""


class Away:
    """What a client knows of a site that cannot be reached."""

    def __init__(self) -> None:
        self.as_of: datetime | None = None
        """From when it is what a station has answered in the place of the site; None where it has not."""
        self._fault: UnavailableError | None = None
        self._until = 0.0

    @property
    def fault(self) -> UnavailableError | None:
        """Why the site is not asked at present; None where it is."""
        return self._fault if time.monotonic() < self._until else None

    def note(self, fault: UnavailableError) -> None:
        """Take in that the site does not answer."""
        self._fault, self._until = fault, time.monotonic() + REST_S


def known_stations(client: Client) -> Sequence[StationServices]:
    """Return where the stations' services are; as the site told last where it cannot be reached."""
    if client.away.fault is not None and client.profile.stations:
        return client.profile.stations
    try:
        found = client.site().stations
    except UnavailableError as error:
        if not client.profile.stations:
            raise
        client.away.note(error)
        return client.profile.stations
    kept = client.logins.get(client.profile_name)
    if kept is not None and kept.url.rstrip("/") == client.url and kept.stations != found:
        with suppress(SettingsError):  # who cannot keep it has it all the same
            client.logins.put(client.profile_name, kept.model_copy(update={"stations": found}))
    return found


def asked(client: Client, ask: Callable[[Http], Any]) -> Any:
    """Ask the site, or the station where the site cannot be reached; `client.away.as_of` tells how old that is."""
    fault = client.away.fault
    if fault is None:
        try:
            return ask(client.http(Service.STORAGE))
        except MirrorBehindError:
            raise
        except UnavailableError as error:
            fault = error
    try:
        here = client.http(Service.ACQUISITION)
    except UnavailableError:
        raise fault from None
    except DmError as error:  # such as that there are several stations, and which one is meant
        raise UnavailableError(f"{fault.message}; to ask a station instead: {error.message}") from error
    client.away.note(fault)
    found = ask(here)
    client.away.as_of = here.heard_at
    return found
