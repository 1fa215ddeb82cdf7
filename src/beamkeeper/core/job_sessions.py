"""Sessions for jobs: begun and ended by the service that runs them, each limited to its job's experiment."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from beamkeeper.core import rights
from beamkeeper.core.tokens import new_token, token_sha256
from beamkeeper.db import StorageTransaction, Transaction
from beamkeeper.domain.acquisition import MadeBy
from beamkeeper.domain.errors import NotPermittedError
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.users import (
    Action,
    Caller,
    Grant,
    JobSession,
    JobSessions,
    NewJobSession,
    Role,
    Target,
    User,
    may,
    require,
)
from beamkeeper.domain.users.jobs import JOB_SCOPES, session_name

LIFE = timedelta(hours=24)
"""The longest that a token holds where nobody can say any more that its job has ended."""


def begin(tx: StorageTransaction, caller: Caller, wanted: Sequence[NewJobSession]) -> JobSessions:
    """Begin a session for each job whose owner may run jobs there; the service must be of the experiment's station."""
    tx.events.claim()
    return JobSessions(items=[made for one in wanted if (made := _begun(tx, caller, one)) is not None])


def _begun(tx: StorageTransaction, caller: Caller, one: NewJobSession) -> JobSession | None:
    experiment = rights.experiment(tx, caller, Action.JOB_SESSION, one.experiment_uid)
    owner = tx.users.find(one.username)
    if owner is None or not owner.is_enabled or not _may_run(tx, owner, experiment):
        return None
    token = new_token()
    tx.users.add_session(
        token_sha256(token),
        user_uid=owner.uid,
        experiment_uid=experiment.uid,
        expires_at=tx.now + LIFE,
        name=session_name(one.job_uid),
        scopes=JOB_SCOPES,
    )
    return JobSession(job_uid=one.job_uid, token=token)


def end(tx: StorageTransaction, caller: Caller, job_uids: Sequence[UUID]) -> None:
    """End the sessions of jobs of the caller's station, at once; those that have none stay as they are."""
    require(caller, Action.JOB_SESSION, Target(station_uid=caller.station_uid), "jobs")
    found = tx.users.sessions_named([session_name(uid) for uid in job_uids])
    for record in found:
        if record.experiment_uid is not None:
            rights.experiment(tx, caller, Action.JOB_SESSION, record.experiment_uid)
    if found:
        tx.users.revoke_sessions([record.uid for record in found])


def grants_there(grants: Sequence[Grant], experiment: Experiment) -> tuple[Grant, ...]:
    """Return the roles that count for a job of an experiment: who leads the station leads there, and nowhere else."""
    own = [grant for grant in grants if grant.experiment_uid == experiment.uid]
    leading = [grant for grant in grants if _is_leading(grant, experiment)]
    led = [Grant(user_uid=g.user_uid, role=Role.MANAGER, experiment_uid=experiment.uid) for g in leading[:1]]
    return (*own, *led)


def _is_leading(grant: Grant, experiment: Experiment) -> bool:
    is_of_station = grant.role is Role.STATION_MANAGER and grant.station_uid == experiment.station_uid
    return is_of_station or grant.role is Role.ADMINISTRATOR


def _may_run(tx: Transaction, owner: User, experiment: Experiment) -> bool:
    person = Caller(owner.username, user_uid=owner.uid, grants=tuple(tx.users.grants_of(owner.uid)))
    return may(person, Action.JOB_RUN, experiment.target(tx.now))


def made_by(caller: Caller, attempt_uid: UUID | None) -> MadeBy | None:
    """Return for which attempt of a job files are kept: only the session of a job can say so, and only of this job."""
    if caller.job_uid is not None:
        return MadeBy(job_uid=caller.job_uid, attempt_uid=attempt_uid)
    if attempt_uid is not None:
        raise NotPermittedError("only a command of a job keeps files for it: leave attempt_uid out")
    return None
