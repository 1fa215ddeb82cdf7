"""What a station knows and does while its site cannot be reached: experiments, their people, and logging in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from beamkeeper.core import experiments as core
from beamkeeper.core import offline as core_offline
from beamkeeper.core import sessions as core_sessions
from beamkeeper.core import unsent as core_unsent
from beamkeeper.core import users as core_users
from beamkeeper.domain.experiments import (
    Experiment,
    ExperimentPage,
    ExperimentQuery,
    Member,
    NewExperiment,
    UnsentChange,
    UnsentExperiment,
)
from beamkeeper.domain.status import HEARD_HEADER
from beamkeeper.domain.users import Login, NewSession, OfflineLogin, Whoami
from beamkeeper.server.auditing import acting_as
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.deps import AcquisitionTx, AcquisitionWriteTx, Ctx, Who, source, writing

router = APIRouter(route_class=StrictRoute, tags=["experiments"])


def _say_when(tx: AcquisitionTx, response: Response) -> None:
    """Say from when it is what is told here: this station has not heard of its site since."""
    if (state := core_users.mirror_state(tx)) is not None:
        response.headers[HEARD_HEADER] = state.heard_at.isoformat()


AsHeard = [Depends(_say_when, scope="function")]
"""For answers that are as old as the last word of the site."""


@router.get("/experiments", summary="Experiments, newest first", dependencies=AsHeard)
def experiments(query: Annotated[ExperimentQuery, Query()], tx: AcquisitionTx, who: Who) -> ExperimentPage:
    """Those that the caller may see, as far as this station has heard."""
    return core.page(tx, who, query)


@router.post("/experiments", status_code=201, summary="Make an experiment while the site cannot be reached")
def create(new: NewExperiment, ctx: Ctx, tx: AcquisitionWriteTx, who: Who) -> Experiment:
    """For managers of this station. Files wait; the site makes its directories, and may give it another name."""
    return core_unsent.create(tx, who, new, station=ctx.settings.station.name)


@router.get("/experiments/{uid}", summary="An experiment", dependencies=AsHeard)
def experiment(uid: UUID, tx: AcquisitionTx, who: Who) -> Experiment:
    """For those who may see it, as far as this station has heard."""
    return core.show(tx, who, uid)


@router.get("/experiments/{uid}/people", summary="People of an experiment", dependencies=AsHeard)
def people(uid: UUID, tx: AcquisitionTx, who: Who) -> Sequence[Member]:
    """With their roles, by name, as far as this station has heard."""
    return core.people(tx, who, uid)


@router.get("/whoami", summary="Who is calling", dependencies=AsHeard)
def whoami(tx: AcquisitionTx, who: Who) -> Whoami:
    """The account, the session and the roles held, as far as this station has heard."""
    return core_sessions.whoami(tx, who)


@router.get("/unsent-experiments", summary="Experiments that the site does not have yet")
def unsent(ctx: Ctx, tx: AcquisitionTx, who: Who) -> Sequence[UnsentExperiment]:
    """That were made here while it could not be reached; with why it refuses them, where it does."""
    return core_unsent.list_(tx, who, station=ctx.settings.station.name)


@router.post("/unsent-experiments/{uid}:send", summary="Send an experiment to the site now")
def send_again(uid: UUID, change: UnsentChange, ctx: Ctx, tx: AcquisitionWriteTx, who: Who) -> UnsentExperiment:
    """With changes, where the site refuses it as it is."""
    return core_unsent.send_again(tx, who, uid, change, station=ctx.settings.station.name)


@router.delete("/unsent-experiments/{uid}", status_code=204, summary="Give up an experiment that waits")
def drop(uid: UUID, ctx: Ctx, tx: AcquisitionWriteTx, who: Who) -> None:
    """Its DAQs and uploads must have ended; its files stay at the source."""
    core_unsent.drop(tx, who, uid, station=ctx.settings.station.name)


@router.put("/offline-login", status_code=204, summary="Be able to log in here while the site cannot be reached")
def keep_login(wanted: OfflineLogin, ctx: Ctx, request: Request, who: Who) -> None:
    """For who has just logged in: a verifier of the password is made, and kept here alone."""
    with ctx.database.read() as read:
        core_offline.check_keeping(read, who, wanted)
    password_hash = core_offline.hashed(wanted, ctx.passwords)
    with writing(request) as tx:
        core_offline.keep(tx, who, wanted, password_hash)


@router.post("/offline-sessions", status_code=201, summary="Log in while the site cannot be reached")
def offline_login(ctx: Ctx, request: Request, wanted: Login) -> NewSession:
    """For who has logged in here before; the services of this station know the login, and nobody else."""
    with ctx.database.write() as counting:
        attempt = core_offline.begin_login(counting, wanted, source=source(request))
    acting_as(request, attempt.user)
    core_offline.check_password(attempt, ctx.passwords)
    with writing(request) as tx:
        return core_offline.login(tx, attempt)
