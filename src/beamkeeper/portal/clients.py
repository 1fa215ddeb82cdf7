"""Clients of the API on behalf of those who look at pages: each acts under the viewer's own token."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock

from beamkeeper.client import Client
from beamkeeper.client.logins import Logins
from beamkeeper.config import Settings
from beamkeeper.domain.errors import UnavailableError
from beamkeeper.domain.mirror import Mirror
from beamkeeper.domain.status import Service, SiteServices, StationServices
from beamkeeper.domain.users import Caller, Whoami

KEPT_CLIENTS = 256
ROLES_S = 5.0
"""So long what somebody may do is believed when pages are drawn; the API is asked at each step anyway."""

FOLLOWED_ROLES_S, FOLLOWED_S = 60.0, 20.0
"""And so long while changes of people are followed, as is known so long after the last word: a hundred live pages would
ask twenty times a second who looks at them."""

SITE_S = 30.0
TRIES = 2
TIMEOUT_S = 15.0


class Clients:
    """The connections of all who are logged in, and what is known of the site."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._clients: OrderedDict[tuple[str, str], Client] = OrderedDict()
        self._callers: dict[str, tuple[float, Caller]] = {}
        self._followed_at = float("-inf")
        self._changes = 0
        self._begun: OrderedDict[str, str] = OrderedDict()
        self._site: tuple[float, SiteServices] | None = None

    def of(self, token: str, station: str = "", *, address: str = "") -> Client:
        """Return the client of a token at a station; without a station, where the site has only one.

        `address` is where its browser is: the audit log has it, and not where this portal is.
        """
        with self._lock:
            client = self._clients.pop((token, station), None) or self.new(token, station)
            self._clients[token, station] = client
            client.credentials.on_behalf_of = address or client.credentials.on_behalf_of
            while len(self._clients) > KEPT_CLIENTS:
                self._clients.popitem(last=False)
        return client

    def begin(self, token: str, mirror: str) -> None:
        """Have the services of stations asked for a new session when they know of it: until then it would be nobody's.

        `mirror` is how far they must have come, as the login said.
        """
        with self._lock:
            self._begun[token] = mirror
            while len(self._begun) > 4 * KEPT_CLIENTS:
                self._begun.popitem(last=False)

    def new(self, token: str | None, station: str = "", *, address: str = "") -> Client:
        """Return a client of nobody else's; without a token, nobody's at all."""
        settings = self._settings
        local: Mapping[Service, str] = {}
        if not station or station == settings.station.name:
            local = {service: settings.url(service) for service in Service}
        client = Client(
            settings.url(Service.STORAGE),
            station=station or settings.station.name,
            urls=dict(local),
            ca=settings.tls.ca_file or None,
            logins=Logins(settings.data_dir / "run" / "no-logins.json"),
            timeout_s=TIMEOUT_S,
            tries=TRIES,
        )
        # Whatever the environment of this process says of logins is not those of who looks at pages.
        client.credentials.token, client.credentials.renew, client.credentials.mirror = token, None, ""
        client.credentials.on_behalf_of = address
        if token is not None:
            client.credentials.mirror = self._begun.get(token, "")
        return client

    @contextmanager
    def of_service(self) -> Iterator[Client]:
        """Give the client under the station's service key, which stays open: all live pages are drawn from it."""
        yield self.of(self.service_key())

    def service_key(self) -> str:
        """Return the key of the station."""
        path = self._settings.service_key_file
        try:
            key = path.read_text().strip()
        except OSError as error:
            raise UnavailableError(
                f"there is no service key {path} ({error.strerror}): live pages need it, `dm station join` gets it"
            ) from error
        if not key:  # a key of nothing would be everybody's
            raise UnavailableError(f"{path} holds no service key: live pages need it, `dm station join` gets it")
        return key

    def forget(self, token: str) -> None:
        """Close what a token had open."""
        with self._lock:
            self._callers.pop(token, None)
            self._begun.pop(token, None)
            for key in [key for key in self._clients if key[0] == token]:
                del self._clients[key]

    def close(self) -> None:
        """Close all connections: nobody looks any more."""
        with self._lock:
            while self._clients:
                self._clients.popitem()[1].close()

    def follow(self, mirror: Mirror) -> None:
        """Take in what changed of people since they were last followed; of those who changed it is asked anew."""
        users = {user.uid for user in mirror.users} | {grant.user_uid for grant in mirror.grants}
        sessions = {session.uid for session in mirror.sessions}
        with self._lock:
            self._followed_at = time.monotonic()
            self._changes += mirror.is_news
            for token, (_, caller) in list(self._callers.items()):
                if mirror.is_whole or caller.user_uid in users or caller.session_uid in sessions:
                    del self._callers[token]

    def caller(self, token: str) -> Caller:
        """Return who a token is, with what they may; raises NotAuthenticatedError where its session has ended."""
        at, caller = self._callers.get(token, (0.0, None))
        now = time.monotonic()
        if caller is None or now - at > (FOLLOWED_ROLES_S if now - self._followed_at < FOLLOWED_S else ROLES_S):
            changes = self._changes
            caller = caller_of(self.of(token).sessions.whoami())
            with self._lock:
                # What changed while it was asked may be of them, and not in the answer.
                self._callers[token] = (now if changes == self._changes else now - FOLLOWED_ROLES_S, caller)
                if len(self._callers) > 4 * KEPT_CLIENTS:
                    self._callers.pop(next(iter(self._callers)))
        return caller

    def site(self) -> SiteServices:
        """Return the site with its stations; anybody may know."""
        now = time.monotonic()
        if self._site is None or now - self._site[0] > SITE_S:
            with self.new(None) as client:
                self._site = (now, client.site())
        return self._site[1]

    def stations(self) -> Sequence[StationServices]:
        """Return the stations of the site."""
        return self.site().stations


def caller_of(who: Whoami) -> Caller:
    """Return somebody as the rules of rights take them, so that pages offer what the API would allow."""
    return Caller(
        username=who.user.username if who.user else "",
        user_uid=who.user.uid if who.user else None,
        session_uid=who.session.uid if who.session else None,
        bound_experiment_uid=who.session.experiment_uid if who.session else None,
        grants=who.grants,
    )
