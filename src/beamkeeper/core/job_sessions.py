"""Sessions for jobs: begun and ended by the service that runs them, each limited to its job's experiment."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from beamkeeper.core import rights
from beamkeeper.core.tokens import new_token, token_sha256
from beamkeeper.db import StorageTransaction, Transaction
from beamkeeper.db.base import new_uid
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
    SessionRecord,
    Target,
    User,
    may,
    require,
)
from beamkeeper.domain.users.jobs import JOB_SCOPES, session_name

LIFE = timedelta(hours=24)
"""The longest that a token holds where nobody can say any more that its job has ended."""


def begin(
    tx: StorageTransaction, caller: Caller, wanted: Sequence[NewJobSession], *, ended: Sequence[UUID] = ()
) -> JobSessions:
    """Begin a session for each job whose owner may run jobs there; the service must be of the experiment's station.

    Those of jobs that have ended end as well.
    """
    tx.events.claim()
    if ended:
        end(tx, caller, ended)
    tx.users.forget_sessions()
    # Jobs that begin together are mostly of one experiment and one person.
    people = {
        key: _who(tx, caller, *key) for key in dict.fromkeys((one.experiment_uid, one.username) for one in wanted)
    }
    records, made = [], []
    for one in wanted:
        owner = people[one.experiment_uid, one.username]
        if owner is not None:
            token = new_token()
            records.append(_session(one, owner, token, now=tx.now))
            made.append(JobSession(job_uid=one.job_uid, token=token))
    if records:
        tx.users.add_sessions(records)
    return JobSessions(items=made)


def _who(tx: StorageTransaction, caller: Caller, experiment_uid: UUID, username: str) -> User | None:
    """Return the owner of a job, where they may run it."""
    experiment = rights.experiment(tx, caller, Action.JOB_SESSION, experiment_uid)
    owner = tx.users.find(username)
    return owner if owner is not None and owner.is_enabled and _may_run(tx, owner, experiment) else None


def _session(one: NewJobSession, owner: User, token: str, *, now: datetime) -> SessionRecord:
    return SessionRecord(
        uid=new_uid(),
        token_sha256=token_sha256(token),
        user_uid=owner.uid,
        experiment_uid=one.experiment_uid,
        created_at=now,
        expires_at=now + LIFE,
        name=session_name(one.job_uid),
        scopes=JOB_SCOPES,
    )


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
