"""The sessions under which commands of jobs act: for one experiment, as long as the job runs."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import Field

from beamkeeper.domain.names import Input, Model, Uid, Username
from beamkeeper.domain.users.people import Scope

MOST_AT_ONCE = 1000
JOB_SCOPES = (Scope.ACQUIRE, Scope.ANNOTATE, Scope.READ)
"""What a command of a job may do: read files, keep new ones, and say things about them."""

_PREFIX = "job:"
"""No API key can be called so: the names that people give have no colon."""


class NewJobSession(Input):
    """A job that is to act in its owner's name, on its experiment."""

    job_uid: Uid
    username: Username
    experiment_uid: Uid


class NewJobSessions(Input):
    """Jobs that begin, and others whose sessions end: each change is news to every service of the station."""

    jobs: Annotated[tuple[NewJobSession, ...], Field(min_length=1, max_length=MOST_AT_ONCE)]
    ended: Annotated[tuple[Uid, ...], Field(max_length=MOST_AT_ONCE)] = ()


class JobSession(Model):
    """The token of a job; kept by us only as a hash."""

    job_uid: Uid
    token: str = Field(repr=False)


class JobSessions(Model):
    """The tokens of jobs; a job whose owner may not run any there has none."""

    items: tuple[JobSession, ...]


class EndedJobs(Input):
    """Jobs whose sessions end."""

    job_uids: Annotated[tuple[Uid, ...], Field(min_length=1, max_length=MOST_AT_ONCE)]


def session_name(job_uid: UUID) -> str:
    """Return what the session of a job is called."""
    return f"{_PREFIX}{job_uid}"


def job_of(name: str) -> UUID | None:
    """Return which job a session of this name is for; None for those of people."""
    return UUID(name.removeprefix(_PREFIX)) if name.startswith(_PREFIX) else None
