"""Logging in and out, accounts, and the roles that they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit
from uuid import UUID

from beamkeeper.client.http import Http
from beamkeeper.client.places import asked
from beamkeeper.domain.errors import ConflictError, NotFoundError, SettingsError, UnavailableError
from beamkeeper.domain.people import AuthenticatorFinding
from beamkeeper.domain.status import OFFLINE_LOGIN, Health, Service
from beamkeeper.domain.users import (
    EndedJobs,
    Grant,
    JobSession,
    JobSessions,
    NewGrant,
    NewJobSession,
    NewJobSessions,
    NewSession,
    NewUser,
    Session,
    User,
    UserChange,
    UserPage,
    Whoami,
)

if TYPE_CHECKING:
    from beamkeeper.client.api import Client


LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Sessions:
    """Logging in and out."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._proof = ""

    def login(
        self, username: str, password: str, *, experiment: str | None = None, experiment_uid: UUID | None = None
    ) -> NewSession:
        """Begin a session, under which this client goes on; a shared account needs to say for which experiment."""
        wanted = {
            "username": username,
            "password": password,
            "experiment": experiment,
            "experiment_uid": None if experiment_uid is None else str(experiment_uid),
        }
        credentials = self._client.credentials
        renew, credentials.renew = credentials.renew, None  # a refused login must not log in again by itself
        try:
            new = self._begun(wanted)
        finally:
            credentials.renew = renew
        credentials.token, self._proof = new.token, new.password_proof
        return new

    def _begun(self, wanted: dict[str, str | None]) -> NewSession:
        """Log in at the site; or at the station where the site cannot be reached, if it lets one."""
        new: NewSession
        try:
            new = self._http().call("POST", "/api/v1/sessions", NewSession, body=wanted)
        except UnavailableError as fault:
            self._client.away.note(fault)
            try:
                here = self._client.http(Service.ACQUISITION)
                new = here.call("POST", "/api/v1/offline-sessions", NewSession, body=wanted)
            except UnavailableError:
                raise fault from None
            except (NotFoundError, ConflictError, SettingsError) as error:
                raise UnavailableError(f"{fault.message}; {error.message}", **fault.details) from error
        return new

    def prepare_offline(self, password: str) -> bool:
        """Be able to log in at this client's station while it is cut off; tell whether that is so now.

        For who has just logged in by this client, with this password. It goes to a station on this machine, or through
        TLS, and nowhere else.
        """
        here = self._client.http(Service.ACQUISITION)
        if not (here.url.startswith("https://") or urlsplit(here.url).hostname in LOOPBACK):
            return False
        health: Health = here.get("/health", Health, timeout_s=3.0)
        if OFFLINE_LOGIN not in health.features:
            return False
        here.call("PUT", "/api/v1/offline-login", body={"password": password, "proof": self._proof})
        return True

    def logout(self) -> None:
        """End this client's session."""
        self._http().call("DELETE", "/api/v1/sessions/current")
        self._client.credentials.token = None

    def whoami(self) -> Whoami:
        """Return who this client's session belongs to."""
        found: Whoami = asked(self._client, lambda http: http.get("/api/v1/whoami", Whoami))
        return found

    def try_authenticators(self, username: str | None = None) -> Sequence[AuthenticatorFinding]:
        """Try who checks passwords that are not kept here, step by step; for administrators."""
        found: Sequence[AuthenticatorFinding] = self._http().get(
            "/api/v1/authenticators", Sequence[AuthenticatorFinding], query={"username": username}
        )
        return found

    def list(self, username: str | None = None) -> Sequence[Session]:
        """Return the sessions of a user that hold; one's own by default."""
        found: Sequence[Session] = self._http().get("/api/v1/sessions", Sequence[Session], query={"username": username})
        return found

    def revoke(self, uid: UUID) -> None:
        """End a session."""
        self._http().call("DELETE", f"/api/v1/sessions/{uid}")

    def begin_for_jobs(self, jobs: Sequence[NewJobSession], *, ended: Sequence[UUID] = ()) -> Sequence[JobSession]:
        """Begin sessions in the names of jobs' owners, each for its experiment only, and end others; for services."""
        body = NewJobSessions(jobs=tuple(jobs), ended=tuple(ended))
        made: JobSessions = self._http().call("POST", "/api/v1/job-sessions", JobSessions, body=body)
        return made.items

    def end_of_jobs(self, uids: Sequence[UUID]) -> None:
        """End the sessions of jobs; for services."""
        self._http().call("POST", "/api/v1/job-sessions:end", body=EndedJobs(job_uids=tuple(uids)))

    def _http(self) -> Http:
        return self._client.http(Service.STORAGE)


class Users:
    """Accounts and the roles they hold."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def list(self) -> Iterator[User]:
        """Yield every account, by name."""
        after: str | None = None
        while True:
            page = self.page(after, limit=1000)
            yield from page.items
            if (after := page.next) is None:
                return

    def page(self, after: str | None = None, *, limit: int = 100, text: str | None = None) -> UserPage:
        """Return one page of accounts, by name; with a text those that have it in username, name or e-mail."""
        query = {"text": text, "after": after, "limit": limit}
        page: UserPage = self._http().get("/api/v1/users", UserPage, query=query)
        return page

    def get(self, username: str) -> User:
        """Return an account."""
        found: User = self._http().get(_path(username), User)
        return found

    def create(self, new: NewUser) -> User:
        """Make an account."""
        body = new.model_dump(mode="json", exclude_unset=True)
        if new.password is not None:
            body["password"] = new.password.get_secret_value()  # which a dump masks
        made: User = self._http().call("POST", "/api/v1/users", User, body=body)
        return made

    def change(self, username: str, change: UserChange) -> User:
        """Change what is given of an account."""
        body = change.model_dump(mode="json", exclude_unset=True)
        changed: User = self._http().call("PATCH", _path(username), User, body=body)
        return changed

    def set_password(self, username: str, new: str, *, present: str | None = None) -> None:
        """Set a password; one's own needs the present one."""
        self._http().call("PUT", f"{_path(username)}/password", body={"new": new, "present": present})

    def grants(self, username: str) -> Sequence[Grant]:
        """Return the roles that a user holds."""
        found: Sequence[Grant] = self._http().get(f"{_path(username)}/grants", Sequence[Grant])
        return found

    def grant(self, new: NewGrant) -> Grant:
        """Give a role of the site or of a station."""
        given: Grant = self._http().call("POST", "/api/v1/grants", Grant, body=new)
        return given

    def revoke(self, old: NewGrant) -> None:
        """Take a role of the site or of a station away."""
        self._http().call("DELETE", "/api/v1/grants", query=old)


def _path(username: str) -> str:
    return f"/api/v1/users/{quote(username, safe='')}"
